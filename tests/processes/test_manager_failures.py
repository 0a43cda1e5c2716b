"""Starts that fail, with the real command: everybody who waits is told at once, in words."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from aserpc import CalculationError, PoisonError, WorkerFailedError
from aserpc.manager.loop import KEPT_FOLDERS
from support.managed import PUPPET, ask, counted, manager, table, up
from support.processes import Cli
from support.waiting import wait_for

#: More than Python and ASE have taken when the puppet is made.
SOME_GIGABYTES = 4_000_000_000

#: What fails: orders and keys of the table, and what is told.
FAILURES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "command": (
        {},
        {"command": ["sh", "-c", "echo no licence >&2; exit 7"]},
        r"exit code 7\. Its last lines:\nno licence",
    ),
    "executable": ({}, {"command": ["no-such-program"]}, "no-such-program$"),
    "permission": ({}, {"command": ["/etc/passwd"]}, "denied: /etc/passwd$"),
    "folder": ({}, {"cwd": "/no/such/folder"}, "/no/such/folder is no folder$"),
    "module": ({}, {"factory": "no_such_module:Calculator"}, "no_such_module"),
    "factory": ({}, {"factory": "ase.calculators.emt:EMTT"}, "EMTT"),
    "arguments": ({}, {"factory": "ase.atoms:Atoms", "args": [1, 2, 3]}, "exit code"),
    "killed": ({"say": "allocating", "signal": 9}, {}, "SIGKILL.*perhaps out of memory"),
    "crashed": ({"signal": 11}, {}, "SIGSEGV"),
    "memory": ({"memory": SOME_GIGABYTES}, {}, "MemoryError"),
    "exit": ({"say": "no weights here", "exit": 5}, {}, "exit code 5(?s:.)*no weights here"),
    "name": (
        {},
        {"command": ["aserpc", "worker", PUPPET, "--name", "another"]},
        "'name' and registers as 'another'",
    ),
    "silence": (
        {"deaf": True, "until": "never"},
        {"start_timeout": 1.5, "stop_timeout": 0.3},
        "not ready within 1.5 s",
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A manager of calculators that all fail, each in its way."""
    cwd, logs = tmp_path_factory.mktemp("cwd"), tmp_path_factory.mktemp("logs")
    with tempfile.TemporaryDirectory(prefix="a-") as sockets:
        cli = Cli(Path(sockets), cwd, logs)
        tables = [
            table(name, orders, **{"max_restarts": 0, **keys})
            for name, (orders, keys, _) in FAILURES.items()
        ]
        try:
            up(cli, *tables)
            yield cli
        finally:
            cli.close()


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_start_is_told_to_everybody_who_waits(site: Cli, name: str) -> None:
    told = FAILURES[name][2]
    with ThreadPoolExecutor(5) as executor:
        waiting = [executor.submit(ask, site, name) for _ in range(5)]
        errors = [future.exception() for future in waiting]
    for error in errors:
        assert isinstance(error, WorkerFailedError), error
        assert "Traceback" not in str(error)
    assert re.search(told, str(errors[0])), errors[0]
    fatal = wait_for(lambda: site.status()["spawning"][name]["fatal"])
    assert re.search(told, fatal), fatal


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


def test_only_folders_of_workers_that_failed_under_it_are_removed(cli: Cli) -> None:
    theirs = cli.sockets / "work" / "lj-4242"  # as of a worker that somebody started by hand
    theirs.mkdir(parents=True)
    command = ["sh", "-c", 'mkdir "$ASERPC_WORKDIR"; exit 1']
    number = KEPT_FOLDERS + 2
    process = up(cli, table("lj", command=command, min_workers=number, max_workers=number))
    wait_for(lambda: counted(process, "could not be started")() >= number, what=process.errors)
    left = set(theirs.parent.iterdir())
    assert theirs in left
    assert len(left) == 1 + KEPT_FOLDERS


# ---- what the last manager left ------------------------------------------------------------------


def test_a_manager_starts_beside_notes_that_are_none(cli: Cli) -> None:
    cli.broker()
    strange = cli.sockets / "spawned-99999999.json"
    strange.write_text('{"processes": [')
    process = manager(cli, table("lj"))
    assert ask(cli, "lj")["pid"]
    assert str(strange) in process.errors()
    assert "Traceback" not in process.errors()
