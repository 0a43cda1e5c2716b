"""A calculator that notes in a file what it computes, so that tests see what is computed twice.

``aserpc worker tests/support/counted.py:Counted`` serves it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from ase import Atoms

from support.calculators import Spring

_pause = threading.Event()


class Counted(Spring):
    """A spring that computes for ``info["seconds"]``.

    Parameters
    ----------
    folder
        Where the file ``computed`` gets a line with ``info["token"]`` for each calculation.
    holds
        Keep the interpreter's lock all the time, as some compiled code does.
    """

    def __init__(self, folder: str, holds: bool = False) -> None:
        super().__init__()
        self.file, self.holds = Path(folder) / "computed", holds

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        seconds = float(atoms.info["seconds"])
        note(self.file, f"began {atoms.info['token']} {os.getpid()}")
        if self.holds:
            # PyDLL, unlike CDLL, keeps the lock during the call.
            ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        else:
            _pause.wait(seconds)
        note(self.file, f"ended {atoms.info['token']} {os.getpid()}")
        return super().compute(atoms, properties)


def note(file: Path, line: str) -> None:
    """Add a line, whole even where several processes do."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def counts(folder: Path, what: str = "began") -> Counter[str]:
    """Return how often each calculation was begun, or ended."""
    file = folder / "computed"
    lines = file.read_text().splitlines() if file.exists() else []
    return Counter(token for word, token, _ in map(str.split, lines) if word == what)


def work(token: str, x: float, seconds: float) -> Atoms:
    """Return an atom, which a spring gives the energy x²/2, that is so much work."""
    return Atoms("H", [(x, 0, 0)], info={"token": token, "seconds": seconds})
