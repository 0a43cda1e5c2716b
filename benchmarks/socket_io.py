"""ASE's own way to a calculator in another process: `SocketIOCalculator` over a unix socket.

``python -m benchmarks.socket_io NAME SOCKET STRUCTURE`` is the other process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.io import read, write

from benchmarks.calculators import factory
from benchmarks.tasks import Tasks
from benchmarks.timing import Roles


class SocketTasks(Tasks):
    """The tasks with a process of its own for each calculator and number of atoms."""

    def __init__(self, address: str) -> None:
        self._folder = address
        self._workers: list[subprocess.Popen[bytes]] = []
        super().__init__(self._start)

    def forces(self, name: str, atoms: int, calls: int, roles: Roles) -> dict[str, Any]:
        """See `Tasks.forces`."""
        self._structure(name, atoms).get_forces()  # the process is there
        return super().forces(name, atoms, calls, {**roles, **self._roles()})

    def _roles(self) -> Roles:
        return {"worker": [worker.pid for worker in self._workers]}

    def _start(self, name: str, atoms: Atoms) -> Any:
        socket = f"aserpc-benchmark-{os.getpid()}-{len(self._workers)}"
        handle, path = tempfile.mkstemp(".traj", dir=self._folder)
        os.close(handle)
        plain = atoms.copy()
        write(path, plain)
        command = [sys.executable, "-m", "benchmarks.socket_io", name, socket, path]

        def launch(
            atoms: Atoms,  # noqa: ARG001
            properties: Sequence[str],  # noqa: ARG001
            port: int | None = None,  # noqa: ARG001
            unixsocket: str | None = None,  # noqa: ARG001
        ) -> Any:
            worker = subprocess.Popen(command)
            self._workers.append(worker)
            return worker

        return SocketIOCalculator(unixsocket=socket, launch_client=launch)


def serve(name: str, socket: str, path: str) -> None:
    """Serve a calculator until the other end goes."""
    atoms: Any = read(Path(path))
    atoms.calc = factory(name)()
    SocketClient(unixsocket=socket).run(atoms)


if __name__ == "__main__":
    serve(*sys.argv[1:])
