"""The file in which a broker leaves its workers and managers to the next.

``[[peer, calculator], ...]`` with a name for a worker, a list of names for a manager.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from aserpc.broker.records import RosterEntry
from aserpc.errors import ProtocolError
from aserpc.messages.base import check_name
from aserpc.nesting import check_lengths

#: Name of the file, beside the backend's socket.
ROSTER_FILE = "workers.msgpack"


def pack_roster(roster: Sequence[RosterEntry]) -> bytes:
    """Return the contents of the file."""
    packed: bytes = msgpack.packb(roster)
    return packed


def unpack_roster(data: bytes) -> list[RosterEntry]:
    """Read the contents of the file; raise `ProtocolError` where they are none."""
    try:
        check_lengths(data)
        entries = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, MemoryError):
        entries = None
    if not isinstance(entries, list):
        msg = "a list of workers is a list"
        raise ProtocolError(msg)
    roster: dict[bytes, str | list[str]] = {}
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or type(entry[0]) is not bytes:
            msg = "a worker is [peer, calculator]"
            raise ProtocolError(msg)
        for name in entry[1] if isinstance(entry[1], list) else [entry[1]]:
            _check(name)
        roster[entry[0]] = entry[1]
    return list(roster.items())


def _check(name: Any) -> None:
    if type(name) is not str:
        msg = "a calculator's name is a text"
        raise ProtocolError(msg)
    check_name(name)
