"""Calculators that compute several structures in one call, each with one trait that a test needs.

``aserpc worker tests/support/batches.py:NAME`` serves them too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from .calculators import PAUSE, Spring


class Together(Spring):
    """E = Σ x²/2; notes its batches. What ``info["bad"]`` names happens when that is computed."""

    def __init__(self) -> None:
        super().__init__()
        #: How many structures each batch had.
        self.batches: list[int] = []

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        if atoms.info.get("bad") == "structure":
            raise ValueError("a bad structure")
        return super().compute(atoms, properties)

    def calculate_batch(
        self, atoms: Sequence[Atoms], properties: Sequence[str]
    ) -> list[dict[str, Any]]:
        """See `aserpc.batchers.BatchCalculator`."""
        self.batches.append(len(atoms))
        return [self.compute(one, list(properties)) for one in atoms]


class GatedTogether(Together):
    """Computes when ``go`` is in a folder; notes there what it is at.

    Parameters
    ----------
    folder
        Where ``started-PID-N-SIZE`` appears when the Nth call, of so many structures, starts.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder, self.calls = Path(folder), 0

    def wait(self, size: int) -> None:
        """Wait for the gate."""
        (self.folder / f"started-{os.getpid()}-{self.calls}-{size}").touch()
        self.calls += 1
        while not (self.folder / "go").exists():
            PAUSE.wait(0.01)

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        if atoms.info.get("bad") == "death":
            os.abort()
        if atoms.info.get("bad") == "hangs":
            PAUSE.wait(600)
        return super().compute(atoms, properties)

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        """See `Spring.calculate`."""
        self.wait(1)
        super().calculate(atoms, *args, **kwargs)

    def calculate_batch(
        self, atoms: Sequence[Atoms], properties: Sequence[str]
    ) -> list[dict[str, Any]]:
        """See `Together.calculate_batch`."""
        self.wait(len(atoms))
        return super().calculate_batch(atoms, properties)


class Small(Together):
    """Has not the memory for more than so many atoms in a batch."""

    def __init__(self, most: int = 10, error: type[Exception] = MemoryError) -> None:
        super().__init__()
        self.most, self.error = most, error

    def calculate_batch(
        self, atoms: Sequence[Atoms], properties: Sequence[str]
    ) -> list[dict[str, Any]]:
        """See `Together.calculate_batch`."""
        found = super().calculate_batch(atoms, properties)
        if sum(map(len, atoms)) > self.most:
            raise self.error("no room")
        return found


class Unreadable:
    """Is no number, as a tensor that needs its gradient."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """Fail."""
        raise RuntimeError("call detach() first")


class SpeechlessError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("nor this")


class Reusing(Together):
    """Keeps its forces in arrays that the next call overwrites; a batch's first energy is bad."""

    def __init__(self) -> None:
        super().__init__()
        self._forces = np.zeros((1000, 3))

    def _kept(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        start = 0
        for results in reversed(found):
            own = self._forces[start : start + len(results["forces"])]
            own[:] = results["forces"]
            results["forces"] = own
            start += len(own)
        return found

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        return self._kept([super().compute(atoms, properties)])[0]

    def calculate_batch(
        self, atoms: Sequence[Atoms], properties: Sequence[str]
    ) -> list[dict[str, Any]]:
        """See `Together.calculate_batch`."""
        found = [Together.compute(self, one, list(properties)) for one in atoms]
        found[0]["energy"] = np.nan
        return self._kept(found)


class Wrong(Together):
    """Its batches are wrong in a way of its own; alone it is right.

    Parameters
    ----------
    how
        ``raises``, ``lacks a key``, ``generator``, ``numbers of each``, ``dict``, ``too few``,
        ``order``, ``shape``, ``missing``, ``nan``, ``moves``, ``numbers``, ``buffer``, ``leaves``
        (traces in the calculator), ``none``, ``objects``, ``unreadable``, ``all energies``,
        ``all charges``, or ``speechless`` (an error without a text).
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self._forces = np.zeros((1000, 3))
        self._shift = 0.0

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        results = super().compute(atoms, properties)
        return {**results, "energy": results["energy"] + self._shift}

    def calculate_batch(
        self, atoms: Sequence[Atoms], properties: Sequence[str]
    ) -> list[dict[str, Any]]:
        """See `Together.calculate_batch`."""
        found = super().calculate_batch(atoms, properties)
        match self.how if found else "":
            case "raises":
                raise RuntimeError("made for another version")
            case "lacks a key":
                raise KeyError("energies")
            case "generator":
                return (results for results in found)  # type: ignore[return-value]
            case "numbers of each":
                return [results["energy"] for results in found]
            case "dict":
                return {"energy": [0.0], "forces": [0.0]}  # type: ignore[return-value]
            case "too few":
                found = found[1:]
            case "order":
                found = found[::-1]
            case "shape":
                found[0]["forces"] = found[0]["forces"].ravel()
            case "missing":
                found = [{"energy": results["energy"]} for results in found]
            case "nan":
                for results in found:
                    results["forces"] = results["forces"] * np.nan
            case "moves":
                for one in atoms:
                    one.positions += 1.0
                raise RuntimeError("and then it fails")
            case "numbers":
                found[-1]["energy"] += 1e-3
            case "buffer":
                for results in found:
                    size = len(results["forces"])
                    self._forces[:size] = results["forces"]
                    results["forces"] = self._forces[:size]
            case "leaves":
                self._shift = 1e-9
            case "none":
                found[0]["energy"] = None
            case "objects":
                found[0]["forces"] = found[0]["forces"].astype(object)
            case "unreadable":
                found[0]["energy"] = Unreadable()
            case "all energies":
                found = [{**one, "energy": [each["energy"] for each in found]} for one in found]
            case "all charges":
                found = [{**one, "charges": np.zeros(sum(map(len, atoms)))} for one in found]
            case "speechless":
                raise SpeechlessError
        return found
