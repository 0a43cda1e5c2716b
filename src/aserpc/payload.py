"""Atoms and results <-> frames.

Atoms travel in two parts, each in the form of `aserpc.encoding`. The key holds all that a result
can depend on::

    [cell (9 doubles), pbc (3 bytes), celldisp (None: zero), arrays, info]

and the rest, absent where there is nothing in it, what a result doesn't depend on::

    [momenta or None, constraints as {name, kwargs}]

``info["key_value_pairs"]`` does not travel: it is what ase.db and genetic algorithms write down of
a structure, scores among it, when its results are known.

Results are a dict.
"""

from __future__ import annotations

import hashlib
import logging
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms

from aserpc.encoding import (
    Buffer,
    attempt,
    encodable,
    key_frames,
    pack,
    pack_mapping,
    unpack,
)
from aserpc.errors import PayloadError, ProtocolError
from aserpc.structures import empty_atoms

__all__ = [
    "RECORDS",
    "Buffer",
    "PackedAtoms",
    "pack_atoms",
    "pack_results",
    "total_size",
    "unpack_atoms",
    "unpack_results",
]

logger = logging.getLogger(__name__)

_NO_DISPLACEMENT = bytes(3 * 8)
#: What of `info` does not travel.
RECORDS = "key_value_pairs"
#: Large frames are compared piecewise, in so many items: two that differ early cost little, and the
#: pieces fit the cache.
_FIRST_PIECE, _PIECE = 1 << 9, 1 << 15


def total_size(frames: Sequence[Buffer]) -> int:
    """Return the bytes in all frames."""
    return sum(len(frame) for frame in frames)


def _own(frames: list[Buffer]) -> list[Buffer]:
    return [frame if type(frame) is bytes else bytes(frame) for frame in frames]


def _equal(one: Buffer, other: Buffer) -> bool:
    if len(one) != len(other):
        return False
    if type(one) is bytes and type(other) is bytes:
        return one == other
    # memoryview's == goes byte by byte.
    kind = np.uint8 if len(one) % 8 else np.uint64
    a, b = np.frombuffer(one, kind), np.frombuffer(other, kind)
    start, size = 0, _FIRST_PIECE
    while start < len(a):
        if (a[start : start + size] != b[start : start + size]).any():
            return False
        start, size = start + size, _PIECE
    return True


@dataclass(frozen=True, slots=True, eq=False)
class PackedAtoms:
    """Atoms in the form in which they travel.

    Attributes
    ----------
    key
        Frames of all that a result can depend on: numbers, positions, cell, pbc, celldisp, tags,
        masses, initial charges and magnetic moments, custom arrays, info.
    rest
        Frames of momenta and constraints; empty if there are none.
    left_out
        What has no form on the wire, as in ``info['spacegroup']``.
    """

    key: list[Buffer]
    rest: list[Buffer]
    left_out: tuple[str, ...] = ()

    def frames(self) -> list[Buffer]:
        """Return all frames, as they are sent."""
        return self.key + self.rest

    @classmethod
    def from_frames(cls, frames: Sequence[Buffer]) -> PackedAtoms:
        """Return what was received; raise `ProtocolError` where frames are missing."""
        count = key_frames(frames)
        return cls(list(frames[:count]), list(frames[count:]))

    def same_key(self, other: PackedAtoms) -> bool:
        """Tell whether the keys are equal in every byte."""
        return len(self.key) == len(other.key) and all(map(_equal, self.key, other.key))

    def owned(self) -> PackedAtoms:
        """Return the same with copies of all that is a view of somebody's array."""
        if len(self.key) == 1 and len(self.rest) <= 1:
            return self  # no large arrays
        return PackedAtoms(_own(self.key), _own(self.rest), self.left_out)

    def digest(self) -> bytes:
        """Return 16 bytes that identify the key."""
        # The first frame gives the sizes of the others.
        digest = hashlib.blake2b(digest_size=16)
        for frame in self.key:
            digest.update(frame)
        return digest.digest()


# ---- Atoms ---------------------------------------------------------------------------------------


def pack_atoms(atoms: Atoms) -> PackedAtoms:
    """Return atoms as frames; large arrays are neither copied nor changed.

    The frames of large arrays are views: see `PackedAtoms.owned`.

    Raises
    ------
    PayloadError
        If positions or numbers have no form on the wire. Anything else that has none is left out
        and named in `PackedAtoms.left_out`. If `atoms` is no structure.
    """
    try:
        arrays: dict[str, Any] = atoms.arrays.copy()
    except AttributeError:
        msg = f"a structure is an ase.Atoms, not {reprlib.repr(atoms)} ({type(atoms).__name__})"
        raise PayloadError(msg) from None
    momenta = arrays.pop("momenta", None)
    left_out: list[str] = []
    count = len(arrays["positions"])
    for name, array in atoms.arrays.items():
        if not isinstance(array, np.ndarray) or array.shape[:1] != (count,):
            _leave_out(name, left_out)
            momenta = None if name == "momenta" else momenta
            arrays.pop(name, None)

    displacement: Any = atoms.get_celldisp()
    if displacement.shape == (3, 1) and displacement.tobytes() == _NO_DISPLACEMENT:
        displacement = None
    head = [atoms.cell.array.astype("<f8", copy=False).tobytes(), atoms.pbc.tobytes(), displacement]
    info = atoms.info
    if RECORDS in info:
        info = {name: value for name, value in info.items() if name != RECORDS}
    key = attempt([*head, arrays, info])
    if key is None:
        arrays, names = encodable(arrays)
        for name in names:
            _leave_out(name, left_out)
        info, names = encodable(info)
        left_out += [f"info[{name!r}]" for name in names]
        key = pack([*head, arrays, info], "atoms")

    constraints = _pack_constraints(atoms, left_out) if atoms.constraints else []
    rest = [] if momenta is None and not constraints else pack([momenta, constraints], "momenta")
    return PackedAtoms(key, rest, tuple(left_out))


def _leave_out(name: str, left_out: list[str]) -> None:
    if name in ("numbers", "positions"):
        msg = f"atoms.arrays[{name!r}] has no form on the wire"
        raise PayloadError(msg)
    left_out.append(f"arrays[{name!r}]")


def _pack_constraints(atoms: Atoms, left_out: list[str]) -> list[Mapping[str, object]]:
    from ase.constraints import FixAtoms
    from ase.constraints import __all__ as known

    forms: list[Mapping[str, object]] = []
    for index, constraint in enumerate(atoms.constraints):
        kind = type(constraint)
        if kind is FixAtoms:
            # todict() makes a list of numbers, slow for the bottom layers of a large slab.
            forms.append({"name": "FixAtoms", "kwargs": {"indices": constraint.get_indices()}})
            continue
        try:
            form = constraint.todict()
            fits = form["name"] in known and attempt(form) is not None
        except Exception:  # noqa: BLE001 - a constraint of the user's can raise anything
            fits = False
        if fits:
            forms.append(form)
        else:
            left_out.append(f"constraint {index} ({kind.__name__})")
    return forms


def unpack_atoms(packed: PackedAtoms) -> Atoms:
    """Return atoms with writable arrays, the large ones in the frames' own memory if they can.

    A constraint that ASE can't make here is dropped with a line in the log.

    Raises
    ------
    ProtocolError
        If the frames are no atoms.
    """
    value = unpack(packed.key)
    if type(value) is not list or len(value) != 5:
        msg = "atoms are [cell, pbc, celldisp, arrays, info]"
        raise ProtocolError(msg)
    cell, pbc, displacement, arrays, info = value
    if type(cell) is not bytes or len(cell) != 72 or type(pbc) is not bytes or len(pbc) != 3:
        msg = "a cell has 9 numbers and a pbc 3 flags"
        raise ProtocolError(msg)
    if displacement is not None:
        _check_array("celldisp", displacement, "f", displacement)
    if type(arrays) is not dict or type(info) is not dict:
        msg = "arrays and info are dicts"
        raise ProtocolError(msg)
    positions = arrays.get("positions")
    if "momenta" in arrays:
        msg = "momenta stand in the rest of atoms"
        raise ProtocolError(msg)
    for name, array in arrays.items():
        _check_array(name, array, "", positions)
    _check_array("numbers", arrays.get("numbers"), "iu", positions, ())
    _check_array("positions", positions, "f", positions, (3,))

    momenta, constraints = _unpack_rest(packed.rest)
    if momenta is not None:
        _check_array("momenta", momenta, "f", positions, (3,))
        arrays["momenta"] = momenta

    atoms = empty_atoms()
    atoms.arrays = arrays
    atoms.info = info
    atoms.cell.array[:] = np.frombuffer(cell, "<f8").reshape(3, 3)
    atoms.pbc[:] = np.frombuffer(pbc, np.uint8)
    if displacement is not None:
        atoms.set_celldisp(displacement)
    if constraints:
        atoms.set_constraint(_make_constraints(constraints))
    return atoms


def _check_array(
    name: object, array: object, kinds: str, like: Any, tail: tuple[int, ...] | None = None
) -> None:
    """Check that an array has the rows of another, a kind of dtype and the rest of its shape."""
    if (
        type(name) is not str
        or not isinstance(array, np.ndarray)
        or not isinstance(like, np.ndarray)
        or not array.ndim
        or array.shape[:1] != like.shape[:1]
        or (kinds and array.dtype.kind not in kinds)
        or (tail is not None and array.shape[1:] != tail)
    ):
        msg = f"{str(name)[:80]!r} is no array that fits the atoms"
        raise ProtocolError(msg)


def _unpack_rest(frames: Sequence[Buffer]) -> tuple[object, list[Any]]:
    if not frames:
        return None, []
    value = unpack(frames)
    if type(value) is not list or len(value) != 2 or type(value[1]) is not list:
        msg = "the rest of atoms is [momenta, constraints]"
        raise ProtocolError(msg)
    return value[0], value[1]


def _make_constraints(forms: list[Any]) -> list[Any]:
    from ase.constraints import FixConstraint, dict2constraint

    constraints = []
    for form in forms:
        # dict2constraint takes the names that ase.constraints exports; one is a function.
        try:
            constraint = dict2constraint(form)
            reason = "" if isinstance(constraint, FixConstraint) else "no constraint"
        except Exception as error:  # noqa: BLE001 - what a peer asks for can raise anything
            reason = f"{type(error).__name__}: {error}"
        if reason:
            name = form.get("name") if isinstance(form, dict) else form
            _log_dropped(str(name)[:80], reason[:200])
        else:
            constraints.append(constraint)
    return constraints


@lru_cache(maxsize=64)
def _log_dropped(name: str, reason: str) -> None:
    # Cached: once for each, not once a step of a trajectory.
    logger.warning("dropped the constraint %r, which can't be made here: %r", name, reason)


# ---- results -------------------------------------------------------------------------------------


def pack_results(results: Mapping[str, object]) -> tuple[list[Buffer], tuple[str, ...]]:
    """Return the frames of results, and the keys of those that have no form on the wire.

    Arrays are copied: many calculators compute the next result in the same buffer. An array of
    another library (jax, torch) becomes numpy's.
    """
    plain: dict[str, object] = {}
    other_keys: list[str] = []
    for key, value in results.items():
        if not isinstance(key, str):
            other_keys.append(repr(key))
        else:
            plain[key] = _to_numpy(value)
    frames, left_out = pack_mapping(plain)
    return _own(frames), (*left_out, *other_keys)


def _to_numpy(value: Any) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value
    try:
        return np.asarray(value) if hasattr(value, "__array__") else value
    except Exception:  # noqa: BLE001 - another library's; the entry is then left out
        return value


def unpack_results(frames: Sequence[Buffer]) -> dict[str, Any]:
    """Return results, with writable arrays; raise `ProtocolError` if the frames are none."""
    results = unpack(frames)
    if type(results) is not dict or {*map(type, results)} - {str}:
        msg = "results are a dict with names as keys"
        raise ProtocolError(msg)
    return results
