"""The file in which a broker leaves its workers to the next: ``[[peer, calculator], ...]``."""

from __future__ import annotations

import msgpack

from aserpc.errors import ProtocolError
from aserpc.messages.base import check_name
from aserpc.nesting import check_lengths

#: Name of the file, beside the backend's socket.
ROSTER_FILE = "workers.msgpack"


def pack_roster(roster: list[tuple[bytes, str]]) -> bytes:
    """Return the contents of the file."""
    packed: bytes = msgpack.packb(roster)
    return packed


def unpack_roster(data: bytes) -> list[tuple[bytes, str]]:
    """Read the contents of the file; raise `ProtocolError` where they are none."""
    try:
        check_lengths(data)
        entries = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, MemoryError):
        entries = None
    if not isinstance(entries, list):
        msg = "a list of workers is a list"
        raise ProtocolError(msg)
    roster: dict[bytes, str] = {}
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or type(entry[0]) is not bytes:
            msg = "a worker is [peer, calculator]"
            raise ProtocolError(msg)
        if type(entry[1]) is not str:
            msg = "a calculator's name is a text"
            raise ProtocolError(msg)
        check_name(entry[1])
        roster[entry[0]] = entry[1]
    return list(roster.items())
