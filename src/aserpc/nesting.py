"""How much a packed value from a peer may hold: told before memory is taken for it."""

from __future__ import annotations

from typing import Any

import msgpack

from aserpc.errors import ProtocolError

#: How many values may be packed together, those in lists and maps each for itself. A byte can
#: stand for an empty map of 64 bytes, so a frame alone does not bound what is made of it.
MAX_VALUES = 1 << 22

#: What no claim in it can make large: msgpack takes up to 8 bytes for each of these, 1024 times.
SHORT = 1024

#: How deep lists and maps may nest. msgpack unpacks 1024 levels, but packs fewer, and Python
#: compares and shows fewer.
MAX_DEPTH = 64


def check_lengths(packed: bytes | memoryview) -> None:
    """Raise `ProtocolError` if lists and maps claim more items than are there, or than may be.

    msgpack may allocate them as long as they claim to be, a thousand nested ones too. Whatever
    else msgpack finds wrong is left to it, or raised as it does.
    """
    if len(packed) <= SHORT:
        return
    unpacker = msgpack.Unpacker(None, max_buffer_size=len(packed))
    unpacker.feed(packed)
    if len(packed) > MAX_VALUES:
        _count(unpacker, packed)
    else:
        unpacker.skip()
    if unpacker.tell() != len(packed):
        msg = "bytes after a packed value"
        raise ProtocolError(msg)


def _count(unpacker: Any, packed: bytes | memoryview) -> None:
    left, found = 1, 1
    while left:
        if unpacker.tell() >= len(packed):
            msg = "a packed value that ends too soon"
            raise ProtocolError(msg)
        first = packed[unpacker.tell()]
        if 0x90 <= first <= 0x9F or first in (0xDC, 0xDD):
            size = unpacker.read_array_header()
        elif 0x80 <= first <= 0x8F or first in (0xDE, 0xDF):
            size = 2 * unpacker.read_map_header()
        else:
            unpacker.skip()
            size = 0
        left, found = left - 1 + size, found + size
        if found > MAX_VALUES:
            msg = f"more than {MAX_VALUES} values packed together; large arrays travel as arrays"
            raise ProtocolError(msg)


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
