"""Brokers with a gate, with keys, and by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.asking import answer_pings
from support.gated import Gated
from support.keyring import Guarded, Keyring
from support.peers import FakeBroker
from support.service import Service


@pytest.fixture
def gated(service: Service, tmp_path: Path) -> Iterator[Gated]:
    """A broker and a gated worker; the gate opens at the end."""
    service.start_broker()
    gated = Gated(service, tmp_path)
    yield gated
    gated.open()


@pytest.fixture
def fake(socket_folder: Path, leaves_nothing: None) -> Iterator[FakeBroker]:
    """A broker by hand that answers pings and nothing else."""
    broker = FakeBroker(f"ipc://{socket_folder}/frontend.ipc", answer_pings)
    yield broker
    broker.close()


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    """The broker's keys, and those of people to be made."""
    return Keyring(tmp_path / "keys")


@pytest.fixture
def guarded(service: Service, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    """A broker on tcp that takes keys, beside its local sockets."""
    monkeypatch.setenv("ASERPC_IPC_DIR", str(service.folder))
    monkeypatch.setenv("ASERPC_KEYS_DIR", str(keyring.head.path))
    return Guarded(service, keyring)
