"""Equations of state and strains: structures in cells of other shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from aserpc.client import Client
from aserpc.client.arguments import number_from
from aserpc.parallel.asking import ask_all, asking, with_results

if TYPE_CHECKING:
    from ase.eos import EquationOfState

#: The components of a strain, in Voigt's order; those off the diagonal count twice there.
VOIGT = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}


def eos(
    atoms: Atoms,
    calculator: str | None = None,
    *,
    client: Client | None = None,
    npoints: int = 5,
    eps: float = 0.04,
    equation: str = "sj",
) -> EquationOfState:
    """Compute an equation of state, the volumes in parallel.

    Parameters
    ----------
    atoms : ase.Atoms
        The crystal; it is not changed.
    calculator : str, optional
        Name of the calculator; that of the structure's `RemoteCalculator` by default.
    client : Client, optional
        Asks the service; by default one is made from the settings.
    npoints : int
        Number of volumes.
    eps : float
        The volumes go from 1 - eps to 1 + eps times that of `atoms`.
    equation : str
        ASE's name of the equation to fit, such as ``"birchmurnaghan"``.

    Returns
    -------
    ase.eos.EquationOfState
        ``fit()`` returns volume (Å³), energy (eV) and bulk modulus (eV/Å³) at the minimum.
    """
    import ase.eos

    if equation not in (*ase.eos.eos_names, "sjeos", "antonschmidt"):
        raise ValueError(f"equation is one of ase.eos.EquationOfState, not {equation!r}")
    npoints = number_from(4, "npoints", npoints)  # as many as are fitted
    if not 0 < eps < 1:
        raise ValueError(f"eps is between 0 and 1, not {eps!r}")
    with asking([atoms], calculator, client) as asked:
        _check_volume(atoms)
        volumes: list[float] = []
        scaled = _scaled(atoms, np.linspace(1 - eps, 1 + eps, npoints) ** (1 / 3), volumes)
        energies = [results["energy"] for results in ask_all(asked, scaled, ["energy"])]
    return ase.eos.EquationOfState(volumes, energies, eos=equation)


def strain(
    atoms: Atoms,
    strains: Any,
    calculator: str | None = None,
    *,
    client: Client | None = None,
    component: str | None = None,
    properties: Sequence[str] = ("energy", "stress"),
) -> list[Atoms]:
    """Compute a structure under strains, in parallel.

    Parameters
    ----------
    atoms : ase.Atoms
        The crystal; it is not changed.
    strains : array_like
        ε for each structure: six numbers in Voigt's order xx, yy, zz, yz, xz, xy, of which the
        last three count twice (2 ε_yz), or a tensor of shape (3, 3), or with `component` a number.
    calculator : str, optional
        Name of the calculator; that of the structure's `RemoteCalculator` by default.
    client : Client, optional
        Asks the service; by default one is made from the settings.
    component : str, optional
        Which component of the tensor `strains` are the values of: ``"xx"``, ..., ``"xy"``, or
        ``"volume"`` for the same in all three directions.
    properties : sequence of str
        What to compute.

    Returns
    -------
    list of ase.Atoms
        In the order of `strains`, each in the cell (1 + ε) a with its atoms where they were in
        the cell, and with its results.

    Raises
    ------
    ValueError
        If strains have another shape, or turn the cell inside out.
    """
    tensors = _tensors(strains, component)
    with asking([atoms], calculator, client) as asked:
        _check_volume(atoms)
        strained = [_in_cell(atoms, atoms.get_cell() @ (np.eye(3) + one)) for one in tensors]
        results = ask_all(asked, strained, properties)
    for one, found in zip(strained, results, strict=True):
        with_results(one, asked.name, found)
    return strained


def _scaled(atoms: Atoms, lengths: Iterable[float], volumes: list[float]) -> Iterator[Atoms]:
    """Yield one structure in cells of several sizes, one after the other, as ASE does."""
    changed = atoms.copy()
    for length in lengths:
        changed.set_cell(length * atoms.get_cell(), scale_atoms=True)
        volumes.append(changed.get_volume())
        yield changed


def _check_volume(atoms: Atoms) -> None:
    if atoms.cell.rank < 3:
        raise ValueError(f"{atoms.get_chemical_formula()!r} has no cell with a volume")


def _in_cell(atoms: Atoms, cell: Any) -> Atoms:
    changed: Atoms = atoms.copy()
    changed.set_cell(cell, scale_atoms=True)
    return changed


def _tensors(strains: Any, component: str | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.asarray(strains, dtype=float)
    if component is None:
        if values.ndim == 2 and values.shape[1] == 6:
            tensors = np.zeros((len(values), 3, 3))
            for number, (i, j) in enumerate(VOIGT.values()):
                tensors[:, i, j] += values[:, number] / 2
                tensors[:, j, i] += values[:, number] / 2
        elif values.ndim == 3 and values.shape[1:] == (3, 3):
            tensors = values
        else:
            raise ValueError(
                f"strains have the shape (n, 6) or (n, 3, 3), not {values.shape}; or give component"
            )
    elif component != "volume" and component not in VOIGT:
        raise ValueError(f"component is one of {', '.join(VOIGT)}, volume, not {component!r}")
    elif values.ndim != 1:
        raise ValueError(f"strains of one component are a list of numbers, not {strains!r}")
    else:
        base = np.zeros((3, 3))
        for i, j in VOIGT.values() if component == "volume" else [VOIGT[component]]:
            base[i, j] = base[j, i] = 1.0 if component != "volume" else float(i == j)
        tensors = values[:, None, None] * base
    if not len(tensors):
        raise ValueError("there are no strains")
    if not (np.isfinite(tensors).all() and (np.linalg.det(np.eye(3) + tensors) > 0).all()):
        raise ValueError("a strain leaves the cell no volume, or turns it inside out")
    return tensors
