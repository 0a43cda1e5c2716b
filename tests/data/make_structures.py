"""Write the structure files of this folder: ``python tests/data/make_structures.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.constraints import FixAtoms
from ase.io import write
from ase.spacegroup import crystal

FOLDER = Path(__file__).parent

MOLECULES = [
    "H2O", "CH4", "NH3", "CO", "CO2", "O2", "N2", "HF", "HCN", "C2H2",
    "C2H4", "C2H6", "CH3OH", "CH3CH2OH", "H2CO", "HCOOH", "H3CNH2", "OH", "NO", "C6H6",
]  # fmt: skip


def cu_slab() -> Any:
    """Cu(111) with CO on top; the two bottom layers are fixed."""
    slab = fcc111("Cu", size=(2, 2, 4), vacuum=8.0)
    add_adsorbate(slab, Atoms("CO", positions=[(0, 0, 0), (0, 0, 1.15)]), 1.85, "ontop")
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 2))
    del slab.info["adsorbate_info"]  # what add_adsorbate remembers; extxyz has no form for it
    slab.info["name"] = "CO on Cu(111)"
    return slab


def molecules() -> list[Atoms]:
    """Molecules of the G2 set, some with magnetic moments."""
    images = []
    for name in MOLECULES:
        atoms = molecule(name, vacuum=4.0)
        atoms.info["name"] = name
        images.append(atoms)
    return images


def rutile() -> Any:
    """Rutile TiO2, experimental lattice."""
    return crystal(
        ["Ti", "O"],
        basis=[(0, 0, 0), (0.305, 0.305, 0)],
        spacegroup=136,
        cellpar=[4.594, 4.594, 2.959, 90, 90, 90],
    )


def triclinic() -> Atoms:
    """Nine atoms of a Cu-Au alloy in a triclinic cell, with info and arrays of all kinds."""
    rng = np.random.default_rng(2)
    grid = np.array([(i, j, k) for i in range(3) for j in range(3) for k in range(1)], float)
    atoms = Atoms(
        "CuAuCu" * 2 + "AuCuAu",
        scaled_positions=grid / (3, 3, 1) + rng.normal(scale=0.01, size=(9, 3)),
        cell=[7.8, 8.1, 2.9, 80, 95, 112],
        pbc=(True, True, False),
    )
    atoms.info.update(
        name="triclinic CuAu",
        charge=1,
        spin=2.5,
        relaxed=False,
        kpts=np.array([2, 2, 1]),
        strain=rng.normal(scale=0.01, size=(3, 3)),
    )
    atoms.new_array("group", np.arange(9) % 3)
    atoms.new_array("weight", rng.random(9))
    atoms.new_array("label", np.array(list("abcabcabc")))
    atoms.new_array("descriptor", rng.random((9, 9)))
    return atoms


def main() -> None:
    """Write all files."""
    write(FOLDER / "cu111_co.extxyz", cu_slab())
    write(FOLDER / "g2.extxyz", molecules())
    write(FOLDER / "tio2_rutile.cif", rutile())
    write(FOLDER / "cuau_triclinic.extxyz", triclinic())


if __name__ == "__main__":
    main()
