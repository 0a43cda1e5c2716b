"""A private broker, manager and workers on this machine, for the process that starts them.

They run in a process of their own, `aserpc.local_main`, which holds one end of a pipe. When the
other end is closed, by us or because we were killed, it ends the workers and itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aserpc
from aserpc import transport
from aserpc.client.control import broker_status
from aserpc.errors import BrokerUnreachableError, RegistryError, WorkerFailedError
from aserpc.logs import last_lines
from aserpc.manager.spawned import unpack_spawned
from aserpc.manager.spawners.local import LocalSpawner
from aserpc.processes import in_words
from aserpc.settings import load_settings
from aserpc.spawn import SpawnConfig

#: How long a worker stays that has lost its broker, s.
IDLE_TIMEOUT = 60.0

#: How long a worker may take to end before it is killed, as nobody waits for what it computes, and
#: how long all may take together, s.
STOP_TIMEOUT, END_TIMEOUT = 2.0, 20.0

#: Starts that fail in a row before it is for good: in what is made for a script, it mostly is.
MAX_RESTARTS = 1

LIMITS: dict[str, Any] = {
    "idle_timeout": IDLE_TIMEOUT,
    "stop_timeout": STOP_TIMEOUT,
    "max_restarts": MAX_RESTARTS,
}

#: The exit code of a command that was called wrongly.
MISTAKE = 2

#: Lines of the service's log that tell why it ended.
LAST_LINES = 20

# No aserpc.py of the current folder is taken for the package.
_START = "import sys; sys.path[0] = {!r}; from aserpc.local_main import main; main()"


class LocalService:
    """A broker with workers of some calculators, as a context manager.

    Parameters
    ----------
    configs : dict of str to SpawnConfig
        How the workers start; `min_workers` of each are started at once.

    Raises
    ------
    AddressError
        If the path of the folder for temporary files is too long for sockets.
    """

    def __init__(self, configs: Mapping[str, SpawnConfig]) -> None:
        load_settings()  # what is wrong with them is told here
        self.folder = Path(tempfile.mkdtemp(prefix="aserpc-"))
        try:
            self.address, backend = (
                transport.check_address(f"ipc://{self.folder}/{side}.ipc", "TMPDIR")
                for side in ("frontend", "backend")
            )
            self._log = self.folder / "service.log"
            self._process = _start(configs, self.folder, self._log, self.address, backend)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        # Also where nobody closes it: at the end of the interpreter.
        self._close = weakref.finalize(self, _end, self._process, self.folder, os.getpid())
        try:
            self._wait(len(configs))
        except BaseException:
            self.close()
            raise

    def _wait(self, number: int) -> None:
        """Wait until the broker knows of all calculators: then requests wait for them."""
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            if not stdout.readline():
                self._process.wait()
        while True:
            self.check()
            with contextlib.suppress(BrokerUnreachableError):
                if len(broker_status(self.address)["manager"]["spawnable"]) == number:
                    return
            time.sleep(0.01)

    def check(self) -> None:
        """Raise `WorkerFailedError` if the service has ended."""
        code = self._process.poll()
        if code is not None:
            lines = last_lines(self._log, LAST_LINES).replace("\n", " | ")
            told = f" Its last lines: {lines}" if lines else ""
            raise WorkerFailedError(f"the process of the private broker {in_words(code)}.{told}")

    @property
    def is_closed(self) -> bool:
        """Whether it was ended."""
        return not self._close.alive

    def close(self) -> None:
        """End the workers and the broker, and remove what they left."""
        self._close()

    def __enter__(self) -> LocalService:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def command_config(name: str, arguments: Sequence[str], workers: int) -> SpawnConfig:
    """Return the configuration of workers that ``aserpc worker`` starts with these arguments."""
    command = ["aserpc", "worker", f"--name={name}", "--log-level=ERROR", *arguments]
    return SpawnConfig(name, command=command, min_workers=workers, max_workers=workers, **LIMITS)


def mistake(text: str) -> RegistryError | None:
    """Return what a worker's failure says of how it was called; None if it was called well."""
    if in_words(MISTAKE) not in text:
        return None
    return RegistryError(text.rpartition("aserpc: ")[2])


def _start(
    configs: Mapping[str, SpawnConfig], folder: Path, log: Path, frontend: str, backend: str
) -> subprocess.Popen[bytes]:
    spec: dict[str, Any] = {
        "parent": os.getpid(),
        "frontend": frontend,
        "backend": backend,
        "configs": {name: dataclasses.asdict(config) for name, config in configs.items()},
    }
    source = _START.format(str(Path(aserpc.__file__).parents[1]))
    # A session of its own: the terminal's Ctrl-C reaches us only, and we end it in order.
    with log.open("ab") as errors:
        process = subprocess.Popen(  # noqa: S603 -- the command is ours
            [sys.executable, "-c", source, str(folder)],
            env={**os.environ, "ASERPC_IPC_DIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its log tells more
        process.stdin.write(json.dumps(spec).encode() + b"\n")
        process.stdin.flush()
    return process


def _end(process: subprocess.Popen[bytes], folder: Path, owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork's copy: the service is its parent's
    # A fork of ours may hold the pipes open, whose end would tell it, too.
    process.terminate()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.close()
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        _kill_workers(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _kill_workers(folder: Path) -> None:
    """Kill the workers that a service which was killed itself has left."""
    spawner = LocalSpawner()
    for path in folder.glob("spawned-*.json"):
        with contextlib.suppress(OSError, ValueError):
            for spawned in unpack_spawned(path.read_bytes()).values():
                if spawner.adopt(spawned["handle"]):
                    spawner.stop(spawned["handle"], kill=True)
