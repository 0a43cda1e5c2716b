"""What a broker leaves to the next: who was there, and what is being computed.

``{"workers": [[peer, calculator, [[session, id], ...]], ...], "managers": [[peer, [[calculator,
min_workers], ...]], ...], "stopped": false}`` in msgpack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgpack

from aserpc.errors import ProtocolError
from aserpc.messages import RequestKey
from aserpc.messages.base import check_keys, check_name
from aserpc.nesting import check_lengths

#: Name of the file, beside the backend's socket.
ROSTER_FILE = "workers.msgpack"


@dataclass
class Roster:
    """Who serves at a broker."""

    #: The calculator of each worker, and the requests that it has had for some time.
    workers: dict[bytes, tuple[str, list[RequestKey]]] = field(default_factory=dict)
    #: What each manager offers, with the minimum of workers.
    managers: dict[bytes, dict[str, int]] = field(default_factory=dict)
    #: Whether the broker was stopped in order: then nobody waits for an answer.
    stopped: bool = False


def pack_roster(roster: Roster) -> bytes:
    """Return the contents of the file."""
    packed: bytes = msgpack.packb(
        {
            "workers": [[peer, name, keys] for peer, (name, keys) in roster.workers.items()],
            "managers": [[peer, [*offer.items()]] for peer, offer in roster.managers.items()],
            "stopped": roster.stopped,
        }
    )
    return packed


def unpack_roster(data: bytes) -> Roster:
    """Read the contents of the file; raise `ProtocolError` where they are none."""
    try:
        check_lengths(data)
        parts = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, MemoryError):
        parts = None
    if not isinstance(parts, dict):
        msg = "a roster is a map"
        raise ProtocolError(msg)
    roster = Roster(stopped=parts.get("stopped") is not False)
    for peer, name, keys in _entries(parts.get("workers"), bytes, str, list):
        check_name(name)
        check_keys(keys)
        roster.workers[peer] = name, [(session, number) for session, number in keys]
    for peer, offer in _entries(parts.get("managers"), bytes, list):
        offered = dict(_entries(offer, str, int))
        for name in offered:
            check_name(name)
        roster.managers[peer] = offered
    return roster


def _entries(values: object, *types: type) -> Iterator[list[Any]]:
    """Yield the entries of a list, each a list of values of these types."""
    if not isinstance(values, list):
        msg = "a roster has lists of workers and managers"
        raise ProtocolError(msg)
    for entry in values:
        if not isinstance(entry, list) or [type(value) for value in entry] != [*types]:
            msg = f"an entry of a roster is {[kind.__name__ for kind in types]}"
            raise ProtocolError(msg)
        yield entry
