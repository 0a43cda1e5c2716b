"""Calls an ASE calculator as ASE itself would, and never gives a result of another system."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    BaseCalculator,
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)

from aserpc.encoding import pack_mapping
from aserpc.messages import Buffer
from aserpc.payload import PackedAtoms, unpack_atoms
from aserpc.structures import copy_atoms

#: Those of `all_changes` that are arrays of the atoms.
_ARRAYS = ("positions", "numbers", "initial_charges", "initial_magmoms")

#: Below this size, in bytes, comparing copies is faster than anything of numpy.
_SMALL = 4096

#: Arrays that ASE's `compare_atoms` looks at, and those that no result depends on.
_COMPARED = frozenset({"positions", "numbers", "initial_charges", "initial_magmoms", "momenta"})


class Evaluation:
    """A calculator and the system that its results belong to.

    Parameters
    ----------
    calculator
        An ASE calculator: a `BaseCalculator`, or anything with its ``get_property``.
    """

    def __init__(self, calculator: Any) -> None:
        self.calculator = calculator
        names = getattr(calculator, "implemented_properties", None)
        #: Names of the properties that can be asked for; None where the calculator does not say.
        self.implemented_properties = None if names is None else list(names)
        # A calculator with a get_property of its own must be asked by it.
        found = inspect.getattr_static(type(calculator), "get_property", None)
        self._has_own_way = found is not inspect.getattr_static(BaseCalculator, "get_property")
        found = inspect.getattr_static(type(calculator), "check_state", None)
        self._compares_as_ase = found is inspect.getattr_static(Calculator, "check_state")
        self._packed: PackedAtoms | None = None
        self._rest: list[Buffer] = []

    def evaluate(self, packed: PackedAtoms, properties: Sequence[str]) -> dict[str, Any]:
        """Return everything that the calculator produces for a system.

        Parameters
        ----------
        packed
            The system.
        properties
            ASE properties that must be among the results.

        Raises
        ------
        ProtocolError
            If the system can't be unpacked.
        Exception
            Whatever the calculator raises.
        """
        self.check(properties)
        same = self._packed is not None and packed.same_key(self._packed)
        atoms = unpack_atoms(packed)
        try:
            results = self._evaluate(atoms, list(properties), same=same)
        except BaseException:
            self.forget()
            raise
        self._packed = packed
        return results

    def _evaluate(self, atoms: Atoms, properties: list[str], *, same: bool) -> dict[str, Any]:
        calculator = self.calculator
        rest = self._rest if same else _beyond_ase(atoms)
        if rest != self._rest:
            # ASE would not notice the change, and might give the results of the last system.
            self._reset()
        self._rest = rest
        if self._has_own_way:
            asked = {name: calculator.get_property(name, atoms) for name in properties}
            return {**getattr(calculator, "results", {}), **asked}

        changes = [] if same else self._changes(atoms)
        missing = [name for name in properties if name not in calculator.results]
        if changes or missing:
            if getattr(calculator, "use_cache", True):
                calculator.atoms = copy_atoms(atoms)
            calculator.calculate(atoms, properties, changes)
        for name in properties:
            if name not in calculator.results:
                raise PropertyNotImplementedError(f"{name} not present in this calculation")
        return dict(calculator.results)

    def _changes(self, atoms: Atoms) -> list[str]:
        """Do as ASE's `get_property` does before it calculates another system."""
        calculator = self.calculator
        if self._compares_as_ase:
            ignored = getattr(calculator, "ignored_changes", ())
            changes = _changes_between(calculator.atoms, atoms, ignored)
        else:
            changes = list(calculator.check_state(atoms))
        if not changes:
            changes = list(all_changes)
        calculator.atoms = None
        calculator.results = {}
        return changes

    def _reset(self) -> None:
        calculator = self.calculator
        if hasattr(calculator, "reset"):
            calculator.reset()
        elif hasattr(calculator, "results"):
            calculator.atoms, calculator.results = None, {}

    def check(self, properties: Sequence[str]) -> None:
        """Refuse properties that the calculator does not have."""
        for name in properties:
            if self.implemented_properties is not None and name not in self.implemented_properties:
                raise PropertyNotImplementedError(f"{name} property not implemented")

    def forget(self) -> None:
        """Keep nothing of a calculation that failed, or that was of several systems."""
        self._packed = None
        with contextlib.suppress(Exception):
            self._reset()


def _changes_between(before: Atoms | None, after: Atoms, ignored: Container[str]) -> list[str]:
    """Return what ASE's `compare_atoms` would, in a tenth of its time.

    That is most of the time of a small call. ASE takes differences below 1e-15 for none; here every
    bit counts.
    """
    if before is None:
        return list(all_changes)
    changes = [
        name
        for name, one, other in (
            ("cell", before.cell.array, after.cell.array),
            ("pbc", before.pbc, after.pbc),
        )
        if name not in ignored and not _are_same(one, other)
    ]
    for name in _ARRAYS:
        one, other = before.arrays.get(name), after.arrays.get(name)
        if one is other or name in ignored:  # neither has it, as a rule
            continue
        if one is None or other is None or not _are_same(one, other):
            changes.append(name)
    return changes


def _are_same(one: Any, other: Any) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.nbytes > _SMALL:
        return np.array_equal(one, other)
    return bool(one.tobytes() == other.tobytes())


def _beyond_ase(atoms: Atoms) -> list[Buffer]:
    """Return what a result may depend on and `compare_atoms` does not see."""
    arrays = {name: array for name, array in atoms.arrays.items() if name not in _COMPARED}
    displacement = atoms.get_celldisp()
    if not (arrays or atoms.info or displacement.tobytes().strip(b"\0")):
        return []  # as a rule
    frames, _ = pack_mapping({"arrays": arrays, "info": atoms.info, "celldisp": displacement})
    return [bytes(frame) for frame in frames]
