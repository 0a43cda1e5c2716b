"""The real ``aserpc`` command in processes of its own, which end with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aserpc import RemoteCalculator, broker_status, calculators
from support import calculators as ours
from support.waiting import SOON, wait_for

assert calculators  # installed, not only importable from here

#: Write ``f"{CALCULATORS}:Gate"`` to have a worker serve it.
CALCULATORS = Path(ours.__file__)

#: For the PYTHONPATH of processes that import from here.
TESTS = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    output: str
    errors: str


class Process:
    """A command that runs, with its outputs in files."""

    def __init__(
        self, name: str, command: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path
    ) -> None:
        self.name, self.command = name, command
        self._output, self._errors = log.with_suffix(".out"), log.with_suffix(".err")
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._popen = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def output(self) -> str:
        """Return what it has printed."""
        return self._output.read_text(errors="replace")

    def errors(self) -> str:
        """Return what it has printed to standard error: its log."""
        return self._errors.read_text(errors="replace")

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def wait(self, timeout: float = SOON) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} goes on; it says:\n{self.errors()}") from None

    def kill(self) -> None:
        """Kill it and all that it has started, stopped or not."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def __repr__(self) -> str:
        return " ".join(self.command)


class Cli:
    """Runs commands, all with their sockets in one folder.

    Parameters
    ----------
    sockets
        The folder of the sockets.
    cwd
        Where the commands run.
    logs
        Folder for their outputs.
    prefix
        Words before each command, which run it elsewhere.
    """

    def __init__(self, sockets: Path, cwd: Path, logs: Path, prefix: Sequence[str] = ()) -> None:
        self.sockets, self.cwd, self.logs, self.prefix = sockets, cwd, logs, prefix
        self.frontend = f"ipc://{sockets}/frontend.ipc"
        self.backend = f"ipc://{sockets}/backend.ipc"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("ASERPC_")}
        self.env.update(
            ASERPC_IPC_DIR=str(sockets),
            ASERPC_KEYS_DIR=str(sockets / "keys"),
            ASERPC_WORKER_TIMEOUT="5",
            ASERPC_HEARTBEAT_INTERVAL="0.5",
        )
        self._processes: list[Process] = []

    def start(self, *arguments: str, **env: str) -> Process:
        """Start a command; `env` is added to its environment."""
        return self._start(("-m", "aserpc", *arguments), env, arguments[0])

    def python(self, source: str, *arguments: str, **env: str) -> Process:
        """Start a script; `env` is added to its environment."""
        return self._start(("-c", source, *arguments), env, "script")

    def _start(self, arguments: Sequence[str], env: Mapping[str, str], name: str) -> Process:
        log = self.logs / f"{len(self._processes)}-{name}"
        command = [*self.prefix, sys.executable, *arguments]
        process = Process(name, command, self.cwd, {**self.env, **env}, log)
        self._processes.append(process)
        return process

    def run(self, *arguments: str, **env: str) -> Done:
        """Run a command to its end."""
        process = self.start(*arguments, **env)
        return Done(process.wait(), process.output(), process.errors())

    def broker(self, *arguments: str, **env: str) -> Process:
        """Start a broker and wait until it serves."""
        process = self.start("broker", *arguments, **env)
        wait_for(
            lambda: "serving clients" in process.errors() or not process.runs(),
            what=process.errors,
        )
        assert process.runs(), process.errors()
        return process

    def worker(self, calculator: str, *arguments: str, name: str = "", **env: str) -> Process:
        """Start a worker of one of our calculators and wait until it is ready."""
        name = name or calculator.lower()
        process = self.loading_worker(calculator, *arguments, name=name, **env)
        wait_for(
            lambda: process.pid in self.ready() or not process.runs(),
            what=process.errors,
        )
        assert process.runs(), process.errors()
        return process

    def loading_worker(self, calculator: str, *arguments: str, name: str, **env: str) -> Process:
        """Start a worker of one of our calculators."""
        reference = f"{CALCULATORS}:{calculator}"
        return self.start("worker", reference, "--name", name, *arguments, **env)

    def status(self) -> dict[str, Any]:
        """Return the broker's status."""
        return broker_status(self.frontend)

    def ready(self) -> set[int]:
        """Return the processes of the workers that serve."""
        return {
            worker["pid"]
            for worker in self.status()["processes"]
            if worker["state"] in ("idle", "busy")
        }

    def calculator(self, name: str, **options: Any) -> RemoteCalculator:
        """Make a remote calculator."""
        return RemoteCalculator(name, self.frontend, options.pop("timeout", 15_000), **options)

    def close(self) -> None:
        """End managers in order, as their workers have sessions of their own; kill the rest."""
        managers = [p for p in self._processes if p.name in ("up", "manager") and p.runs()]
        for process in managers:
            process.signal(signal.SIGTERM)
        for process in managers:
            with contextlib.suppress(AssertionError):
                process.wait()
        for process in self._processes:
            process.kill()
