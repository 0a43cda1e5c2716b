"""What must hold of any calculator: invariances, and forces that are slopes of the energy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

__all__ = ["DISPLACEMENT", "STRAIN", "Moved", "permuted", "rotated", "slopes", "translated"]

#: Steps of the finite differences: the largest displacement of an atom in Å, and a strain.
DISPLACEMENT, STRAIN = 0.02, 0.004

#: Distances of the five points, in steps, and their weights in the slope.
_POINTS = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}

#: Numbers for directions that are the same each time, and in no relation to a structure's.
_SEED = 7

_PER_ATOM = ("forces", "energies", "charges", "magmoms", "stresses")
_SCALARS = ("energy", "free_energy", "energies", "charges", "magmom", "magmoms")

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Moved:
    """A structure moved as a whole, and what becomes of its results."""

    atoms: Atoms
    expected: Callable[[Values], dict[str, Any]]


def translated(atoms: Atoms) -> Moved:
    """Return it somewhere else."""
    moved = atoms.copy()
    moved.positions += (0.37, -1.61, 0.83)  # the attribute: constraints don't apply
    kept = (*_SCALARS, "forces", "stress", "stresses")
    return Moved(moved, lambda values: {k: v for k, v in values.items() if k in kept})


def rotated(atoms: Atoms) -> Moved:
    """Return it turned, with its cell."""
    turn = _rotation()
    moved = atoms.copy()
    moved.positions = atoms.positions @ turn.T
    moved.cell[:] = atoms.cell.array @ turn.T

    def expected(values: Values) -> dict[str, Any]:
        found = {name: value for name, value in values.items() if name in _SCALARS}
        if "forces" in values:
            found["forces"] = np.asarray(values["forces"]) @ turn.T
        if "stress" in values:
            stress = turn @ _tensor(values["stress"]) @ turn.T
            is_tensor = np.shape(values["stress"]) == (3, 3)
            found["stress"] = stress if is_tensor else full_3x3_to_voigt_6_stress(stress)
        return found

    return Moved(moved, expected)


def permuted(atoms: Atoms) -> Moved:
    """Return it with its atoms in another order."""
    order = np.roll(np.arange(len(atoms))[::-1], 1)
    kept = (*_SCALARS, *_PER_ATOM, "stress", "dipole")

    def expected(values: Values) -> dict[str, Any]:
        return {
            name: np.asarray(value)[order] if name in _PER_ATOM else value
            for name, value in values.items()
            if name in kept and (name not in _PER_ATOM or len(value) == len(atoms))
        }

    return Moved(atoms[order], expected)


def slopes(
    atoms: Atoms, values: Values, energy: Callable[[Atoms], float], tolerance: float
) -> Iterator[str]:
    """Yield in words where forces and stress are not the slopes of the energy.

    Parameters
    ----------
    atoms
        The structure.
    values
        Its results.
    energy
        Computes what the forces are slopes of, eV.
    tolerance
        How much a force may be off, relative to the largest or to 1 eV/Å, whichever is larger.

    Notes
    -----
    The slopes along some random displacements of all atoms and, for a crystal, one random strain,
    by five points each.
    """
    random = np.random.default_rng(_SEED)
    if "forces" in values:
        forces = np.asarray(values["forces"], float)
        size = max(1.0, float(np.abs(forces).max(initial=0.0)))
        for _ in range(min(3, 3 * len(atoms))):
            direction = random.normal(size=forces.shape)
            direction /= np.linalg.norm(direction)

            def along(step: float, direction: Any = direction) -> Atoms:
                moved: Atoms = atoms.copy()
                moved.positions += DISPLACEMENT * step * direction
                return moved

            slope = _slope(energy, along) / DISPLACEMENT
            told = -float((forces * direction).sum())
            if abs(slope - told) > tolerance * size:
                yield f"forces give a slope of {told:.6g} eV/Å where the energy has {slope:.6g}"
                break
    if "stress" in values and atoms.pbc.all():
        stress = _tensor(values["stress"])
        strain = random.normal(size=(3, 3))
        strain = (strain + strain.T) / np.linalg.norm(strain + strain.T)

        def strained(step: float) -> Atoms:
            moved: Atoms = atoms.copy()
            deformation = np.eye(3) + STRAIN * step * strain
            moved.cell[:] = atoms.cell.array @ deformation
            moved.positions = atoms.positions @ deformation
            return moved

        slope = _slope(energy, strained) / STRAIN
        volume = atoms.get_volume()
        told = volume * float((stress * strain).sum())
        if abs(slope - told) > tolerance * max(1.0, volume * float(np.abs(stress).max())):
            yield f"stress gives a slope of {told:.6g} eV where the energy has {slope:.6g}"


def _tensor(stress: Any) -> np.ndarray[Any, Any]:
    """Return a stress of shape (6,) or (3, 3) as one of shape (3, 3)."""
    array = np.asarray(stress, float)
    return array if array.shape == (3, 3) else voigt_6_to_full_3x3_stress(array)


def _slope(energy: Callable[[Atoms], float], at: Callable[[float], Atoms]) -> float:
    return sum(weight * energy(at(step)) for step, weight in _POINTS.items())


def _rotation() -> np.ndarray[Any, Any]:
    """Return a rotation in no relation to any axis, after Rodrigues."""
    axis = np.array([0.36, 0.48, 0.8])  # of length 1
    angle = 1.1
    cross = np.cross(np.eye(3), axis)
    rotation: np.ndarray[Any, Any] = (
        np.cos(angle) * np.eye(3)
        - np.sin(angle) * cross
        + (1 - np.cos(angle)) * np.outer(axis, axis)
    )
    return rotation
