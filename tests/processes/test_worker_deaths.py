"""Workers that are killed, stopped, crash or hold the interpreter, and brokers that are killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from aserpc import RemoteCalculator, list_calculators
from aserpc.broker.roster import ROSTER_FILE, Roster, unpack_roster
from aserpc.errors import PoisonError, ServiceError
from support.asking import energy_at
from support.processes import Cli, Process
from support.waiting import InThread, wait_for


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    """The folder in which gated calculators tell and are told."""
    folder = tmp_path / "gates"
    folder.mkdir()
    return folder


def folder_argument(folder: Path) -> str:
    return json.dumps({"folder": str(folder)})


def roster(cli: Cli) -> Roster:
    """Return what the broker leaves to the next."""
    return unpack_roster((cli.sockets / ROSTER_FILE).read_bytes())


def started(gates: Path) -> list[int]:
    """Return the processes that have started a calculation."""
    return [int(path.name.split("-")[1]) for path in gates.glob("started-*")]


def one_of_two(
    cli: Cli, gates: Path, call_options: dict[str, float]
) -> tuple[InThread[float], Process, Process, RemoteCalculator]:
    """Start two gated workers and a request; return the one that computes it first."""
    workers = [cli.worker("Gate", "--kwargs", folder_argument(gates)) for _ in range(2)]
    calculator = cli.calculator("gate", **call_options)
    call = InThread(lambda: energy_at(calculator, 2))
    wait_for(lambda: started(gates))
    (pid,) = started(gates)
    computing, other = sorted(workers, key=lambda worker: worker.pid != pid)
    return call, computing, other, calculator


def test_the_request_of_a_killed_worker_runs_on_another(cli: Cli, gates: Path) -> None:
    broker = cli.broker()
    call, computing, other, calculator = one_of_two(cli, gates, {})
    killed_at = time.monotonic()
    computing.signal(signal.SIGKILL)
    wait_for(lambda: other.pid in started(gates))
    assert time.monotonic() - killed_at < 4
    (gates / "go").touch()
    assert call.result() == 2
    assert calculator.provenance["pid"] == other.pid
    assert "lost" in broker.errors()


def test_a_stopped_worker_is_noticed_and_its_late_answer_dropped(cli: Cli, gates: Path) -> None:
    cli.broker("--timeout", "1.5")
    call, computing, other, calculator = one_of_two(cli, gates, {})
    computing.signal(signal.SIGSTOP)
    wait_for(lambda: other.pid in started(gates))
    (gates / "go").touch()
    assert call.result() == 2
    assert calculator.provenance["pid"] == other.pid
    computing.signal(signal.SIGCONT)
    wait_for(lambda: cli.ready() == {computing.pid, other.pid}, what=computing.errors)
    assert energy_at(calculator, 4) == 8
    assert {worker["answered"] for worker in cli.status()["processes"]} == {0, 2}


def test_a_stopped_idle_worker_is_noticed(cli: Cli) -> None:
    cli.broker("--timeout", "1")
    worker = cli.worker("Spring")
    worker.signal(signal.SIGSTOP)
    wait_for(lambda: not list_calculators(cli.frontend))


def test_a_killed_idle_worker_is_noticed_soon(cli: Cli) -> None:
    cli.broker("--timeout", "60")
    worker = cli.worker("Spring")
    killed_at = time.monotonic()
    worker.signal(signal.SIGKILL)
    wait_for(lambda: not list_calculators(cli.frontend))
    assert time.monotonic() - killed_at < 4


def test_a_calculator_that_holds_the_gil_is_not_given_up(cli: Cli, tmp_path: Path) -> None:
    broker = cli.broker("--timeout", "1")
    kwargs = json.dumps({"folder": str(tmp_path), "seconds": 3.2})
    cli.worker("HoldsGil", "--kwargs", kwargs, name="it", ASERPC_WORKER_TIMEOUT="1")
    assert energy_at(cli.calculator("it"), 2) == 2
    assert len(started(tmp_path)) == 1
    assert "lost" not in broker.errors()
    assert cli.ready(), "nor afterwards"


def test_a_request_that_crashes_its_workers_is_given_up(cli: Cli, gates: Path) -> None:
    cli.broker()
    (gates / "go").touch()
    workers = [cli.worker("Crashes", "--kwargs", folder_argument(gates)) for _ in range(3)]
    with pytest.raises(PoisonError, match="2 workers died") as caught:
        energy_at(cli.calculator("crashes", retries=3), 2)
    assert not isinstance(caught.value, ServiceError)
    (survivor,) = (worker for worker in workers if worker.runs())
    (crashed, _) = (worker for worker in workers if worker is not survivor)
    assert crashed.wait() == -signal.SIGABRT
    assert "in compute" in crashed.errors(), "the crash left its stack in the log"


def test_a_killed_broker_is_replaced_without_loss(cli: Cli, gates: Path) -> None:
    broker = cli.broker()
    idle = cli.worker("Spring")
    computing = cli.worker("Gate", "--kwargs", folder_argument(gates))
    call = InThread(lambda: energy_at(cli.calculator("gate"), 2))
    wait_for(lambda: started(gates))
    # The next broker is to find both, and what is being computed.
    wait_for(lambda: sorted(len(keys) for _, keys in roster(cli).workers.values()) == [0, 1])
    broker.signal(signal.SIGKILL)
    assert broker.wait() == -signal.SIGKILL
    assert (cli.sockets / "frontend.ipc").exists()
    assert (cli.sockets / "backend.ipc").exists()
    cli.broker()
    assert energy_at(cli.calculator("spring"), 2) == 2
    assert list_calculators(cli.frontend) == {"spring": 1, "gate": 1}
    (gates / "go").touch()
    assert call.result() == 2
    wait_for(lambda: cli.ready() == {idle.pid, computing.pid})
    assert len(started(gates)) == 1, "what was computed is not computed again"


def test_workers_find_a_broker_that_comes_much_later(cli: Cli) -> None:
    broker = cli.broker()
    worker = cli.worker("Spring")
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 0
    (cli.sockets / ROSTER_FILE).unlink(missing_ok=True)
    wait_for(lambda: "waiting for a broker" in worker.errors())
    cli.broker()
    wait_for(lambda: worker.pid in cli.ready())
    assert energy_at(cli.calculator("spring"), 2) == 2


def test_a_request_waits_for_the_successor_of_a_killed_worker(cli: Cli, gates: Path) -> None:
    cli.broker()
    worker = cli.worker("Gate", "--kwargs", folder_argument(gates))
    call = InThread(lambda: energy_at(cli.calculator("gate"), 2))
    wait_for(lambda: started(gates))
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: cli.status()["pending_requests"].get("gate"))
    (gates / "go").touch()
    cli.worker("Gate", "--kwargs", folder_argument(gates))
    assert call.result() == 2
