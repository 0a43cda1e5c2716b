"""Small calculators, each with one trait that a test needs.

``aserpc worker tests/support/calculators.py:NAME`` serves them too.
"""

from __future__ import annotations

import builtins
import ctypes
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators import calculator as ase_calculator
from ase.calculators.calculator import Calculator, all_changes

PAUSE = threading.Event()


class Spring(Calculator):
    """E = Σ x²/2, with all the properties at once; counts what it was asked."""

    implemented_properties: list[str] = ["energy", "forces", "stress"]  # noqa: RUF012 -- as in ASE

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        #: The properties of every calculation.
        self.asked: list[list[str]] = []

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """See `Calculator.calculate`."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        self.asked.append(list(properties))
        self.results.update(self.compute(self.atoms, list(properties)))

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """Return results."""
        positions = atoms.get_positions()
        return {
            "energy": float((positions**2).sum() / 2),
            "forces": -positions,
            "stress": np.zeros(6),
        }


class OnDemand(Spring):
    """Computes what it is asked for and the energy, nothing else."""

    implemented_properties: list[str] = [  # noqa: RUF012 -- as in ASE
        "energy",
        "forces",
        "dipole",
        "charges",
    ]

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        positions = atoms.get_positions()
        everything = {
            "energy": float((positions**2).sum() / 2),
            "forces": -positions,
            "dipole": positions.sum(axis=0),
            "charges": positions[:, 0],
        }
        return {name: everything[name] for name in {"energy", *properties}}


class Picky(OnDemand):
    """Can't compute the dipole of a system with ``info["odd"]``, nor anything beside it."""

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        if "dipole" in properties and atoms.info.get("odd"):
            raise ase_calculator.SCFError("no dipole of the odd")
        return super().compute(atoms, properties)


class Charged(Spring):
    """Its energy is that of ``info["charge"]``."""

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        return {"energy": float(atoms.info.get("charge", 0)), "forces": np.zeros((len(atoms), 3))}


class Generous(Spring):
    """Has results of its own beside ASE's."""

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        return {
            **super().compute(atoms, properties),
            "free_energy": 1.5,
            "descriptors": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
            "uncertainty": {"energy": 0.1, "forces": np.ones((len(atoms), 3))},
            "converged": True,
            "steps": 7,
        }


class Failing(Spring):
    """Raises the exception that ``info["error"]`` names; ``exit`` is ``sys.exit``."""

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        name = atoms.info.get("error")
        if name == "exit":
            sys.exit("the end")
        if name:
            kind = getattr(ase_calculator, name, None) or getattr(builtins, name)
            raise kind(f"{name} of the calculator's own")
        return super().compute(atoms, properties)


class Unmakable(Spring):
    """Can't be made."""

    def __init__(self) -> None:
        raise ValueError("the model file is missing")


class Gate(Spring):
    """Computes when it is let through; tells by files what it is at.

    Parameters
    ----------
    folder
        Where ``started-PID-N`` appears when the Nth calculation starts, which ends when ``go`` is
        there, or ``go-PID``; then ``ended-PID-N`` appears.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        pid = os.getpid()
        (self.folder / f"started-{pid}-{len(self.asked)}").touch()
        while not any((self.folder / name).exists() for name in ("go", f"go-{pid}")):
            PAUSE.wait(0.01)
        (self.folder / f"ended-{pid}-{len(self.asked)}").touch()
        return super().compute(atoms, properties)


class SlowToLoad(Spring):
    """Is made when ``go`` is in a folder; until then ``loading-PID`` is there."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        (Path(folder) / f"loading-{os.getpid()}").touch()
        while not (Path(folder) / "go").exists():
            PAUSE.wait(0.01)


class SlowToFail(SlowToLoad):
    """Like `SlowToLoad`, but then it can't be made."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        raise ValueError("the model file is missing")


class Crashes(Gate):
    """Ends its process as a segmentation fault would, once it is let through."""

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        super().compute(atoms, properties)
        os.abort()


class HoldsGil(Spring):
    """Computes for ``seconds`` without giving up the interpreter's lock."""

    def __init__(self, folder: str, seconds: float) -> None:
        super().__init__()
        self.folder, self.seconds = Path(folder), seconds

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        (self.folder / f"started-{os.getpid()}-{len(self.asked)}").touch()
        # PyDLL, unlike CDLL, keeps the lock during the call.
        ctypes.PyDLL(None).usleep(int(self.seconds * 1e6))
        return super().compute(atoms, properties)


class Chatty(Spring):
    """Prints megabytes, to both outputs, by Python and beneath it."""

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        line = "x" * 99 + "\n"
        for stream in (sys.stdout, sys.stderr):
            stream.write(line * 20_000)
            stream.flush()
            os.write(stream.fileno(), line.encode() * 100)
        return super().compute(atoms, properties)


class Writes(Spring):
    """Writes a file into the current folder; its result tells which folder that is."""

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        Path("scratch.out").write_text("scratch")
        return {**super().compute(atoms, properties), "folder": str(Path.cwd())}


class Reads(Spring):
    """Reads the file it is given when it computes: a relative path must still be right."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        return {**super().compute(atoms, properties), "energy": float(Path(self.path).read_text())}


class Heavy(Spring):
    """Has a result of ``info["wanted"]`` MB."""

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        load = np.ones(int(atoms.info["wanted"] * 125_000))
        return {**super().compute(atoms, properties), "load": load}


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
            PAUSE.wait(seconds)
        note(self.file, f"ended {atoms.info['token']} {os.getpid()}")
        return super().compute(atoms, properties)


def note(file: Path, line: str) -> None:
    """Add a line, whole even where several processes do."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
