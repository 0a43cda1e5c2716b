"""How a worker's process starts, computes and ends."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path

import pytest

from aserpc import list_calculators
from aserpc.errors import WorkerFailedError
from support.asking import energy_at
from support.processes import CALCULATORS, Cli
from support.waiting import InThread, wait_for


def kwargs(**keywords: object) -> tuple[str, str]:
    return "--kwargs", json.dumps({name: str(value) for name, value in keywords.items()})


# ---- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_request_finish(cli: Cli, tmp_path: Path, number: int) -> None:
    cli.broker()
    worker = cli.worker("Gate", *kwargs(folder=tmp_path))
    call = InThread(lambda: energy_at(cli.calculator("gate"), 2))
    wait_for(lambda: list(tmp_path.glob("started-*")))
    worker.signal(number)
    (tmp_path / "go").touch()
    assert call.result() == 2
    assert worker.wait() == 0
    assert "Traceback" not in worker.errors()
    wait_for(lambda: not list_calculators(cli.frontend))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_worker(cli: Cli, number: int) -> None:
    cli.broker()
    worker = cli.worker("Spring")
    worker.signal(number)
    assert worker.wait() == 0
    assert not list_calculators(cli.frontend)


def test_a_signal_hands_back_what_was_not_started(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    first = cli.worker("Gate", *kwargs(folder=tmp_path))
    calls = [InThread(partial(energy_at, cli.calculator("gate"), x)) for x in (2.0, 4.0)]
    wait_for(lambda: cli.status()["pending_requests"].get("gate") == 1)
    first.signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    assert first.wait() == 0
    cli.worker("Gate", *kwargs(folder=tmp_path))
    assert [call.result() for call in calls] == [2, 8]


def test_a_second_signal_ends_it_at_once(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    worker = cli.worker("Gate", *kwargs(folder=tmp_path))
    call = InThread(lambda: energy_at(cli.calculator("gate", deadline=15), 2))
    wait_for(lambda: list(tmp_path.glob("started-*")))

    def interrupted_again() -> bool:
        worker.signal(signal.SIGINT)
        return not worker.runs()

    wait_for(interrupted_again)
    assert worker.wait() != 0
    assert "Traceback" not in worker.errors()
    (tmp_path / "go").touch()
    cli.worker("Gate", *kwargs(folder=tmp_path))
    assert call.result() == 2


def test_sigterm_may_come_twice(cli: Cli, tmp_path: Path) -> None:
    """To the process group, and passed on by ``uv run``."""
    cli.broker()
    worker = cli.worker("Gate", *kwargs(folder=tmp_path))
    call = InThread(lambda: energy_at(cli.calculator("gate"), 2))
    wait_for(lambda: list(tmp_path.glob("started-*")))
    worker.signal(signal.SIGTERM)
    wait_for(lambda: not signals_wait(worker.pid))
    worker.signal(signal.SIGTERM)
    wait_for(lambda: not signals_wait(worker.pid))
    (tmp_path / "go").touch()
    assert call.result() == 2
    assert worker.wait() == 0


def signals_wait(pid: int) -> bool:
    """Whether a process has signals that it has not taken yet."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return any(int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_that_loads(cli: Cli, tmp_path: Path, number: int) -> None:
    cli.broker()
    worker = cli.loading_worker("SlowToLoad", *kwargs(folder=tmp_path), name="slow")
    wait_for(lambda: list(tmp_path.glob("loading-*")))
    worker.signal(number)
    assert worker.wait() == 0
    assert "Traceback" not in worker.errors()
    assert not cli.status()["processes"]


def test_an_idle_worker_leaves(cli: Cli) -> None:
    cli.broker()
    worker = cli.worker("Spring", "--idle-timeout", "0.5")
    assert worker.wait() == 0
    assert not list_calculators(cli.frontend)


# ---- the beginning -------------------------------------------------------------------------------


def test_a_client_waits_for_a_worker_that_loads(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    cli.loading_worker("SlowToLoad", *kwargs(folder=tmp_path), name="slow")
    wait_for(lambda: cli.status()["workers"].get("slow", {}).get("loading") == 1)
    call = InThread(lambda: energy_at(cli.calculator("slow"), 2))
    wait_for(lambda: cli.status()["pending_requests"].get("slow") == 1)
    (tmp_path / "go").touch()
    assert call.result() == 2


def test_those_who_wait_hear_why_a_worker_failed_to_load(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    worker = cli.loading_worker("SlowToFail", *kwargs(folder=tmp_path), name="slow")
    wait_for(lambda: cli.status()["workers"].get("slow"))
    call = InThread(lambda: energy_at(cli.calculator("slow"), 2))
    wait_for(lambda: cli.status()["pending_requests"].get("slow") == 1)
    (tmp_path / "go").touch()
    with pytest.raises(WorkerFailedError, match="the model file is missing"):
        call.result()
    assert worker.wait() == 1
    assert "the model file is missing" in worker.errors()
    assert "Traceback" not in worker.errors()


def test_a_construction_error_needs_no_broker_to_be_told(cli: Cli) -> None:
    done = cli.run("worker", f"{CALCULATORS}:Unmakable")
    assert done.code == 1
    assert "the model file is missing" in done.errors
    assert "Traceback" not in done.errors


def test_a_worker_before_its_broker_says_where_it_waits(cli: Cli) -> None:
    worker = cli.loading_worker("Spring", name="spring")
    wait_for(lambda: "waiting for a broker" in worker.errors())
    assert cli.backend in worker.errors()
    cli.broker()
    wait_for(lambda: worker.pid in cli.ready())
    assert energy_at(cli.calculator("spring"), 2) == 2


def test_a_refused_worker_says_why(cli: Cli) -> None:
    cli.broker()
    cli.worker("Spring", name="it")
    done = cli.run("worker", "EMT", "--name", "it")
    assert done.code == 1
    assert "--allow-mixed" in done.errors
    assert "Traceback" not in done.errors


# ---- where it computes ---------------------------------------------------------------------------


def test_each_worker_computes_in_a_folder_of_its_own(cli: Cli) -> None:
    cli.broker()
    workers = [cli.worker("Writes") for _ in range(2)]
    folders = set()
    for x, worker in enumerate(workers):
        calculator = cli.calculator("writes")
        energy_at(calculator, x)
        folder = Path(calculator.results["folder"])
        assert (folder / "scratch.out").exists()
        assert folder != cli.cwd
        folders.add(folder)
        (last,) = (w for w in workers if w.pid == calculator.provenance["pid"])
        last.signal(signal.SIGTERM)
        assert last.wait() == 0
        assert not folder.exists(), "it is removed"
        del worker
    assert len(folders) == 2
    assert not list(cli.cwd.iterdir())


def test_what_a_process_of_the_same_number_left_is_not_its_own(cli: Cli) -> None:
    """In containers that share the folder, each worker may be process 1."""
    cli.broker()
    script = 'mkdir -p "$0-$$"; >"$0-$$/left"; exec "$@"'
    cli.prefix = ["sh", "-c", script, str(cli.sockets / "work" / "writes")]
    worker = cli.worker("Writes")
    calculator = cli.calculator("writes")
    energy_at(calculator, 1)
    folder = Path(calculator.results["folder"])
    assert folder.stat().st_mode & 0o077 == 0
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    theirs = cli.sockets / "work" / f"writes-{worker.pid}"
    assert list(theirs.parent.iterdir()) == [theirs]
    assert [path.name for path in theirs.iterdir()] == ["left"]


def test_where_it_was_started_may_be_gone_at_the_end(cli: Cli) -> None:
    cli.broker()
    cli.prefix = ["sh", "-c", 'mkdir gone; cd gone; exec "$@"', "sh"]
    worker = cli.worker("Writes")
    (cli.cwd / "gone").rmdir()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "Traceback" not in worker.errors()
    assert not list((cli.sockets / "work").iterdir())


def test_a_folder_that_cannot_be_made_is_one_clear_line(cli: Cli) -> None:
    (cli.sockets / "work").touch()
    done = cli.run("worker", "EMT")
    assert done.code == 2
    (line,) = done.errors.splitlines()
    assert "--workdir" in line


def test_relative_paths_and_imports_are_those_of_where_it_was_started(cli: Cli) -> None:
    (cli.cwd / "energy.txt").write_text("17.5")
    (cli.cwd / "helper.py").write_text("OFFSET = 0.25\n")
    (cli.cwd / "mine.py").write_text(
        "from ase.calculators.emt import EMT\n"
        "class Mine(EMT):\n"
        "    implemented_properties = ['energy']\n"
        "    def __init__(self, path):\n"
        "        super().__init__()\n"
        "        self.path = path\n"
        "    def calculate(self, atoms=None, properties=None, system_changes=None):\n"
        "        from helper import OFFSET\n"
        "        self.results = {'energy': float(open(self.path).read()) + OFFSET}\n"
    )
    cli.broker()
    cli.start("worker", "mine:Mine", "--kwargs", '{"path": "energy.txt"}', "--name", "by_keyword")
    cli.start("worker", "mine.py:Mine", "--args", '["energy.txt"]', "--name", "by_place")
    wait_for(lambda: list_calculators(cli.frontend) == {"by_keyword": 1, "by_place": 1})
    for name in ("by_keyword", "by_place"):
        assert energy_at(cli.calculator(name), 1) == 17.75


def test_a_calculator_that_prints_megabytes_disturbs_nothing(cli: Cli) -> None:
    cli.broker()
    worker = cli.worker("Chatty")
    for x in (2, 4):
        assert energy_at(cli.calculator("chatty"), x) == x * x / 2
    assert len(worker.output()) > 4_000_000
    assert len(worker.errors()) > 4_000_000
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_loading_worker_can_be_interrupted(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    worker = cli.loading_worker("SlowToLoad", *kwargs(folder=tmp_path), name="slow")
    wait_for(lambda: list(tmp_path.glob("loading-*")))
    worker.signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    assert worker.wait() == 0
    assert not list_calculators(cli.frontend)
