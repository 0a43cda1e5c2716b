"""Results to the last bit, as JSON; needs numpy only, to be used in any environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def bits(results: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return each result's type, dtype, shape and bytes."""
    return {name: _bits(value) for name, value in sorted(results.items())}


def _bits(value: Any) -> list[Any]:
    array = np.asarray(value)
    return [type(value).__name__, str(array.dtype), list(array.shape), array.tobytes().hex()]
