"""Processes that end with the benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.interrupts import held

ROOT = Path(__file__).parents[1]

#: How long a process may take to answer, s.
PATIENCE = 300.0

#: Every process computes in one thread, so that contenders differ in what they do, not in how many
#: processors they take.
THREADS = {
    f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")
}


class BenchmarkError(Exception):
    """Something could not be measured; the message says why."""


def environment(folder: Path) -> dict[str, str]:
    """Return the environment variables of all processes that are measured."""
    # Installed packages are compiled; a checkout is, too, by the first who may write that.
    mine = "PYTHONDONTWRITEBYTECODE"
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ASERPC_") and name != mine
    }
    return {**kept, **THREADS, "PYTHONPATH": str(ROOT), "ASERPC_IPC_DIR": str(folder)}


def whole_run(
    command: Sequence[str], env: dict[str, str], *, errors: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; if this is interrupted, no process of it is left."""
    process: subprocess.Popen[str] | None = None
    try:
        with held():
            process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        said, complained = process.communicate()
    except BaseException:
        if process is not None:
            _kill_all_of(process)
        raise
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def _kill_all_of(process: subprocess.Popen[Any]) -> None:
    """End a process that began a session, and all that it has started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Bench:
    """A folder for sockets and logs, and the processes that are to end.

    Parameters
    ----------
    rounds
        How often each contender is measured.
    quick
        Whether fewer and smaller measurements do.
    without
        Contenders to leave out.
    """

    def __init__(self, rounds: int, *, quick: bool, without: Sequence[str] = ()) -> None:
        self.rounds, self.quick, self.without = rounds, quick, frozenset(without)
        self._stack = contextlib.ExitStack()
        # Short, for unix sockets' paths have at most 107 bytes.
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="aserpc-bench-"))
        self.folder = Path(folder)
        self._count = 0
        self._drivers: list[Process] = []

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        with held():
            if kind is not None:  # nobody waits for what the clients are at
                for driver in self._drivers:
                    driver.kill()
            self._stack.close()

    def subfolder(self) -> Path:
        """Make a private folder."""
        self._count += 1
        folder = self.folder / str(self._count)
        folder.mkdir(mode=0o700)
        return folder

    def start(
        self, name: str, command: Sequence[str], folder: Path | None = None, **options: Any
    ) -> Process:
        """Start a process."""
        self._count += 1
        log = self.folder / f"{self._count}-{name}.log"
        with held():
            process = Process(name, command, folder or self.folder, log, **options)
            self._stack.callback(process.end)
        return process

    def driver(
        self, name: str, command: Sequence[str], env: dict[str, str] | None = None
    ) -> Driver:
        """Start a client's process."""
        process = self.start(name, command, pipe=True, env=env)
        self._drivers.append(process)
        return Driver(process)


class Process:
    """A process with its output in a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        log: Path,
        *,
        pipe: bool = False,
        env: dict[str, str] | None = None,
    ) -> None:
        self.name, self._log = name, log
        with log.open("wb") as errors:
            self.popen = subprocess.Popen(
                command,
                cwd=folder,
                env={**environment(folder), **(env or {})},
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else errors,
                stderr=errors,
                start_new_session=True,  # Ctrl-C in a terminal is for the benchmark alone
            )
        self.pid = self.popen.pid

    def errors(self) -> str:
        """Return the last lines of what it said."""
        return "\n".join(self._log.read_text(errors="replace").strip().splitlines()[-8:])

    def kill(self) -> None:
        """End it at once."""
        self.popen.kill()
        self.popen.wait()

    def end(self) -> None:
        """End it: by its input's end, by a signal, or by force."""
        if self.popen.stdin is not None:
            with contextlib.suppress(OSError):
                self.popen.stdin.close()
        else:
            self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(5)
        _kill_all_of(self.popen)
        if self.popen.stdout is not None:
            self.popen.stdout.close()


class Driver:
    """A client's process, which does what it is told; see `benchmarks.driver`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.pid

    def tell(self, task: str, **arguments: Any) -> None:
        """Have it begin a task."""
        assert self._process.popen.stdin is not None
        line = json.dumps({"task": task, **arguments}) + "\n"
        with contextlib.suppress(BrokenPipeError):  # `answer` says why
            self._process.popen.stdin.write(line.encode())
            self._process.popen.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for what comes of the task."""
        output = self._process.popen.stdout
        assert output is not None
        if not select.select([output], [], [], PATIENCE)[0]:
            raise BenchmarkError(f"{self._process.name} does not answer")
        line = output.readline()
        if not line:
            raise BenchmarkError(f"{self._process.name} ended:\n{self._process.errors()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Have a task done."""
        self.tell(task, **arguments)
        return self.answer()


def together(drivers: Sequence[Driver], task: str, **arguments: Any) -> list[dict[str, Any]]:
    """Have several clients do a task from one instant on, when all have been started."""
    for driver in drivers:
        driver.tell("nothing")
    for driver in drivers:
        driver.answer()
    start_at = time.monotonic() + 0.5
    for driver in drivers:
        driver.tell(task, start_at=start_at, **arguments)
    return [driver.answer() for driver in drivers]
