"""A calculator that does as it is told, by its arguments when it is made and by ``atoms.info``.

A manager's workers serve it: ``factory = ".../tests/support/puppet.py:Puppet"``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

#: Variables of the environment that tell which GPU, how many threads and which MPI job.
TOLD = (
    "CUDA_", "OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "OMPI_", "PMIX_", "PRTE_", "ORTE_", "PMI_",
    "MY_",
)  # fmt: skip

_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"

_pause = threading.Event()


class Puppet(Calculator):
    """Computes nothing much, and tells about its process.

    Parameters
    ----------
    **orders
        What to do when it is made; ``folder`` is where it notes what it is at.

    Notes
    -----
    Orders, in the order in which they are carried out:

    - ``note = NAME`` leaves a file ``NAME-PID`` in the folder
    - ``megabytes = N`` prints so much to each of the outputs
    - ``say = TEXT`` prints a line
    - ``child = "stubborn"`` starts a process that ignores SIGTERM
    - ``deaf = True`` ignores SIGTERM
    - ``memory = BYTES`` asks for more memory than it is allowed
    - ``signal = N`` sends itself a signal
    - ``exit = N`` ends the process
    - ``hold = SECONDS`` keeps the interpreter's lock
    - ``sleep = SECONDS``
    - ``until = NAME`` waits for a file in the folder
    """

    implemented_properties = ["energy"]  # noqa: RUF012 -- as in ASE

    def __init__(self, folder: str = ".", **orders: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.folder = Path(folder)
        self.child: int | None = None
        self.obey(orders)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """See `Calculator.calculate`."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        started = time.time()
        self.obey(self.atoms.info.get("orders", {}))
        self.results["energy"] = float((self.atoms.get_positions() ** 2).sum() / 2)
        self.results["telling"] = {
            "pid": os.getpid(),
            "child": self.child,
            "cwd": str(Path.cwd()),
            "times": [started, time.time()],
            "env": {key: value for key, value in os.environ.items() if key.startswith(TOLD)},
            "argv": sys.argv,
        }

    def obey(self, orders: dict[str, Any]) -> None:
        """Carry out orders."""
        if "note" in orders:
            (self.folder / f"{orders['note']}-{os.getpid()}").touch()
        for stream in (sys.stdout, sys.stderr):
            _print(stream.fileno(), orders.get("megabytes", 0))
        if "say" in orders:
            print(orders["say"], flush=True)
        if "child" in orders:
            self.child = subprocess.Popen([sys.executable, "-c", _STUBBORN]).pid
        if orders.get("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if "memory" in orders:
            resource.setrlimit(resource.RLIMIT_AS, (orders["memory"], resource.RLIM_INFINITY))
            bytearray(2 * orders["memory"])
        if "signal" in orders:
            os.kill(os.getpid(), orders["signal"])
        if "exit" in orders:
            sys.stdout.flush()
            os._exit(orders["exit"])
        if "hold" in orders:
            ctypes.PyDLL(None).usleep(int(orders["hold"] * 1e6))
        _pause.wait(orders.get("sleep", 0))
        while "until" in orders and not (self.folder / orders["until"]).exists():
            _pause.wait(0.01)


def _print(descriptor: int, megabytes: int) -> None:
    lines = ("x" * 99 + "\n").encode() * 10_000
    for _ in range(megabytes):
        left = memoryview(lines)
        while left:
            with contextlib.suppress(InterruptedError):
                left = left[os.write(descriptor, left) :]
