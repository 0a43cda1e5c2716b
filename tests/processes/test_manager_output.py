"""What workers of a manager print, with the real command: much of it, and how starts get on."""

from __future__ import annotations

import contextlib
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ase import Atoms
from ase.io import write

from aserpc import WorkerFailedError
from aserpc.logs import MAX_SIZE
from support.managed import ask, table, up
from support.processes import Cli
from support.waiting import InThread, wait_for

#: What is printed to each of the outputs; together they are twice as much.
MEGABYTES = 100


def sizes(cli: Cli) -> list[int]:
    """Return the sizes of the logs."""
    return [path.stat().st_size for path in (cli.sockets / "logs").iterdir()]


class Terminal:
    """A command whose errors go to a terminal of its own."""

    def __init__(self, cli: Cli, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self._text = ""
        env = {**cli.env, "TERM": "xterm", "COLUMNS": "200"}
        command = [sys.executable, "-m", "aserpc", *arguments]
        self._popen = subprocess.Popen(
            command, cwd=cli.cwd, env=env, stdout=subprocess.DEVNULL, stderr=slave
        )
        os.close(slave)

    def wait_for(self, pattern: str) -> None:
        """Wait until it shows something."""
        wait_for(lambda: re.search(pattern, self._shown()), what=self._shown)

    def _shown(self) -> str:
        with contextlib.suppress(OSError):  # nothing new, or it has ended
            self._text += os.read(self._master, 1 << 20).decode()
        return self._text

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        wait_for(lambda: self._shown() and self._popen.poll() is not None, what=self._shown)
        return self._popen.wait()

    def close(self) -> None:
        """End it."""
        self._popen.kill()
        self._popen.wait()
        os.close(self._master)


def are_bounded(cli: Cli) -> bool:
    """Whether the logs were cut, what was before the cut included."""
    return len(sizes(cli)) > 1 and max(sizes(cli)) <= MAX_SIZE


def test_much_output_of_a_start_blocks_nothing(cli: Cli) -> None:
    """A start may take longer than it takes to print."""
    process = up(cli, table("lj", {"megabytes": MEGABYTES, "say": "loading"}), table("other"))
    call = InThread(lambda: ask(cli, "lj"))
    wait_for(lambda: cli.status()["spawning"]["lj"]["processes"], what=process.errors)
    assert ask(cli, "other")["pid"]  # the manager starts others meanwhile
    told = call.result()
    assert told is not None
    wait_for(lambda: are_bounded(cli), what=lambda: sizes(cli))
    ask(cli, "lj", {"say": "the newest line"})
    assert cli.run("logs", "lj").output.splitlines()[-1] == "the newest line"


def test_much_output_of_a_calculation_blocks_nothing(cli: Cli) -> None:
    up(cli, table("lj", max_workers=1), table("other"))
    pid = ask(cli, "lj", {"say": "an old line"})["pid"]
    orders = {"megabytes": MEGABYTES, "say": "the newest line"}
    call = InThread(lambda: ask(cli, "lj", orders))
    assert ask(cli, "other")["pid"]
    told = call.result()
    assert told is not None
    assert told["pid"] == pid
    wait_for(lambda: are_bounded(cli), what=lambda: sizes(cli))
    shown = cli.run("logs", "lj").output
    assert shown.splitlines()[-1] == "the newest line"
    assert "an old line" not in shown


def test_a_worker_that_prints_much_and_dies_leaves_a_short_log(cli: Cli) -> None:
    """Its last words are told, though they were cut off from what came before."""
    orders = {"megabytes": MEGABYTES, "say": "my last words", "exit": 3}
    up(cli, table("lj", orders))
    with pytest.raises(WorkerFailedError, match="my last words"):
        ask(cli, "lj")
    wait_for(lambda: are_bounded(cli), what=lambda: sizes(cli))


# ---- how a start gets on -------------------------------------------------------------------------


def starting(cli: Cli) -> bool:
    return "loading weights" in cli.status()["spawning"]["lj"]["text"]


def test_a_client_is_told_how_a_start_gets_on(
    cli: Cli, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    orders = {"folder": str(tmp_path), "say": "[1/2] loading weights", "until": "go"}
    process = up(cli, table("lj", orders))
    calls = [InThread(lambda: ask(cli, "lj"))]
    wait_for(lambda: starting(cli), what=process.errors)
    with caplog.at_level(logging.INFO, logger="aserpc"):
        calls.append(InThread(lambda: ask(cli, "lj")))
        told = r"^lj: starting, \d+ s; last line: \[1/2\] loading weights$"
        wait_for(lambda: any(re.search(told, line) for line in caplog.messages))
    (tmp_path / "go").touch()
    assert all(call.result() for call in calls)


def test_aserpc_run_shows_how_a_start_gets_on(cli: Cli, tmp_path: Path) -> None:
    orders = {"folder": str(tmp_path), "say": "[1/2] loading weights", "until": "go"}
    up(cli, table("lj", orders))
    write(cli.cwd / "some.xyz", [Atoms("H", [(x, 0, 0)]) for x in (1.0, 2.0)])
    terminal = Terminal(cli, "run", "lj", "some.xyz", "--broker", cli.frontend)
    try:
        terminal.wait_for(r"lj: starting, \d+ s; last line: \[1/2\] loading weights")
        (tmp_path / "go").touch()
        terminal.wait_for("evaluating|ok")
        assert terminal.wait() == 0
    finally:
        terminal.close()
