"""The header frame: a message's kind and fields as ``[version, kind, field, field, ...]``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgpack

from aserpc.errors import ProtocolError
from aserpc.messages import (
    FROM_CLIENT,
    FROM_WORKER,
    PROTOCOL_VERSION,
    TO_CLIENT,
    TO_MANAGER,
    TO_WORKER,
    Buffer,
    Message,
    Reject,
)
from aserpc.nesting import SHORT, check_depth, check_lengths

#: The largest header that the broker reads, and that others read, in bytes. What the broker packs
#: again may grow (a float of 4 bytes has 8 then), and its status lists all workers.
MAX_HEADER_SIZE, MAX_BROKER_HEADER_SIZE = 1 << 20, 1 << 24


class VersionError(ProtocolError):
    """A message of another protocol version; both are named."""


_TYPES: dict[str, tuple[type, ...]] = {
    "bytes": (bytes,),
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "int | None": (int, type(None)),
    "bool": (bool,),
    "float": (float, int),
    "float | None": (float, int, type(None)),
    "dict[str, Any]": (dict,),
    "dict[str, Any] | None": (dict, type(None)),
    "list[str]": (list,),
    "list[Any]": (list,),
}
_MESSAGES: dict[str, type[Message]] = {
    message.KIND: message
    for message in (*FROM_CLIENT, *TO_CLIENT, *FROM_WORKER, *TO_WORKER, *TO_MANAGER)
}
_FIELDS: dict[str, tuple[tuple[str, tuple[type, ...]], ...]] = {
    kind: tuple((f.name, _TYPES[str(f.type)]) for f in dataclasses.fields(message))
    for kind, message in _MESSAGES.items()
}
#: The types of a message's values that were found to be right: a few for each kind.
_SEEN: dict[str, set[tuple[type, ...]]] = {kind: set() for kind in _MESSAGES}


def _reader(names: list[str]) -> Callable[[Message], tuple[Any, ...]]:
    """Return what reads a message's kind and fields; with a single name it returns no tuple."""
    return attrgetter("KIND", *names) if names else lambda message: (message.KIND,)


_VALUES = {kind: _reader([name for name, _ in fields]) for kind, fields in _FIELDS.items()}


def pack_header(message: Message) -> bytes:
    """Return the header frame of a message."""
    # A packer that is kept would be a fifth of a microsecond faster, but threads must not share it.
    header: bytes = msgpack.packb((PROTOCOL_VERSION, *_VALUES[message.KIND](message)))
    return header


def unpack_header(frame: Buffer, expected: tuple[type[Message], ...]) -> Message:
    """Read a header frame.

    Parameters
    ----------
    frame
        The first frame of a message.
    expected
        The messages that may come from this peer.

    Raises
    ------
    VersionError
        If the message is of another protocol version.
    ProtocolError
        If it is no message, or not one that this peer may send.
    """
    try:
        if len(frame) > SHORT:
            _check_size(frame, expected)
            check_lengths(frame)
        header = msgpack.unpackb(frame, strict_map_key=False)
    except ProtocolError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, MemoryError) as error:
        msg = f"the header is no msgpack ({type(error).__name__})"
        raise ProtocolError(msg) from None
    if not isinstance(header, list) or len(header) < 2 or type(header[0]) is not int:
        msg = "the header is no [version, kind, ...]"
        raise ProtocolError(msg)
    version, kind = header[0], header[1]
    if version != PROTOCOL_VERSION and kind != Reject.KIND:
        raise VersionError(
            f"protocol version {version} of the peer is not {PROTOCOL_VERSION}, which is ours; "
            "install the same version of aserpc on both sides"
        )
    message_type = _MESSAGES.get(kind) if isinstance(kind, str) else None
    if message_type is None or message_type not in expected:
        what = repr(kind[:40]) if isinstance(kind, str) else f"of kind {type(kind).__name__}"
        msg = f"unexpected message {what}"
        raise ProtocolError(msg)
    values = header[2:]
    types = tuple(map(type, values))
    if types not in _SEEN[kind]:
        _check_types(kind, types)
    if dict in types:
        for value in values:
            if value and type(value) is dict:
                check_depth(value)
    message = message_type(*values)
    message.check()
    return message


def _check_size(frame: Buffer, expected: tuple[type[Message], ...]) -> None:
    to_broker = expected is FROM_CLIENT or expected is FROM_WORKER
    limit = MAX_HEADER_SIZE if to_broker else MAX_BROKER_HEADER_SIZE
    if len(frame) > limit:
        msg = f"a header of {len(frame)} bytes; the limit is {limit}"
        raise ProtocolError(msg)


def _check_types(kind: str, types: tuple[type, ...]) -> None:
    fields = _FIELDS[kind]
    if len(types) != len(fields):
        msg = f"{kind} has {len(fields)} fields, not {len(types)}"
        raise ProtocolError(msg)
    for (name, allowed), found in zip(fields, types, strict=True):
        if found not in allowed:
            msg = f"{kind}: {name} is of type {found.__name__}"
            raise ProtocolError(msg)
    _SEEN[kind].add(types)
