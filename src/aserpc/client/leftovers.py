"""The warning about what a structure has and the wire has no form for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from aserpc.errors import LeftOutWarning


def warn_left_out(names: Sequence[str], warned: set[str]) -> None:
    """Warn of what is left out, once for each name in `warned`."""
    for name in names:
        if name not in warned:
            warned.add(name)
            text = f"{name} has no form on the wire: the calculator does not see it"
            warnings.warn(text, LeftOutWarning, stacklevel=4)
