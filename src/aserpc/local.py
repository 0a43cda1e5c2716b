"""A private broker and workers on this machine, for the time of a block."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from aserpc import transport
from aserpc.broker import Broker
from aserpc.client.control import list_calculators
from aserpc.errors import AserpcError, RegistryError, WorkerFailedError
from aserpc.logs import last_lines
from aserpc.processes import in_words
from aserpc.spawn.environments import THREAD_VARIABLES
from aserpc.spawn.own import own_command

#: How long a worker without requests, or without its broker, stays, s.
IDLE_TIMEOUT = 60.0

#: How long the workers may take to end before they are killed, s.
STOP_TIMEOUT = 5.0

#: How many workers may crash for each, in a row, before it is for good: a request that kills two
#: is refused.
MAX_REPLACED = 3

#: The exit code of a command that was called wrongly.
MISTAKE = 2

#: Lines of a worker's output that tell why it ended.
LAST_LINES = 20


class LocalService:
    """A broker in a thread and workers in processes, which end with the block.

    Parameters
    ----------
    name : str
        Name that the workers serve.
    arguments : sequence of str
        What ``aserpc worker`` is called with.
    workers : int
        Number of processes. With more than one, each gets its share of the cores.
    """

    def __init__(self, name: str, arguments: Sequence[str], workers: int = 1) -> None:
        self.name = name
        self.arguments = list(arguments)
        self.workers = workers
        self.folder = Path(tempfile.mkdtemp(prefix="aserpc-"))
        try:
            frontend, backend = (
                transport.check_address(f"ipc://{self.folder}/{side}.ipc", "TMPDIR")
                for side in ("frontend", "backend")
            )
            self.broker = Broker(frontend, backend)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._thread = threading.Thread(target=self._serve, name="aserpc broker", daemon=True)
        self._error: AserpcError | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        #: Workers that were replaced since a request has come to its end.
        self._replaced = 0

    @property
    def address(self) -> str:
        """The address for clients."""
        return self.broker.frontend

    def __enter__(self) -> LocalService:
        try:
            self._thread.start()
            while not self.broker.serving.wait(0.05):
                if not self._thread.is_alive():
                    raise self._error or WorkerFailedError("the private broker could not start")
            for number in range(self.workers):
                self._processes.append(self._start(number))
            self._wait_for_a_worker()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def check(self) -> None:
        """Replace workers that have crashed, as long as some request gets on in between.

        Raises
        ------
        WorkerFailedError
            With why, if all workers have ended.
        """
        crashed = [n for n, process in enumerate(self._processes) if process.poll()]
        if self._replaced < MAX_REPLACED * self.workers:
            for number in crashed:
                self._processes[number] = self._start(number)
                self._replaced += 1
        self._check_all()

    def check_mistake(self) -> None:
        """Raise `RegistryError` if the workers ended because they were called wrongly."""
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT / 2)
        if all(process.returncode == MISTAKE for process in self._processes):
            self._check_all()

    def progressed(self) -> None:
        """Take it that a request has come to its end."""
        self._replaced = 0

    def _check_all(self) -> None:
        codes = [process.poll() for process in self._processes]
        if None not in codes:
            lines = last_lines(self._log(0), LAST_LINES).replace("\n", " | ")
            told = f"Its last lines: {lines}" if lines else "It printed nothing."
            if codes[0] == MISTAKE:
                raise RegistryError(lines.rpartition("aserpc: ")[2] or told)
            end = in_words(codes[0] or 0)
            raise WorkerFailedError(f"the worker of {self.name!r} {end}. {told}")

    def close(self) -> None:
        """End the workers and the broker, and remove what they left."""
        for process in self._processes:
            _signal(process, signal.SIGTERM)
        ends_at = time.monotonic() + STOP_TIMEOUT
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, ends_at - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()
        self.broker.stop()
        if self._thread.ident is not None:
            self._thread.join(STOP_TIMEOUT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _serve(self) -> None:
        try:
            self.broker.serve()
        except AserpcError as error:
            self._error = error

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if self.workers > 1:
            share = max(1, (os.cpu_count() or 1) // self.workers)
            for variable in THREAD_VARIABLES:
                environment.setdefault(variable, str(share))
        command = [
            *own_command(),
            *("worker", *self.arguments, "--log-level", "ERROR"),
            *("--broker", self.broker.backend, "--name", self.name),
            *("--idle-timeout", str(IDLE_TIMEOUT)),
            *("--workdir", str(self.folder / f"work-{number}")),
        ]
        # A session of its own: the terminal's Ctrl-C reaches us only, and we end it in order. A
        # file, not a pipe: what a worker prints must neither fill a pipe nor break with it.
        with self._log(number).open("ab") as log:
            return subprocess.Popen(  # noqa: S603 -- the command is ours
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for_a_worker(self) -> None:
        """Wait until a worker has said that it loads: then requests wait for it too."""
        while not list_calculators(self.address):
            self._check_all()
            time.sleep(0.05)

    def _log(self, number: int) -> Path:
        return self.folder / f"worker-{number}.log"


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal a worker and what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
