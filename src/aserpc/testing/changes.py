"""Structures that are changed in one thing, of those that results can depend on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms

__all__ = ["changes", "elsewhere", "without_charge", "without_moments"]


def changes(atoms: Atoms, *, info: bool) -> Iterator[tuple[str, Atoms]]:
    """Yield a structure with one change after the other, and what the change is.

    Parameters
    ----------
    atoms
        The structure.
    info
        Whether one of the changes is in ``atoms.info``.
    """
    changed = atoms.copy()
    changed.positions[0] += (0.05, -0.03, 0.04)
    yield "position", changed
    if atoms.cell.rank == 3:
        changed = atoms.copy()
        changed.cell[:] = atoms.cell.array * 1.02
        yield "cell", changed
    if len({*atoms.numbers}) > 1:
        changed = atoms.copy()
        other = int(np.flatnonzero(atoms.numbers != atoms.numbers[0])[0])
        changed.numbers[[0, other]] = atoms.numbers[[other, 0]]
        yield "order of elements", changed
    # One electron less, two unpaired: whole numbers, for those who add them up.
    changed = atoms.copy()
    changed.set_initial_charges(np.full(len(atoms), 1 / len(atoms)))
    yield "set of initial charges", changed
    changed = atoms.copy()
    changed.set_initial_magnetic_moments(np.full(len(atoms), 2 / len(atoms)))
    yield "set of initial magnetic moments", changed
    if info:
        changed = atoms.copy()
        changed.info["charge"] = atoms.info.get("charge", 0) + 1
        yield "charge in atoms.info", changed


def elsewhere(atoms: Atoms) -> Atoms:
    """Return a structure with which everything has to be computed anew."""
    moved: Atoms = atoms.copy()
    moved.positions += np.random.default_rng(len(atoms)).normal(scale=0.05, size=(len(atoms), 3))
    return moved


def without_charge(atoms: Atoms) -> Atoms | None:
    """Return it neutral; None if it is."""
    if not atoms.info.get("charge") and not atoms.get_initial_charges().any():
        return None
    neutral: Atoms = atoms.copy()
    neutral.info.pop("charge", None)
    neutral.arrays.pop("initial_charges", None)
    return neutral


def without_moments(atoms: Atoms) -> Atoms | None:
    """Return it without initial magnetic moments; None if it has none."""
    if not atoms.get_initial_magnetic_moments().any():
        return None
    plain: Atoms = atoms.copy()
    plain.arrays.pop("initial_magmoms", None)
    return plain
