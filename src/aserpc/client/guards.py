"""Numbers that are not finite: stopped on their way to a calculator, and on their way back.

NaN in positions is a mistake in a script, NaN in forces a failure of a model; both are found where
they come up, not in what is made of them later. `info`, momenta, charges and all other arrays of a
structure are left alone: there NaN may well mean "not known".
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from aserpc.errors import NonFiniteError, ProtocolError
from aserpc.payload import PackedAtoms, unpack_atoms

#: Results for each volume; a calculator may well divide by one that is not there.
_PER_VOLUME = frozenset({"stress", "stresses"})

_NUMPY = (np.ndarray, np.generic)


def is_finite(value: Any) -> bool:
    """Whether a number or all numbers of an array are finite; what holds none is."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, _NUMPY) and value.dtype.kind in "fc":
        return b"\0" not in np.isfinite(value).tobytes()  # faster than all()
    return cmath.isfinite(value) if isinstance(value, complex) else True


def check_system(atoms: Atoms) -> None:
    """Raise `NonFiniteError` if positions or cell of a structure are not finite."""
    positions, cell = atoms.arrays["positions"], atoms.cell.array
    if is_finite(positions) and is_finite(cell):
        return
    found = []
    if not is_finite(positions):
        rows = [row for row, position in enumerate(positions) if not is_finite(position)]
        more = f" (and {len(rows) - 1} more atoms)" if len(rows) > 1 else ""
        found.append(f"atoms.positions[{rows[0]}] is {positions[rows[0]].tolist()}{more}")
    if not is_finite(cell):
        found.append(f"atoms.cell is {cell.tolist()}")
    raise NonFiniteError(
        f"{', '.join(found)}: not finite, so no calculator is asked. allow_nonfinite=True asks it "
        "all the same"
    )


def check_complete(results: dict[str, Any], calculator: str, asked: Sequence[str]) -> None:
    """Raise `ProtocolError` if something is missing: no worker of ours answers so."""
    missing = [name for name in asked if name not in results]
    if missing:
        raise ProtocolError(f"the answer of {calculator!r} lacks {', '.join(missing)}")


def check_results(
    results: dict[str, Any], calculator: str, asked: Sequence[str], packed: PackedAtoms
) -> None:
    """Raise `NonFiniteError` if results, asked for or not, are not finite.

    The stress of a system without a volume is undefined. Nobody who did not ask for it needs to
    hear of that: it is taken out of `results`.
    """
    odd = [name for name, value in results.items() if not is_finite(value)]
    undefined = [name for name in odd if name in _PER_VOLUME and name not in asked]
    if undefined and unpack_atoms(packed).cell.rank < 3:
        for name in undefined:
            del results[name]
            odd.remove(name)
    if odd:
        told = ", ".join(f"{name} ({_describe(results[name])})" for name in odd)
        raise NonFiniteError(
            f"{calculator!r} returned what is not finite: {told}. allow_nonfinite=True takes it "
            "all the same"
        )


def _describe(value: Any) -> str:
    if np.ndim(value) == 0:
        return str(value)
    places = np.argwhere(~np.isfinite(value))
    return f"{len(places)} of {value.size} numbers, the first at {places[0].tolist()}"
