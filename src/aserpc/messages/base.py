"""What all messages share: the version, identities, and what is checked of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, TypeAlias

import msgpack

from aserpc.errors import ProtocolError
from aserpc.nesting import check_depth, check_lengths

#: Version of this wire format; it stands in every message.
PROTOCOL_VERSION = 1

#: The longest calculator name, in bytes of UTF-8.
MAX_NAME_SIZE = 255

#: Length of a session's and of a broker's random identity, in bytes.
IDENTITY_SIZE = 16

#: Of how many answers that have arrived one message tells.
MAX_RECEIVED = 10_000

#: A frame that is sent or was received.
Buffer: TypeAlias = bytes | memoryview
#: Identity of a request: the session that asks, and its number there.
RequestKey: TypeAlias = tuple[bytes, int]


@dataclass(slots=True)
class Message:
    """Base of the messages; never changed once it is made."""

    KIND: ClassVar[str] = ""

    def check(self) -> None:
        """Check what the fields' types do not say; raise `ProtocolError`."""


@dataclass(slots=True)
class Reject(Message):
    """The broker could not read what a peer sent. The one message that all versions share."""

    KIND = "REJECT"
    reason: str


@lru_cache(maxsize=256)  # the same few in every request
def check_name(name: str) -> None:
    """Refuse what is no name of a calculator."""
    if not name or not name.isprintable() or len(name.encode()) > MAX_NAME_SIZE:
        msg = f"{name[:80]!r} is no calculator name: 1 to {MAX_NAME_SIZE} printable characters"
        raise ProtocolError(msg)


def check_key(session: object, number: object) -> None:
    """Refuse what is no identity of a request."""
    if not isinstance(session, bytes) or len(session) != IDENTITY_SIZE:
        msg = f"a session is {IDENTITY_SIZE} bytes"
        raise ProtocolError(msg)
    if type(number) is not int or not 0 <= number < 1 << 63:
        msg = "a request id is a number from 0"
        raise ProtocolError(msg)


def check_seconds(seconds: float) -> None:
    """Refuse what is no duration: a mean that takes it in is spoilt for ever."""
    if not 0 <= seconds < math.inf:
        msg = f"a duration of {seconds} s"
        raise ProtocolError(msg)


def check_keys(pairs: Sequence[object]) -> None:
    """Refuse what is no list of requests."""
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            msg = "a list of requests holds [session, id]"
            raise ProtocolError(msg)
        check_key(pair[0], pair[1])


def check_received(ranges: Sequence[object]) -> None:
    """Refuse what is no list of answers that have arrived, or is longer than one may be."""
    count = 0
    for entry in ranges:
        if not isinstance(entry, list) or len(entry) != 3:
            msg = "answers that have arrived are [session, first, last]"
            raise ProtocolError(msg)
        session, first, last = entry
        check_key(session, last)
        if type(first) is not int or not 0 <= first <= last:
            msg = "the first of some ids is no greater than the last"
            raise ProtocolError(msg)
        count += last - first + 1
    if count > MAX_RECEIVED:
        msg = f"a message tells of {MAX_RECEIVED} answers at most"
        raise ProtocolError(msg)


def unpack_about(about: bytes) -> dict[str, Any]:
    """Read a worker's description of itself (see `Ready.about`); raise `ProtocolError`."""
    try:
        check_lengths(about)
        value = msgpack.unpackb(about, strict_map_key=False) if about else {}
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, MemoryError):
        value = None
    if not isinstance(value, dict):
        msg = "a worker's description is a msgpack map"
        raise ProtocolError(msg)
    check_depth(value)
    names = value.get("implemented_properties")
    if names is not None and not (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ):
        msg = "implemented properties are names"
        raise ProtocolError(msg)
    return value
