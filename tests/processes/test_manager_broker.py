"""A manager with the real command, its workers, and brokers that die or load other files."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.managed import ask, counted, gone, manager, noted, table, up, write
from support.processes import Cli
from support.waiting import InThread, wait_for


def test_a_new_broker_has_idle_and_busy_workers_again_and_none_is_started_twice(
    cli: Cli, tmp_path: Path
) -> None:
    kwargs = {"folder": str(tmp_path)}
    first = cli.broker()
    process = manager(cli, *(table(name, kwargs) for name in ("idle", "busy", "held")))
    idle = ask(cli, "idle")["pid"]
    calls = [
        InThread(lambda: ask(cli, "busy", {"note": "busy", "until": "go"})),
        # It can say nothing to anybody, nor read what it is told.
        InThread(lambda: ask(cli, "held", {"note": "held", "hold": 3.0})),
    ]
    (busy,) = wait_for(lambda: noted(tmp_path, "busy"))
    (held,) = wait_for(lambda: noted(tmp_path, "held"))
    first.signal(signal.SIGKILL)
    first.wait()
    cli.broker()
    calls.append(InThread(lambda: ask(cli, "held")))
    wait_for(lambda: cli.status()["manager"]["spawnable"], what=process.errors)
    assert ask(cli, "idle")["pid"] == idle
    (tmp_path / "go").touch()
    told = [call.result() for call in calls]
    assert [entry and entry["pid"] for entry in told] == [busy, held, held]
    wait_for(lambda: cli.ready() == {idle, busy, held}, what=process.errors)
    assert counted(process, "starting a worker")() == 3
    # The new broker knows whose they are: it lets the manager count them.
    assert {name: told["processes"] for name, told in cli.status()["spawning"].items()} == {
        "idle": 1,
        "busy": 1,
        "held": 1,
    }


def test_a_start_goes_on_while_the_broker_is_away(cli: Cli, tmp_path: Path) -> None:
    first = cli.broker()
    orders = {"folder": str(tmp_path), "note": "loading", "until": "go"}
    process = manager(cli, table("lj", orders))
    call = InThread(lambda: ask(cli, "lj"))
    (pid,) = wait_for(lambda: noted(tmp_path, "loading"))
    first.signal(signal.SIGKILL)
    first.wait()
    cli.broker()
    wait_for(lambda: cli.status()["pending_requests"].get("lj"), what=process.errors)
    (tmp_path / "go").touch()
    told = call.result()
    assert told is not None
    assert told["pid"] == pid
    assert counted(process, "starting a worker")() == 1


# ---- configurations that are loaded again --------------------------------------------------------


@pytest.mark.parametrize("how", ["aserpc reload", "SIGHUP"])
def test_a_lower_maximum_ends_idle_workers_and_no_calculation(
    cli: Cli, tmp_path: Path, how: str
) -> None:
    kwargs = {"folder": str(tmp_path)}
    process = up(cli, table("lj", kwargs, max_workers=3, min_workers=3, stop_timeout=0.5))
    wait_for(lambda: len(cli.ready()) == 3, what=process.errors)
    before = cli.ready()
    call = InThread(lambda: ask(cli, "lj", {"note": "began", "until": "go"}))
    (busy,) = wait_for(lambda: noted(tmp_path, "began"))
    write(cli, table("lj", kwargs, max_workers=1, stop_timeout=0.5))
    if how == "SIGHUP":
        process.signal(signal.SIGHUP)
    else:
        assert cli.run("reload").code == 0
    wait_for(lambda: all(gone(pid) for pid in before - {busy}), what=process.errors)
    (tmp_path / "go").touch()
    told = call.result()
    assert told is not None
    assert told["pid"] == busy
    assert ask(cli, "lj")["pid"] == busy
