"""Displacements that phonopy finds by symmetry, and the force constants that it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from ase import Atoms

#: How far two positions of one atom may lie apart, in cells of the supercell.
SAME = 1e-4


class Symmetric:
    """The displacements of a supercell's atoms that are not the same by symmetry.

    Parameters
    ----------
    atoms
        The unit cell.
    cells
        Repetitions of the cell in its three directions.
    delta
        Length of a displacement, Å.

    Raises
    ------
    ModuleNotFoundError
        If phonopy is not installed.
    """

    def __init__(self, atoms: Atoms, cells: tuple[int, int, int], delta: float) -> None:
        if find_spec("phonopy") is None:
            raise ModuleNotFoundError(
                "displacements='phonopy' needs phonopy, which is not installed here: "
                "pip install phonopy",
                name="phonopy",
            )
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms

        magmoms = atoms.get_initial_magnetic_moments()
        unit = PhonopyAtoms(
            symbols=atoms.get_chemical_symbols(),
            cell=atoms.cell.array,
            scaled_positions=atoms.get_scaled_positions(wrap=False),
            masses=atoms.get_masses(),
            magnetic_moments=magmoms if magmoms.any() else None,
        )
        self.phonopy: Any = Phonopy(
            unit, supercell_matrix=np.diag(cells), primitive_matrix=np.eye(3), log_level=0
        )
        self.phonopy.generate_displacements(distance=delta)
        self.supercell: Atoms = atoms * cells
        #: Of each atom of phonopy's supercell, its place in ASE's.
        self._places = _places(self.phonopy.supercell.scaled_positions, self.supercell)

    def ask(self, put: Callable[[str, Atoms], None]) -> None:
        """Call a function with a key and a structure for each displacement."""
        for number, first in enumerate(self.phonopy.dataset["first_atoms"]):
            displaced = self.supercell.copy()
            displaced.positions[self._places[first["number"]]] += first["displacement"]
            put(str(number), displaced)

    def force_constants(self, forces: Callable[[str], Any]) -> Any:
        """Return d²E of shape (n, n, 3, 3) in eV/Å², in ASE's order, from each key's forces."""
        number = len(self.phonopy.dataset["first_atoms"])
        self.phonopy.forces = np.array([forces(str(key))[self._places] for key in range(number)])
        self.phonopy.produce_force_constants(calculate_full_force_constants=True)
        there = np.argsort(self._places)
        return np.asarray(self.phonopy.force_constants)[np.ix_(there, there)]


def _places(positions: Any, supercell: Atoms) -> Any:
    """Return of each scaled position the atom that is there."""
    ours = supercell.get_scaled_positions(wrap=False)
    away = np.asarray(positions)[:, None] - ours[None]
    distances = np.abs(away - np.round(away)).max(axis=2)
    places = distances.argmin(axis=1)
    assert len({*places.tolist()}) == len(supercell)
    assert distances.min(axis=1).max() < SAME
    return places
