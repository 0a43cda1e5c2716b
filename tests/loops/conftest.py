"""Brokers with a gate, and by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.asking import answer_pings
from support.gated import Gated
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
