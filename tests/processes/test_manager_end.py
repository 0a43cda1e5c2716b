"""How a manager with the real command ends, in order or not, and what becomes of its workers."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aserpc import BrokerStoppedError, QueueTimeoutError
from support.managed import PUPPET, ask, counted, gone, manager, noted, table, up
from support.processes import Cli
from support.waiting import InThread, wait_for


def test_what_runs_at_the_end_goes_to_another_worker(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    kwargs = {"folder": str(tmp_path)}
    process = manager(cli, table("lj", kwargs, stop_timeout=0.5))
    mine = ask(cli, "lj")["pid"]
    call = InThread(lambda: ask(cli, "lj", {"note": "began", "until": "go"}))
    wait_for(lambda: noted(tmp_path, "began") == [mine])
    theirs = cli.start("worker", PUPPET, "--name", "lj", "--kwargs", json.dumps(kwargs))
    wait_for(lambda: theirs.pid in cli.ready(), what=theirs.errors)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert gone(mine)
    wait_for(lambda: theirs.pid in noted(tmp_path, "began"))
    (tmp_path / "go").touch()
    told = call.result()
    assert told is not None
    assert told["pid"] == theirs.pid


def test_what_runs_at_the_end_and_has_no_other_worker_is_told(cli: Cli, tmp_path: Path) -> None:
    cli.broker(ASERPC_REQUEST_QUEUE_TIMEOUT="1")
    process = manager(cli, table("lj", {"folder": str(tmp_path)}, stop_timeout=0.5))
    call = InThread(lambda: ask(cli, "lj", {"note": "began", "until": "go"}))
    (pid,) = wait_for(lambda: noted(tmp_path, "began"))
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert gone(pid)
    with pytest.raises(QueueTimeoutError, match="its manager is gone"):
        call.result()


def test_what_runs_at_the_end_of_up_is_told(cli: Cli, tmp_path: Path) -> None:
    process = up(cli, table("lj", {"folder": str(tmp_path)}, stop_timeout=0.5))
    call = InThread(lambda: ask(cli, "lj", {"note": "began", "until": "go"}))
    (pid,) = wait_for(lambda: noted(tmp_path, "began"))
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert gone(pid)
    with pytest.raises(BrokerStoppedError):
        call.result()


def test_what_runs_at_the_end_may_finish_in_time(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    process = manager(cli, table("lj", {"folder": str(tmp_path)}, stop_timeout=20.0))
    call = InThread(lambda: ask(cli, "lj", {"note": "began", "until": "go"}))
    (pid,) = wait_for(lambda: noted(tmp_path, "began"))
    process.signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    told = call.result()
    assert told is not None
    assert told["pid"] == pid
    assert process.wait() == 0
    assert gone(pid)


def test_what_runs_in_a_shell_may_finish_too(cli: Cli, tmp_path: Path) -> None:
    """SIGTERM ends the shell at once."""
    cli.broker(ASERPC_REQUEST_QUEUE_TIMEOUT="1")
    worker = f"aserpc worker {PUPPET} --name lj --kwargs '{json.dumps({'folder': str(tmp_path)})}'"
    command = ["sh", "-c", f"{worker}; true"]
    process = manager(cli, table("lj", command=command, stop_timeout=20.0))
    call = InThread(lambda: ask(cli, "lj", {"note": "began", "sleep": 1.0}))
    (pid,) = wait_for(lambda: noted(tmp_path, "began"))
    process.signal(signal.SIGTERM)
    told = call.result()
    assert told is not None
    assert told["pid"] == pid
    assert process.wait() == 0
    assert gone(pid)


def test_nothing_that_ignores_sigterm_is_left(cli: Cli) -> None:
    cli.broker()
    process = manager(cli, table("lj", {"deaf": True, "child": "stubborn"}, stop_timeout=0.5))
    told = ask(cli, "lj", {"deaf": True})
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert gone(told["pid"])
    wait_for(lambda: gone(told["child"]))


def test_what_loads_at_the_end_is_not_waited_for(cli: Cli, tmp_path: Path) -> None:
    cli.broker(ASERPC_REQUEST_QUEUE_TIMEOUT="1")
    orders = {"folder": str(tmp_path), "note": "loading", "until": "never"}
    process = manager(cli, table("lj", orders, stop_timeout=60.0))
    call = InThread(lambda: ask(cli, "lj"))
    (pid,) = wait_for(lambda: noted(tmp_path, "loading"))
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert gone(pid)
    with pytest.raises(QueueTimeoutError):
        call.result()


# ---- kill -9 -------------------------------------------------------------------------------------


def test_without_its_manager_a_worker_serves_until_it_is_idle(cli: Cli) -> None:
    cli.broker()
    process = manager(cli, table("lj", idle_timeout=1.0))
    pid = ask(cli, "lj")["pid"]
    process.signal(signal.SIGKILL)
    process.wait()
    assert ask(cli, "lj")["pid"] == pid
    wait_for(lambda: gone(pid))


def test_the_next_manager_counts_a_busy_worker_and_lets_an_idle_one_go(
    cli: Cli, tmp_path: Path
) -> None:
    cli.broker()
    first = manager(cli, table("lj", {"folder": str(tmp_path)}, idle_timeout=1.0))
    call = InThread(lambda: ask(cli, "lj", {"note": "began", "until": "go"}))
    (pid,) = wait_for(lambda: noted(tmp_path, "began"))
    first.signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: not cli.status()["manager"]["connected"])
    second = manager(cli)
    with ThreadPoolExecutor(3) as executor:
        waiting = [executor.submit(ask, cli, "lj") for _ in range(3)]
        wait_for(lambda: cli.status()["pending_requests"].get("lj") == 3)
        (tmp_path / "go").touch()
        assert {future.result()["pid"] for future in waiting} == {pid}
    told = call.result()
    assert told is not None
    assert told["pid"] == pid
    assert counted(second, "starting a worker")() == 0
    wait_for(lambda: gone(pid), what=second.errors)
    wait_for(lambda: not (cli.sockets / f"spawned-{second.pid}.json").exists())


def test_the_next_manager_ends_what_it_took_over(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    orders = {"folder": str(tmp_path), "deaf": True, "child": "stubborn"}
    first = manager(cli, table("lj", orders, stop_timeout=0.5))
    told = ask(cli, "lj", {"deaf": True})
    first.signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: not cli.status()["manager"]["connected"])
    second = manager(cli)
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    assert gone(told["pid"])
    wait_for(lambda: gone(told["child"]))
