"""What the worker tells a calculator that has changed: the same as ASE would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes, compare_atoms

from aserpc.payload import pack_atoms
from aserpc.worker.calculation import Evaluation


class Recorder(Calculator):
    """Keeps the changes of every calculation."""

    implemented_properties: list[str] = ["energy"]  # noqa: RUF012 -- as in ASE

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.changes: list[set[str]] = []

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """See `Calculator.calculate`."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self.changes.append(set(system_changes))
        self.results["energy"] = 0.0


class IgnoresCell(Recorder):
    """Its results do not depend on the cell."""

    ignored_changes: set[str] = {"cell", "pbc"}  # noqa: RUF012 -- as in ASE


class Coarse(Recorder):
    """Has an idea of its own of what a change is."""

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """See `Calculator.check_state`."""
        return list(compare_atoms(self.atoms, atoms, tol=0.1))


def shift(atoms: Atoms) -> None:
    atoms.positions[-1, 2] += 1e-3


def swap(atoms: Atoms) -> None:
    atoms.numbers[0] = 13


def strain(atoms: Atoms) -> None:
    atoms.cell[0, 1] += 0.01


def open_up(atoms: Atoms) -> None:
    atoms.pbc = (True, False, True)


def charge(atoms: Atoms) -> None:
    atoms.set_initial_charges(np.full(len(atoms), 0.5))


def magnetize(atoms: Atoms) -> None:
    atoms.set_initial_magnetic_moments([1.0] * len(atoms))


def magnetize_noncollinearly(atoms: Atoms) -> None:
    atoms.set_initial_magnetic_moments([[0.0, 0.0, 1.0]] * len(atoms))


def grow(atoms: Atoms) -> None:
    atoms.append("H")


CHANGES: list[Callable[[Atoms], None]] = [
    shift, swap, strain, open_up, charge, magnetize, magnetize_noncollinearly, grow,
]  # fmt: skip
SYSTEMS = {"small": bulk("Cu"), "large": bulk("Cu") * (6, 6, 6)}


def both(kind: type[Recorder], system: str, *changes: Callable[[Atoms], None]) -> list[list[Any]]:
    """Return the changes that a served and a local calculator are told."""
    served, local = kind(), kind()
    evaluation, atoms = Evaluation(served), SYSTEMS[system].copy()
    for change in (lambda _: None, *changes):
        change(atoms)
        evaluation.evaluate(pack_atoms(atoms), ["energy"])
        local.get_property("energy", atoms)  # type: ignore[no-untyped-call]
    return [served.changes, local.changes]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told_as_ase_does(system: str, change: Callable[[Atoms], None]) -> None:
    served, local = both(Recorder, system, change, shift)
    assert served == local
    assert len(served) == 3


@pytest.mark.parametrize("change", CHANGES)
def test_ignored_changes_are_ignored(change: Callable[[Atoms], None]) -> None:
    served, local = both(IgnoresCell, "small", change)
    if change in (strain, open_up):
        # Computed anew all the same: the results might depend on it after all.
        assert local == [set(all_changes)]
        assert served == [set(all_changes)] * 2
    else:
        assert served == local


def test_a_check_of_the_calculators_own_is_asked() -> None:
    served, _ = both(Coarse, "small", shift)
    assert served == [set(all_changes)] * 2, "what it does not see is told as a change of all"
