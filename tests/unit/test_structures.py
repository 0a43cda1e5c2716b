"""Atoms that are made faster than ASE makes them are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from aserpc.structures import copy_atoms, empty_atoms


def shared(one: Atoms, other: Atoms) -> list[str]:
    """Return the names of what two structures have in common, and can change."""
    mine, theirs = vars(one), vars(other)
    values: list[tuple[str, Any, Any]] = [(name, mine[name], theirs[name]) for name in mine]
    values += [(name, one.arrays[name], other.arrays[name]) for name in one.arrays]
    values.append(("cell", one.cell.array, other.cell.array))
    return [name for name, a, b in values if a is b and a is not None]


def same(one: Any, other: Any) -> bool:
    """Whether two values are of one type and equal."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if hasattr(one, "array"):
        one, other = one.array, other.array
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and (one == other or not isinstance(one, list | str | int))


def structure() -> Atoms:
    """Return a structure that has something of everything."""
    atoms = Atoms("CuAu", [[0, 0, 0], [1.8, 0.1, 0]], cell=[3, 4, 5], pbc=[True, False, True])
    atoms.set_array("colour", np.array(["red", "blue"]))
    atoms.set_momenta([[1, 2, 3], [4, 5, 6]])
    atoms.set_celldisp([0.1, 0.2, 0.3])
    atoms.info = {"name": "alloy", "numbers": [1, 2]}
    atoms.set_constraint(FixAtoms([0]))
    atoms.calc = EMT()
    made = empty_atoms()
    vars(made).update(vars(atoms))
    return made


def test_an_empty_one_is_what_ase_makes() -> None:
    made, expected = empty_atoms(), Atoms()
    assert type(made) is Atoms
    assert same(vars(made), vars(expected))


def test_two_empty_ones_share_nothing() -> None:
    one, other = empty_atoms(), empty_atoms()
    one.cell[0, 0], one.pbc[0], one.info["a"] = 1.0, True, 1
    one.set_celldisp([1, 2, 3])
    assert same(vars(other), vars(Atoms()))
    assert [name for name in shared(one, other) if name not in one.arrays] == []


@pytest.mark.parametrize("make", [structure, empty_atoms], ids=["full", "empty"])
def test_a_copy_is_what_ase_copies(make: Any) -> None:
    atoms = make()
    copied, expected = copy_atoms(atoms), atoms.copy()
    mine, theirs = vars(copied), vars(expected)
    for state in (mine, theirs):
        state["_constraints"] = [each.todict() for each in state["_constraints"]]
    assert same(mine, theirs)


def test_a_copy_shares_nothing_with_its_original() -> None:
    atoms = structure()
    assert shared(atoms, copy_atoms(atoms)) == []
    assert copy_atoms(atoms).constraints[0] is not atoms.constraints[0]
    assert copy_atoms(atoms).calc is None
