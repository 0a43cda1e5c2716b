"""A broker and a manager in one process, as ``aserpc up`` serves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from aserpc.broker import Broker
from aserpc.cli.up import serve
from aserpc.manager import Manager
from aserpc.spawn import SpawnConfig


@pytest.mark.usefixtures("leaves_nothing")
def test_what_ends_the_broker_ends_the_command(
    socket_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(broker: Broker) -> None:
        raise PermissionError(f"{broker.frontend} can't be bound")

    monkeypatch.setattr(Broker, "serve", fail)
    broker = Broker(f"ipc://{socket_folder}/frontend.ipc", f"ipc://{socket_folder}/backend.ipc")
    manager = Manager({"emt": SpawnConfig("emt", command=["true"])}, broker.backend)
    with pytest.raises(PermissionError, match="can't be bound"):
        serve(manager, broker)
