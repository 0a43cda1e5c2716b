"""After how long a silence a client makes its connection anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from aserpc.client.blocking import borrowed
from aserpc.settings import Settings


def silence(folder: Path) -> float:
    """Return that of a new connection, s."""
    with borrowed(f"ipc://{folder}/frontend.ipc") as channel:
        return float(channel.socket.get(zmq.TCP_MAXRT)) / 1000


@pytest.mark.usefixtures("leaves_nothing")
def test_it_is_the_setting(socket_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASERPC_WORKER_TIMEOUT", "120")
    assert silence(socket_folder) == 120


@pytest.mark.usefixtures("leaves_nothing")
def test_a_call_goes_on_though_the_current_folder_is_gone(
    socket_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert silence(socket_folder) == Settings.worker_timeout
