"""The warning about what a structure has and the wire has no form for."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import ase

import aserpc
from aserpc.errors import LeftOutWarning

# Lines of these are not the user's.
_LIBRARIES = tuple(f"{Path(str(module.__file__)).parent}/" for module in (aserpc, ase))


def warn_left_out(names: Sequence[str], warned: set[str]) -> None:
    """Warn of what is left out, once for each name in `warned`."""
    for name in names:
        if name not in warned:
            warned.add(name)
            text = f"{name} has no form on the wire: the calculator does not see it"
            warnings.warn(text, LeftOutWarning, stacklevel=_level_of_user())


def _level_of_user() -> int:
    """Return the stacklevel, for who calls this, of the line that called ASE or us."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        level, frame = level + 1, frame.f_back
    return level
