"""A harmonic trap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes


class HarmonicTrap(Calculator):
    r"""Hold every atom to a point with a spring.

    .. math:: E = \tfrac{k}{2} \sum_i |r_i - c|^2

    Parameters
    ----------
    stiffness : float
        :math:`k`, in eV/Å².
    center : sequence of 3 floats
        :math:`c`, in Å.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces"]  # noqa: RUF012
    default_parameters = {"stiffness": 1.0, "center": (0.0, 0.0, 0.0)}  # noqa: RUF012

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill ``results``: energies in eV, forces in eV/Å."""
        super().calculate(atoms, properties, system_changes)
        parameters: Any = self.parameters
        away = self.atoms.positions - np.asarray(parameters.center)
        energies = 0.5 * parameters.stiffness * (away**2).sum(axis=1)
        energy = float(energies.sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies,
            "forces": -parameters.stiffness * away,
        }
