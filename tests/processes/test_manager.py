"""The manager with the real command: workers that come when they are asked for, and go."""

from __future__ import annotations

import os
import signal
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk

from aserpc import NoWorkersError, WorkerFailedError
from support.processes import Cli, Process
from support.waiting import wait_for

#: A calculator that tells about its process, in a registry that the manager's workers import.
MODULE = """
    import os, time
    from ase.calculators.emt import EMT

    class Telling(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["telling"] = {
                "pid": os.getpid(), "cwd": os.getcwd(),
                "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "threads": os.environ.get("OMP_NUM_THREADS"),
                "mpi": [k for k in os.environ if k.startswith("OMPI_")],
            }

    class Slow(Telling):
        def calculate(self, *args, **kwargs):
            time.sleep(1.0)
            super().calculate(*args, **kwargs)
"""


def write(cli: Cli, toml: str) -> None:
    (cli.cwd / "mine.py").write_text(textwrap.dedent(MODULE))
    (cli.cwd / "aserpc.toml").write_text(textwrap.dedent(toml))


def up(cli: Cli, toml: str, *arguments: str, **env: str) -> Process:
    """Start broker and manager, and wait until they serve."""
    write(cli, toml)
    process = cli.start("up", *arguments, **env)
    wait_for(lambda: "offers" in process.errors() or not process.runs(), what=process.errors)
    assert process.runs(), process.errors()
    return process


def ask(cli: Cli, name: str, **options: Any) -> dict[str, Any]:
    """Compute something anew, and return what the calculator tells."""
    atoms = bulk("Cu")
    atoms.calc = cli.calculator(name, **options)
    atoms.get_potential_energy()
    results: dict[str, Any] = atoms.calc.results
    return dict(results["telling"])


def gone(pid: int) -> bool:
    """Whether a process has ended; whoever inherited it may not have noticed yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


EMT = """
    [calculators.emt]
    factory = "mine:Telling"
    idle_timeout = 1.0
"""
STEADY = EMT.replace("1.0", "60.0")


def test_a_cold_request_starts_a_worker_which_leaves_when_idle(cli: Cli) -> None:
    process = up(cli, EMT)
    pid = ask(cli, "emt")["pid"]
    assert ask(cli, "emt")["pid"] == pid
    wait_for(lambda: gone(pid), what=process.errors)
    assert ask(cli, "emt")["pid"] != pid


def test_a_worker_computes_in_a_folder_of_its_own_which_is_removed(cli: Cli) -> None:
    process = up(cli, EMT)
    told = ask(cli, "emt")
    assert Path(told["cwd"]).parent == cli.sockets / "work"
    wait_for(lambda: not Path(told["cwd"]).exists(), what=process.errors)


def test_many_clients_bring_up_no_more_than_max_workers(cli: Cli) -> None:
    up(cli, STEADY.replace("Telling", "Slow") + "    max_workers = 2\n")
    with ThreadPoolExecutor(8) as executor:
        told = list(executor.map(lambda _: ask(cli, "emt"), range(8)))
    assert 1 <= len({entry["pid"] for entry in told}) <= 2
    assert len(cli.status()["processes"]) <= 2


def test_a_start_that_fails_is_told_with_its_last_words(cli: Cli) -> None:
    up(cli, '[calculators.bad]\ncommand = ["sh", "-c", "echo no weights here; exit 3"]\n')
    with pytest.raises(WorkerFailedError, match="exit code 3") as caught:
        ask(cli, "bad")
    assert "no weights here" in str(caught.value)


def test_a_missing_program_is_told(cli: Cli) -> None:
    up(cli, '[calculators.bad]\ncommand = ["no-such-program"]\n')
    with pytest.raises(WorkerFailedError, match="no-such-program"):
        ask(cli, "bad")


def test_too_many_failures_are_final_until_the_file_is_mended_and_loaded_again(cli: Cli) -> None:
    broken = '[calculators.emt]\nfactory = "mine:Tellling"\nmax_restarts = 0\n'
    up(cli, broken)
    with pytest.raises(WorkerFailedError, match="Tellling"):
        ask(cli, "emt")
    wait_for(lambda: cli.status()["spawning"]["emt"]["fatal"])
    with pytest.raises(WorkerFailedError, match="any more"):
        ask(cli, "emt")
    assert "Tellling" in cli.run("status").output
    write(cli, STEADY)
    assert cli.run("reload").code == 0
    wait_for(lambda: not cli.status()["spawning"]["emt"]["fatal"])
    assert ask(cli, "emt")["pid"]


def test_a_worker_under_another_name_is_told(cli: Cli) -> None:
    up(
        cli,
        """
        [calculators.emt]
        command = ["aserpc", "worker", "mine:Telling", "--name", "another"]
        """,
    )
    with pytest.raises(WorkerFailedError, match="another"):
        ask(cli, "emt")


def test_the_command_of_the_older_package_starts_a_worker(cli: Cli) -> None:
    (cli.cwd / "registry.py").write_text(
        textwrap.dedent(
            """
            from aserpc.spawn import SpawnConfig

            def get_spawn_configs() -> dict[str, SpawnConfig]:
                return {
                    "lj": SpawnConfig(
                        name="lj",
                        command=[
                            "aserpc", "worker", "ase.calculators.lj:LennardJones", "--name", "lj"
                        ],
                        idle_timeout=60.0,
                    ),
                }
            """
        )
    )
    cli.broker()
    process = cli.start("manager", "--registry", "registry.py:get_spawn_configs")
    wait_for(lambda: cli.status()["manager"]["connected"], what=process.errors)
    atoms = bulk("Cu")
    atoms.calc = cli.calculator("lj")
    assert atoms.get_potential_energy() != 0


def test_workers_get_gpus_threads_and_no_mpi_of_their_manager(cli: Cli) -> None:
    toml = STEADY + "    gpus = 1\n    max_workers = 2\n"
    up(cli, toml, "--gpus", "5", OMPI_COMM_WORLD_SIZE="4")
    told = ask(cli, "emt")
    assert told["gpu"] == "5"
    assert told["mpi"] == []
    assert int(told["threads"]) == max(1, (os.cpu_count() or 1) // 2)


def test_a_gpu_goes_from_an_idle_calculator_to_one_that_is_asked_for(cli: Cli) -> None:
    one = STEADY + "    gpus = 1\n"
    process = up(cli, one + one.replace("calculators.emt", "calculators.two"), "--gpus", "0")
    first = ask(cli, "emt")
    assert ask(cli, "two")["gpu"] == "0"
    wait_for(lambda: gone(first["pid"]), what=process.errors)


def test_min_workers_stay_though_they_are_idle(cli: Cli) -> None:
    process = up(cli, EMT + "    min_workers = 1\n")
    wait_for(cli.ready, what=process.errors)
    (pid,) = cli.ready()
    logs = cli.sockets / "logs"
    wait_for(lambda: any("idle for" in log.read_text() for log in logs.glob("*.log")))
    assert ask(cli, "emt")["pid"] == pid


def test_the_end_of_up_ends_workers_broker_and_leaves_no_socket(cli: Cli) -> None:
    process = up(cli, STEADY)
    pid = ask(cli, "emt")["pid"]
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    assert gone(pid)
    assert not list(cli.sockets.glob("*.ipc"))


def test_a_killed_managers_workers_serve_on_and_the_next_manager_has_them(cli: Cli) -> None:
    write(cli, STEADY)
    cli.broker()
    first = cli.start("manager")
    wait_for(lambda: cli.status()["manager"]["connected"], what=first.errors)
    pid = ask(cli, "emt")["pid"]
    first.signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: not cli.status()["manager"]["connected"])
    assert ask(cli, "emt")["pid"] == pid
    second = cli.start("manager")
    wait_for(lambda: cli.status()["manager"]["connected"], what=second.errors)
    assert "took over" in second.errors()
    assert ask(cli, "emt")["pid"] == pid
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    assert gone(pid)


def test_a_name_is_offered_by_one_manager_and_the_other_says_so(cli: Cli) -> None:
    write(cli, EMT)
    cli.broker()
    first = cli.start("manager")
    wait_for(lambda: cli.status()["manager"]["connected"], what=first.errors)
    second = cli.start("manager")
    wait_for(lambda: "offered already" in second.errors(), what=second.errors)
    assert ask(cli, "emt")["pid"]


def test_a_restarted_broker_has_manager_and_workers_again(cli: Cli) -> None:
    write(cli, STEADY)
    broker = cli.broker()
    manager = cli.start("manager")
    wait_for(lambda: cli.status()["manager"]["connected"], what=manager.errors)
    pid = ask(cli, "emt")["pid"]
    broker.signal(signal.SIGKILL)
    broker.wait()
    cli.broker()
    wait_for(lambda: cli.status()["manager"]["connected"], what=manager.errors)
    assert ask(cli, "emt")["pid"] == pid


def test_logs_shows_what_a_worker_printed(cli: Cli) -> None:
    up(cli, STEADY)
    ask(cli, "emt")
    shown = cli.run("logs", "emt")
    assert shown.code == 0
    assert "registered with the broker" in shown.output
    assert cli.run("logs", "nothing").code == 2


def test_environments_are_checked_and_built_ahead(cli: Cli) -> None:
    write(cli, STEADY + '[calculators.away]\nvenv = "no-such-folder"\n')
    checked = cli.run("env", "check")
    assert checked.code == 1
    ready = {line.split()[0]: line.split()[1] for line in checked.output.splitlines()[1:]}
    assert ready == {"away": "no", "emt": "yes"}
    assert cli.run("env", "build", "emt").code == 0
    assert cli.run("env", "build", "nothing").code == 2


def test_nothing_to_start_is_one_clear_line(cli: Cli) -> None:
    done = cli.run("manager")
    assert done.code == 2
    assert "nothing to start" in done.errors
    assert "Traceback" not in done.errors


def test_without_a_manager_the_error_says_how_to_start_one(cli: Cli) -> None:
    cli.broker()
    with pytest.raises(NoWorkersError, match="aserpc manager"):
        ask(cli, "emt")


def test_a_start_that_takes_too_long_is_told_though_its_worker_loads(cli: Cli) -> None:
    (cli.cwd / "slow.py").write_text("import time\ndef make():\n    time.sleep(60)\n")
    up(cli, '[calculators.slow]\nfactory = "slow:make"\nstart_timeout = 2.0\nstop_timeout = 1.0\n')
    with pytest.raises(WorkerFailedError, match="start_timeout"):
        ask(cli, "slow")


def test_more_gpus_than_there_are_is_a_mistake(cli: Cli) -> None:
    write(cli, STEADY + "    gpus = 3\n")
    done = cli.run("up", "--gpus", "0,1")
    assert done.code == 2
    assert "needs 3 GPUs, and there are 2" in done.errors
