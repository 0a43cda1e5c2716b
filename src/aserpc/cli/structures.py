"""The structures of ``aserpc run``: where they are from, and what has become of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aserpc.client.windows import attach
from aserpc.errors import SettingsError


@dataclass
class Structure:
    """A structure, where it is from and what has become of it."""

    file: Path
    number: int
    atoms: Atoms
    #: None: not done yet; empty: it went well.
    error: str | None = None
    converged: bool | None = None
    steps: int = 0
    seconds: float = 0.0
    energy: float | None = None
    max_force: float | None = None
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"{self.file}@{self.number}"

    @property
    def formula(self) -> str:
        """Its chemical formula."""
        return str(self.atoms.get_chemical_formula())

    def done(self, calculator: str, results: dict[str, Any]) -> None:
        """Take its results."""
        standard = attach(self.atoms, results, calculator).calc.results
        self.error = ""
        if "energy" in standard:
            self.energy = float(standard["energy"])
        if "forces" in standard and len(self.atoms):
            forces = self.atoms.get_forces()  # with the constraints applied
            self.max_force = float(np.linalg.norm(forces, axis=1).max())


def read_structures(files: list[Path], index: str) -> list[Structure]:
    """Read all structures of the files."""
    structures: list[Structure] = []
    for file in files:
        try:
            numbers, images = _read(file, index)
        except FileNotFoundError:
            raise SettingsError(f"there is no file {file}") from None
        except Exception as error:  # noqa: BLE001 -- ASE's readers raise what they like
            what = f"{type(error).__name__}: {error}"
            raise SettingsError(f"cannot read {index!r} of {file}: {what}") from None
        if not images:
            raise SettingsError(f"{file} has no structures at index {index!r}")
        structures += map(Structure, itertools.repeat(file), numbers, images)
    return structures


def _read(file: Path, index: str) -> tuple[Iterable[int], list[Atoms]]:
    """Return structures of a file and their numbers there."""
    from ase.io import read
    from ase.utils import string2index

    def images(index: str | slice) -> list[Atoms]:
        found = read(file, index=index)
        return found if isinstance(found, list) else [found]

    chosen = string2index(index)
    if isinstance(chosen, int):
        chosen = slice(chosen, chosen + 1 or None)
    if isinstance(chosen, str):  # a query of a database
        return itertools.count(), images(chosen)
    start, step = chosen.start or 0, chosen.step or 1
    if min(start, chosen.stop or 0, step) < 0:  # counted from the end
        every = images(":")
        return range(len(every))[chosen], every[chosen]
    return itertools.count(start, step), images(chosen)


def check_output(path: Path, number: int, files: Iterable[Path]) -> None:
    """See that the results can be written, before they are computed, and over no input."""
    from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

    if path.exists() and any(path.samefile(file) for file in files):
        # What fails, or is not come to before Ctrl-C, would be lost.
        raise SettingsError(f"the output {path} is one of the inputs, which it would overwrite")
    try:
        ioformat = get_ioformat(filetype(path, read=False))
    except UnknownFileTypeError:
        raise SettingsError(f"{path} has no ending that ASE knows, such as .extxyz") from None
    if not ioformat.can_write:
        raise SettingsError(f"ASE reads the format of {path} ({ioformat.name}), but can't write it")
    if ioformat.single and number > 1:
        raise SettingsError(
            f"the format of {path} ({ioformat.name}) holds one structure, and there are {number}; "
            "use .extxyz or .traj"
        )
    if not path.parent.is_dir():
        raise SettingsError(f"the folder of {path} does not exist")
