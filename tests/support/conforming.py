"""A calculator that is right, and with each fault that the conformance kit is to find.

``aserpc worker tests/support/conforming.py:Pairs --kwargs '{"fault": "order"}'`` serves it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress

_CUTOFF, _WIDTH = 6.0, 1.3


def _geometry(atoms: Atoms) -> str:
    return str([atoms.numbers.tolist(), atoms.positions.tolist(), atoms.cell.tolist()])


class Pairs(Calculator):
    """Bells between the atoms, an energy of the charge, and one of the magnetic moments.

    Parameters
    ----------
    fault
        What is wrong with it: see `FAULTS` in the tests; nothing, if empty.
    """

    implemented_properties: list[str] = ["energy", "forces", "stress"]  # noqa: RUF012 -- as in ASE

    def __init__(self, fault: str = "") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fault = fault
        self.calculations = 0
        self._remembered: dict[str, dict[str, Any]] = {}

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """See `Calculator.check_state`."""
        changes: list[str] = super().check_state(atoms, tol)  # type: ignore[no-untyped-call]
        return all_changes if self.fault == "forgetful" else changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """See `Calculator.calculate`."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        self.calculations += 1
        self.results = self.compute(self.atoms)
        if "stress" in properties and "stress" not in self.results:
            raise PropertyNotImplementedError("no stress without a crystal")

    def compute(self, atoms: Atoms) -> dict[str, Any]:
        """Return results."""
        fault = self.fault
        if fault == "refuses charges" and atoms.info.get("charge"):
            raise ValueError("no charged structures")
        key = str(atoms.symbols) if fault == "stale" else _geometry(atoms)
        if fault.startswith("stale") and key in self._remembered:
            return dict(self._remembered[key])
        first, second, vectors = neighbor_list("ijD", atoms, _CUTOFF)
        if fault == "axis":
            vectors = vectors * (1.0, 1.1, 1.0)
        weights = np.sqrt(atoms.numbers[first] * atoms.numbers[second]) / 10
        bells = weights * np.exp(-((vectors**2).sum(axis=1)) / _WIDTH**2)
        pulls = -2 * bells[:, None] * vectors / _WIDTH**2
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, first, pulls)
        energy = bells.sum() / 2 + self.of_electrons(atoms)
        if fault == "place":
            energy += 0.01 * atoms.positions[0, 0]
        if fault == "memory":
            energy += 1e-3 * self.calculations
        if fault == "order":
            forces = forces[np.argsort(atoms.numbers, kind="stable")]
        if fault == "slopes":
            forces *= 1.02
        results: dict[str, Any] = {"energy": float(energy), "forces": forces, "pairs": len(first)}
        if atoms.pbc.all():
            stress = 0.5 * vectors.T @ pulls / atoms.get_volume()
            results["stress"] = full_3x3_to_voigt_6_stress(stress)
            if fault == "pressure":
                results["stress"] = -results["stress"]
        if fault == "dtype":
            results["forces"] = forces.astype(np.float32)
        if fault == "shape":
            results["forces"] = forces.ravel()
        if fault == "missing":
            del results["pairs"]
        self._remembered = {key: dict(results)}
        return results

    def of_electrons(self, atoms: Atoms) -> float:
        """Return what charge and magnetic moments add to the energy."""
        charge = atoms.info.get("charge", 0) + 2 * atoms.get_initial_charges().sum()
        if self.fault == "charge":
            charge = 0.0
        moments = atoms.get_initial_magnetic_moments()
        return float(0.3 * charge**2 + 0.1 * (moments**2).sum())


class PairsTogether(Pairs):
    """The same in batches; the fault ``batch`` gives each the results of another."""

    def calculate_batch(
        self,
        atoms: Sequence[Atoms],
        properties: Sequence[str],
    ) -> list[dict[str, Any]]:
        """See `aserpc.batchers.BatchCalculator`."""
        found = [self.compute(one) for one in atoms]
        if self.fault == "batch" and len({len(one) for one in atoms}) == 1:
            found = found[1:] + found[:1]
        return found


class Shared(Pairs):
    """Hands out its own arrays."""

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """See `Calculator.get_property`."""
        value = super().get_property(name, atoms, allow_calculation)  # type: ignore[no-untyped-call]
        return None if value is None else self.results[name]
