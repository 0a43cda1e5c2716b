"""A calculator whose answers are known beforehand, and that sleeps, hangs or dies as it is told.

``aserpc worker tests/chaos/answers.py:Known`` serves it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

#: By what the energies of each name are multiplied: no answer is right under another name.
SCALES = {"near": 1.0, "far": 3.0, "managed": 7.0}


def expected(name: str, atoms: Atoms) -> tuple[float, Any]:
    """Return energy and forces of a structure: E = s Σ (i + 1) r²."""
    positions = atoms.get_positions()
    weights = SCALES[name] * np.arange(1, len(atoms) + 1)[:, None]
    return float((weights * positions**2).sum()), -2 * weights * positions


def difference(name: str, atoms: Atoms, results: dict[str, Any]) -> str:
    """Say how results differ from those that a structure has; nothing if they don't."""
    energy, forces = expected(name, atoms)
    if results["forces"].shape != forces.shape:
        return f"forces of {results['forces'].shape[0]} atoms, not of {len(atoms)}"
    if not np.allclose(results["forces"], forces, rtol=1e-12, atol=0):
        return "forces of another structure"
    if not np.isclose(results["energy"], energy, rtol=1e-9, atol=0):
        return f"an energy of {results['energy']}, not {energy}"
    return ""


class Known(Calculator):
    """Computes what `expected` tells, as ``atoms.info`` orders: ``token``, ``work``, ``seconds``.

    Parameters
    ----------
    name
        What it is served as.
    computed
        A file to which the token of every calculation is added when it begins.
    """

    implemented_properties: list[str] = ["energy", "forces"]  # noqa: RUF012 -- as in ASE

    def __init__(self, name: str, computed: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._served_as = name
        self._computed = os.open(computed, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """See `Calculator.calculate`."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        os.write(self._computed, f"{self.atoms.info['token']}\n".encode())
        work(self.atoms.info["work"], self.atoms.info["seconds"])
        self.results["energy"], self.results["forces"] = expected(self._served_as, self.atoms)


def work(kind: str, seconds: float) -> None:
    """Do as a request orders."""
    if kind == "sleep":
        threading.Event().wait(seconds)
    elif kind == "hold":  # Python's lock, which PyDLL keeps during the call
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    elif kind == "hang":
        threading.Event().wait()
    elif kind == "seize":  # as "hang", with Python's lock
        while True:  # signals interrupt it
            ctypes.PyDLL(None).usleep(int(1e7))
    elif kind == "crash":
        os.abort()
    elif kind == "raise":
        raise ValueError("of the calculator's own")
