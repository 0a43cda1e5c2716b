"""The clock on the wall may be set while a service runs."""

from __future__ import annotations

import ast
import itertools
import time
from pathlib import Path

import pytest

import aserpc
from aserpc.errors import DeadlineError
from support.asking import Elapsed, atom, energy_at
from support.calculators import Gate, Spring
from support.service import Service
from support.waiting import wait_for

WALL = {"time", "time_ns", "localtime", "gmtime", "ctime", "now", "utcnow", "today"}


def test_no_rule_asks_the_clock_on_the_wall() -> None:
    found = []
    folder = Path(str(aserpc.__file__)).parent
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = ast.unparse(node.value).rpartition(".")[2]
                if owner in ("time", "datetime", "date") and node.attr in WALL:
                    found.append(f"{path}:{node.lineno}")
            if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
                found.append(f"{path}:{node.lineno}")
    assert not found


def test_a_service_goes_on_when_the_clock_jumps(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.start_broker(worker_timeout=1.0)
    jumps = itertools.cycle([0.0, 1e9, -1e9, 3600.0, -3600.0])
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + next(jumps))
    worker = service.start_worker("spring", Spring, heartbeat_interval=0.2)
    service.start_worker("gate", lambda: Gate(str(tmp_path)), heartbeat_interval=0.2)
    client = service.client()
    with Elapsed() as elapsed, pytest.raises(DeadlineError):
        energy_at(service.calculator("gate", deadline=1.5), 2)
    assert 1.4 < elapsed.seconds < 10
    (tmp_path / "go").touch()
    for x in range(50):
        assert client.submit("spring", atom(x)).result(20)["energy"] == x * x / 2
    wait_for(lambda: service.status()["workers"]["gate"]["idle"] == 1)
    assert worker.requests_handled == 50
    assert service.ready("spring") == 1, "nobody was taken for lost"
