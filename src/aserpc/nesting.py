"""How deep a value from a peer may nest."""

from __future__ import annotations

from typing import Any

from aserpc.errors import ProtocolError

#: How deep lists and maps may nest. msgpack unpacks 1024 levels, but packs fewer, and Python
#: compares and shows fewer.
MAX_DEPTH = 64


def check_depth(value: Any) -> None:
    """Raise `ProtocolError` if lists and maps nest deeper than `MAX_DEPTH`."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for item in level
            if isinstance(item, list | dict)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    msg = f"a value that nests deeper than {MAX_DEPTH} levels"
    raise ProtocolError(msg)
