"""Structures of all the kinds that calculators treat differently, of elements that many know."""

from __future__ import annotations

from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.constraints import FixAtoms, FixCartesian

__all__ = ["standard_structures"]


def standard_structures() -> dict[str, Atoms]:
    """Return new structures, none at a minimum of its energy and none with more than 13 atoms.

    Returns
    -------
    dict
        ``molecule``, ``slab`` (periodic in two directions), ``bulk``, ``triclinic``, ``atom``,
        ``charged`` (by initial charges and by ``info["charge"]``), ``magnetic`` (initial magnetic
        moments) and ``constrained``.
    """
    structures = {
        "molecule": molecule("CH3OH"),
        "slab": _slab(),
        "bulk": bulk("Cu", a=3.65, cubic=True),
        "triclinic": _triclinic(),
        "atom": Atoms("O", [(0.1, 0.2, 0.3)]),
        "charged": _charged(),
        "magnetic": _magnetic(),
        "constrained": bulk("Al", cubic=True) * (2, 1, 1),
    }
    for seed, atoms in enumerate(structures.values()):
        atoms.rattle(0.06, seed=seed)
    fixed = [FixAtoms([0, 3]), FixCartesian(5, (True, False, False))]
    structures["constrained"].set_constraint(fixed)
    return structures


def _slab() -> Atoms:
    slab: Atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    add_adsorbate(slab, "O", 1.3, "fcc")
    return slab


def _triclinic() -> Atoms:
    # The elements alternate: results in the order of the elements are not in that of the atoms.
    atoms = Atoms("CuAuCuAu", bulk("Au", a=3.9, cubic=True).positions, pbc=True)
    atoms.set_cell([3.9, 3.9, 3.9])
    atoms.set_cell([(3.9, 0.1, 0.0), (0.5, 3.8, 0.0), (-0.3, 0.4, 4.0)], scale_atoms=True)
    return atoms


def _charged() -> Atoms:
    """Hydroxide, with its charge wherever calculators look for one."""
    atoms = Atoms("OH", [(0.0, 0.0, 0.0), (0.0, 0.6, 0.8)])
    atoms.set_initial_charges([-0.8, -0.2])
    atoms.info.update(charge=-1, spin=1)
    return atoms


def _magnetic() -> Atoms:
    atoms: Atoms = bulk("Ni", cubic=True)
    atoms.set_initial_magnetic_moments([0.6, -0.5, 0.6, 0.4])
    return atoms
