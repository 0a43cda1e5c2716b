"""Hessians, vibrations and phonons: forces of displaced structures, by ASE's own formulas."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from ase import Atoms

from aserpc.client import Client, Results
from aserpc.client.arguments import positive
from aserpc.parallel.asking import Asking, Window, asking
from aserpc.parallel.symmetric import Symmetric

if TYPE_CHECKING:
    from ase.phonons import Phonons
    from ase.vibrations import Vibrations, VibrationsData

METHODS = ("standard", "frederiksen")
DISPLACEMENTS = ("ase", "phonopy")
DIRECTIONS = ("central", "forward", "backward")

#: What `Phonons.read` takes; it drops other words without one.
READ = ("method", "symmetrize", "acoustic", "cutoff", "born", "neutrality")


class Cache(Protocol):
    """Where ASE keeps the forces of displacements: its folder of JSON files, or `Memory`."""

    def __contains__(self, key: object) -> bool: ...
    def __getitem__(self, key: str) -> Any: ...
    def lock(self, key: str) -> contextlib.AbstractContextManager[Any]:
        """Give a handle with ``save(value)``, or None where the key is there."""
        ...


class Handle:
    """Where a value goes."""

    def __init__(self, values: dict[str, Any], key: str) -> None:
        self._values, self._key = values, key

    def save(self, value: Any) -> None:
        """Keep a value."""
        self._values[self._key] = value


class Memory:
    """Stands for ASE's folder of JSON files."""

    writable = True
    directory = Path()

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return deepcopy(self._values[key])  # ASE changes what it has read

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[Handle | None]:
        """Give a handle with ``save(value)``, or None where the key is there."""
        yield None if key in self else Handle(self._values, key)


class _Forces(Window[str]):
    """Asks for the forces of displacements, those that the cache has not yet."""

    def __init__(self, asked: Asking, cache: Cache) -> None:
        super().__init__(asked, ["forces"], self._save)
        self.cache = cache

    def put(self, key: str, atoms: Atoms) -> None:
        """See `Window.put`."""
        if key not in self.cache:
            super().put(key, atoms)

    def _save(self, key: str, results: Results) -> None:
        with self.cache.lock(key) as handle:
            if handle is not None:
                handle.save({"forces": results["forces"]})


def hessian(
    atoms: Atoms,
    calculator: str | None = None,
    *,
    client: Client | None = None,
    indices: Sequence[int] | None = None,
    delta: float = 0.01,
    nfree: int = 2,
    method: str = "standard",
    direction: str = "central",
    name: str | Path | None = None,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Compute the second derivatives of the energy, the displacements in parallel.

    Parameters
    ----------
    atoms : ase.Atoms
        The structure, at a minimum; it is not changed.
    calculator : str, optional
        Name of the calculator; that of the structure's `RemoteCalculator` by default.
    client : Client, optional
        Asks the service; by default one is made from the settings.
    indices : sequence of int, optional
        Which atoms are displaced; by default those that no `FixAtoms` holds.
    delta : float
        Length of a displacement, Å.
    nfree : int
        Displacements in each direction, 2 or 4.
    method : str
        ``"standard"`` or ``"frederiksen"``, see `ase.vibrations.Vibrations`.
    direction : str
        ``"central"``, ``"forward"`` or ``"backward"`` differences.
    name : str, optional
        Folder where ASE's `Vibrations` keeps forces: those that are there are not computed again.

    Returns
    -------
    numpy.ndarray
        Of shape (n, 3, n, 3), in eV/Å², of the n displaced atoms.

    Raises
    ------
    ValueError
        If there is nothing to displace, or a parameter is not one of those above.
    """
    found = vibrations(
        atoms,
        calculator,
        client=client,
        indices=indices,
        delta=delta,
        nfree=nfree,
        method=method,
        direction=direction,
        name=name,
    )
    return np.asarray(found.get_hessian())


def vibrations(
    atoms: Atoms,
    calculator: str | None = None,
    *,
    client: Client | None = None,
    indices: Sequence[int] | None = None,
    delta: float = 0.01,
    nfree: int = 2,
    method: str = "standard",
    direction: str = "central",
    name: str | Path | None = None,
) -> VibrationsData:
    """Compute vibrations, the displacements in parallel.

    The parameters are those of `hessian`. The formulas are those of `ase.vibrations.Vibrations`,
    and so are the numbers.

    Returns
    -------
    ase.vibrations.VibrationsData
        With ``get_energies()`` in eV, ``get_frequencies()`` in cm⁻¹, ``get_modes()`` and
        ``get_zero_point_energy()``; the energies are what `ase.thermochemistry` takes.
    """
    one_of("method", method, METHODS)
    one_of("direction", direction, DIRECTIONS)
    if nfree not in (2, 4):
        raise ValueError(f"nfree is 2 or 4, not {nfree!r}")
    with asking([atoms], calculator, client) as asked:
        vib = _vibrations(atoms, _checked(indices, len(atoms)), delta, nfree, name)
        if not len(vib.indices):
            raise ValueError("there are no atoms to displace")
        forces = _Forces(asked, vib.cache)
        for displacement, displaced in vib.iterdisplace(inplace=True):
            # The structure itself is needed for one-sided differences only.
            if displacement.sign or direction != "central":
                forces.put(displacement.name, displaced)
        forces.finish()
    vib.read(method, direction)
    found: VibrationsData = vib.get_vibrations(method, direction, read_cache=False)
    return found


def _vibrations(
    atoms: Atoms, indices: list[int] | None, delta: float, nfree: int, name: str | Path | None
) -> Vibrations:
    from ase.vibrations import Vibrations

    vib = Vibrations(
        atoms.copy(),
        indices,
        name="vib" if name is None else str(name),
        delta=positive("delta", delta),
        nfree=nfree,
    )
    if name is None:
        vib.cache = Memory()
    return vib


def phonons(
    atoms: Atoms,
    calculator: str | None = None,
    *,
    supercell: Sequence[int],
    client: Client | None = None,
    delta: float = 0.01,
    center_refcell: bool = False,
    displacements: str = "ase",
    name: str | Path | None = None,
    **read: Any,
) -> Phonons:
    """Compute phonons by finite displacements in a supercell, in parallel.

    Parameters
    ----------
    atoms : ase.Atoms
        The unit cell, at a minimum; it is not changed.
    calculator : str, optional
        Name of the calculator; that of the structure's `RemoteCalculator` by default.
    supercell : sequence of int
        Repetitions of the cell in its three directions.
    client : Client, optional
        Asks the service; by default one is made from the settings.
    delta : float
        Length of a displacement, Å.
    center_refcell : bool
        Displace the atoms of the cell in the supercell's centre, not of that in its corner.
    displacements : str
        ``"ase"`` for six of each atom, as `ase.phonons.Phonons` makes them, or ``"phonopy"`` for
        those that phonopy finds to be needed by symmetry, which are fewer; for this it must be
        installed. Symmetry is that of elements, masses, positions and initial magnetic moments.
    name : str, optional
        Folder where ASE's `Phonons` keeps forces: those that are there are not computed again.
        Not for phonopy's displacements.
    **read
        For ``Phonons.read``: ``method``, ``symmetrize``, ``acoustic``, ``cutoff``.

    Returns
    -------
    ase.phonons.Phonons
        Which has read the forces: ``get_band_structure``, ``get_dos`` and the rest work.
        ``read`` can be called again. With phonopy's displacements its attribute ``phonopy`` is the
        `phonopy.Phonopy`, with forces and force constants.
    """
    from ase.phonons import Phonons

    one_of("displacements", displacements, DISPLACEMENTS)
    for option in read:
        if option not in READ:
            raise TypeError(f"an option of aserpc.parallel.phonons, {option!r}, is unknown")
    one_of("method", str(read.get("method", METHODS[0])).lower(), METHODS)
    if displacements == "phonopy" and name is not None:
        raise ValueError("name is a folder of ASE's, which holds ASE's displacements only")
    cells = supercell_size(supercell)
    options = {"supercell": cells, "delta": positive("delta", delta)}
    options["center_refcell"] = center_refcell
    with asking([atoms], calculator, client) as asked:
        plain: Any = Phonons(atoms.copy(), name="phonon" if name is None else str(name), **options)
        if name is None:
            plain.cache = Memory()
        if displacements == "phonopy":
            _ask_by_symmetry(plain, asked)
        else:
            _ask_as_ase(plain, asked, options)
    plain.read(**read)
    found: Phonons = plain
    return found


def _ask_as_ase(phonons: Any, asked: Asking, options: dict[str, Any]) -> None:
    """Fill the cache with the forces of ASE's displacements."""
    from ase.phonons import Phonons

    forces = _Forces(asked, phonons.cache)

    class Displaced(Phonons):
        """ASE's loop over the displacements; what it would compute is asked for."""

        def calculate(self, atoms_N: Atoms, disp: Any) -> dict[str, Any]:  # noqa: N803
            forces.put(disp.name, atoms_N)
            return {}

    # `run` wants to see a calculator, and asks it nothing.
    loop: Any = Displaced(phonons.atoms, object(), **options)  # type: ignore[no-untyped-call]
    loop.cache = Memory()
    loop.run()
    forces.finish()


def _ask_by_symmetry(phonons: Any, asked: Asking) -> None:
    """Fill the cache with what ASE's displacements would cause, by force constants of phonopy's."""
    symmetric = Symmetric(phonons.atoms, phonons.supercell, phonons.delta)
    forces = _Forces(asked, Memory())
    symmetric.ask(forces.put)
    forces.finish()
    constants = symmetric.force_constants(lambda key: forces.cache[key]["forces"])
    first = len(phonons.atoms) * phonons.offset
    for atom in phonons.indices:
        for axis, letter in enumerate("xyz"):
            for sign, mark in ((1, "+"), (-1, "-")):
                with phonons.cache.lock(f"{atom}{letter}{mark}") as handle:
                    change = sign * phonons.delta * constants[first + atom, :, axis]
                    handle.save({"forces": -change})
    phonons.phonopy = symmetric.phonopy


def one_of(name: str, value: Any, known: Sequence[str]) -> None:
    """Raise ValueError unless a value is one of those that are known."""
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(map(repr, known))}, not {value!r}")


def supercell_size(supercell: Any) -> tuple[int, int, int]:
    """Return repetitions of a cell; raise ValueError for what is none."""
    cells = np.asarray(supercell)
    if cells.shape != (3,) or cells.dtype.kind not in "iu" or (cells < 1).any():
        raise ValueError(f"supercell is three numbers from 1, not {supercell!r}")
    return int(cells[0]), int(cells[1]), int(cells[2])


def _checked(indices: Sequence[int] | None, size: int) -> list[int] | None:
    if indices is None:
        return None
    numbers = [int(index) for index in indices]
    if not all(-size <= number < size for number in numbers):
        raise ValueError(f"indices are of a structure with {size} atoms, not {numbers}")
    return [number % size for number in numbers]
