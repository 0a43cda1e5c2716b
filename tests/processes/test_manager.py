"""The manager with the real command: workers that come when they are asked for, and go."""

from __future__ import annotations

import signal
import stat
import textwrap
from pathlib import Path

import pytest
from ase.build import bulk

from aserpc import NoWorkersError, WorkerFailedError
from support.managed import ask, gone, manager, table, up, write
from support.processes import Cli
from support.waiting import wait_for


def test_a_cold_request_starts_a_worker_which_leaves_when_idle(cli: Cli) -> None:
    process = up(cli, table("lj", idle_timeout=1.0))
    pid = ask(cli, "lj")["pid"]
    assert ask(cli, "lj")["pid"] == pid
    wait_for(lambda: gone(pid), what=process.errors)
    assert ask(cli, "lj")["pid"] != pid


def test_a_worker_computes_in_a_folder_of_its_own_which_is_removed(cli: Cli) -> None:
    process = up(cli, table("lj", idle_timeout=1.0))
    folder = Path(ask(cli, "lj")["cwd"])
    assert folder.parent == cli.sockets / "work"
    wait_for(lambda: not folder.exists(), what=process.errors)


def test_too_many_failures_are_final_until_the_file_is_mended_and_loaded_again(cli: Cli) -> None:
    up(cli, table("lj", factory="ase.calculators.lj:LennardJonse", max_restarts=0))
    with pytest.raises(WorkerFailedError, match="LennardJonse"):
        ask(cli, "lj")
    wait_for(lambda: cli.status()["spawning"]["lj"]["fatal"])
    with pytest.raises(WorkerFailedError, match="any more"):
        ask(cli, "lj")
    assert "LennardJonse" in cli.run("status").output
    write(cli, table("lj"))
    assert cli.run("reload").code == 0
    wait_for(lambda: not cli.status()["spawning"]["lj"]["fatal"])
    assert ask(cli, "lj")["pid"]


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
    manager(cli, arguments=("--registry", "registry.py:get_spawn_configs"))
    atoms = bulk("Cu")
    atoms.calc = cli.calculator("lj")
    assert atoms.get_potential_energy() != 0


def test_a_gpu_goes_from_an_idle_calculator_to_one_that_is_asked_for(cli: Cli) -> None:
    tables = [table(name, gpus=1) for name in ("a", "b")]
    process = up(cli, *tables, arguments=("--gpus", "0"))
    first = ask(cli, "a")
    assert ask(cli, "b")["env"]["CUDA_VISIBLE_DEVICES"] == "0"
    wait_for(lambda: gone(first["pid"]), what=process.errors)


def test_min_workers_stay_though_they_are_idle(cli: Cli) -> None:
    process = up(cli, table("lj", idle_timeout=1.0, min_workers=1))
    wait_for(cli.ready, what=process.errors)
    (pid,) = cli.ready()
    logs = cli.sockets / "logs"
    wait_for(lambda: any("idle for" in log.read_text() for log in logs.glob("*.log")))
    assert ask(cli, "lj")["pid"] == pid


def test_the_end_of_up_ends_workers_broker_and_leaves_no_socket(cli: Cli) -> None:
    process = up(cli, table("lj"))
    pid = ask(cli, "lj")["pid"]
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    assert gone(pid)
    assert not list(cli.sockets.glob("*.ipc"))


def test_a_name_is_offered_by_one_manager_and_the_other_says_so(cli: Cli) -> None:
    cli.broker()
    manager(cli, table("lj"))
    second = cli.start("manager")
    wait_for(lambda: "offered already" in second.errors(), what=second.errors)
    assert ask(cli, "lj")["pid"]


def test_logs_shows_what_a_worker_printed(cli: Cli) -> None:
    up(cli, table("lj"))
    ask(cli, "lj")
    shown = cli.run("logs", "lj")
    assert shown.code == 0
    assert "registered with the broker" in shown.output
    assert cli.run("logs", "nothing").code == 2


def test_environments_are_checked_and_built_ahead(cli: Cli) -> None:
    write(cli, table("lj"), '[calculators.away]\nvenv = "no-such-folder"\n')
    checked = cli.run("env", "check")
    assert checked.code == 1
    ready = {line.split()[0]: line.split()[1] for line in checked.output.splitlines()[1:]}
    assert ready == {"away": "no", "lj": "yes"}
    assert cli.run("env", "build", "lj").code == 0
    assert cli.run("env", "build", "nothing").code == 2


def test_a_manager_before_its_broker_makes_a_private_folder(cli: Cli) -> None:
    folder = cli.sockets / "new"
    cli.env["ASERPC_IPC_DIR"] = str(folder)
    cli.prefix = ["sh", "-c", 'umask 002; exec "$@"', "sh"]
    write(cli, table("lj", command=["true"], min_workers=1))
    process = cli.start("manager")
    wait_for(lambda: list(folder.glob("logs/*")), what=process.errors)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rename(cli.sockets / "removed")
    process.signal(signal.SIGHUP)
    wait_for(lambda: list(folder.glob("logs/*")), what=process.errors)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    cli.broker()


def test_a_folder_that_others_can_write_to_is_one_clear_line(cli: Cli) -> None:
    cli.sockets.chmod(0o770)
    write(cli, table("lj"))
    done = cli.run("manager")
    assert done.code == 2
    (line,) = done.errors.splitlines()
    assert "others can write" in line


def test_nothing_to_start_is_one_clear_line(cli: Cli) -> None:
    done = cli.run("manager")
    assert done.code == 2
    assert "nothing to start" in done.errors
    assert "Traceback" not in done.errors


def test_without_a_manager_the_error_says_how_to_start_one(cli: Cli) -> None:
    cli.broker()
    with pytest.raises(NoWorkersError, match="aserpc manager"):
        ask(cli, "lj")


def test_more_gpus_than_there_are_is_a_mistake(cli: Cli) -> None:
    write(cli, table("lj", gpus=3))
    done = cli.run("up", "--gpus", "0,1")
    assert done.code == 2
    assert "needs 3 GPUs, and there are 2" in done.errors
