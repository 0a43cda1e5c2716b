"""What a worker says of itself and its calculator; clients see it as `calc.provenance`."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import msgpack

from aserpc.registry import CalculatorEntry


def pack_about(
    entry: CalculatorEntry, implemented_properties: list[str] | None, identity: dict[str, Any]
) -> bytes:
    """Return the description as a msgpack map, see `Ready.about`."""
    about = {
        **entry.describe(),
        "versions": entry.versions(),
        "implemented_properties": implemented_properties,
        "python": platform.python_version(),
        **identity,
    }
    packed: bytes = msgpack.packb(_plain(about))
    return packed


def _plain(value: Any) -> Any:
    """Return `value` in plain words: arguments can be objects, which are only shown."""
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return repr(value)[:500]
