"""Starts that fail, with the real command: everybody who waits is told at once, in words."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aserpc import CalculationError, PoisonError, WorkerFailedError
from support.managed import PUPPET, ask, manager, table, up
from support.processes import Cli
from support.waiting import wait_for

#: More than Python and ASE have taken when the puppet is made.
SOME_GIGABYTES = 4_000_000_000

FAILURES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "its command fails": (
        {},
        {"command": ["sh", "-c", "echo no licence >&2; exit 7"]},
        r"exit code 7\. Its last lines:\nno licence",
    ),
    "it has no executable": ({}, {"command": ["no-such-program"]}, "no-such-program$"),
    "it may not be executed": ({}, {"command": ["/etc/passwd"]}, "denied: /etc/passwd$"),
    "its folder is missing": ({}, {"cwd": "/no/such/folder"}, "/no/such/folder is no folder$"),
    "its module is missing": ({}, {"factory": "no_such_module:Calculator"}, "no_such_module"),
    "its factory is missing": ({}, {"factory": "ase.calculators.emt:EMTT"}, "EMTT"),
    "its arguments are wrong": ({}, {"factory": "ase.atoms:Atoms", "args": [1, 2, 3]}, "exit code"),
    "it is killed": ({"say": "allocating", "signal": 9}, {}, "SIGKILL.*perhaps out of memory"),
    "it crashes": ({"signal": 11}, {}, "SIGSEGV"),
    "it may have no more memory": ({"memory": SOME_GIGABYTES}, {}, "MemoryError"),
    "it exits": ({"say": "no weights here", "exit": 5}, {}, "exit code 5(?s:.)*no weights here"),
    "it has another name": (
        {},
        {"command": ["aserpc", "worker", PUPPET, "--name", "another"]},
        "'lj' and registers as 'another'",
    ),
    "it never registers": (
        {"deaf": True, "until": "never"},
        {"start_timeout": 1.5, "stop_timeout": 0.3},
        "not ready within 1.5 s",
    ),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_failed_start_is_told_to_everybody_who_waits(
    cli: Cli, failure: tuple[dict[str, Any], dict[str, Any], str]
) -> None:
    orders, keys, told = failure
    process = up(cli, table("lj", orders, max_restarts=0, **keys))
    with ThreadPoolExecutor(5) as executor:
        waiting = [executor.submit(ask, cli, "lj") for _ in range(5)]
        errors = [future.exception() for future in waiting]
    for error in errors:
        assert isinstance(error, WorkerFailedError), error
        assert "Traceback" not in str(error)
    assert re.search(told, str(errors[0])), errors[0]
    fatal = wait_for(lambda: cli.status()["spawning"]["lj"]["fatal"])
    assert fatal.splitlines()[0] in cli.run("status").output
    assert "Traceback" not in process.errors()


# ---- in mid-calculation --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orders", "told"),
    [
        ({"signal": 9}, "SIGKILL.*perhaps out of memory"),
        ({"say": "no disk space", "exit": 5}, "exit code 5(?s:.)*no disk space"),
    ],
)
def test_a_worker_that_dies_of_a_request_is_no_failed_start(
    cli: Cli, orders: dict[str, Any], told: str
) -> None:
    """Though it dies as soon as it is ready; the client is told how, others are served."""
    process = up(cli, table("lj", max_restarts=0))
    with pytest.raises(PoisonError, match=told):
        ask(cli, "lj", orders)
    assert ask(cli, "lj")["pid"]
    assert "could not be started" not in process.errors()


def test_a_calculation_without_memory_leaves_its_worker(cli: Cli) -> None:
    up(cli, table("lj"))
    pid = ask(cli, "lj")["pid"]
    with pytest.raises(CalculationError) as caught:
        ask(cli, "lj", {"memory": SOME_GIGABYTES})
    assert isinstance(caught.value, MemoryError)
    assert ask(cli, "lj")["pid"] == pid


# ---- what the last manager left ------------------------------------------------------------------


def test_a_manager_starts_beside_notes_that_are_none(cli: Cli) -> None:
    cli.broker()
    strange = cli.sockets / "spawned-99999999.json"
    strange.write_text('{"processes": [')
    process = manager(cli, table("lj"))
    assert ask(cli, "lj")["pid"]
    assert str(strange) in process.errors()
    assert "Traceback" not in process.errors()
