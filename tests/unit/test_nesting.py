"""What a packed value claims to hold is told before memory is taken for it."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from aserpc import nesting
from aserpc.encoding import unpack
from aserpc.errors import ProtocolError
from aserpc.header import MAX_HEADER_SIZE, unpack_header
from aserpc.messages import FROM_WORKER, TO_CLIENT, unpack_about
from aserpc.nesting import MAX_VALUES, check_lengths

#: What stands for `MAX_VALUES` where a test would take long.
FEW = 1 << 17


def claims(levels: int, claimed: int, items: int) -> bytes:
    """Return lists in lists, each of which claims to be long."""
    return (b"\xdd" + struct.pack(">I", claimed)) * levels + b"\xc0" * items


READERS: dict[str, Callable[[bytes], Any]] = {
    "a header": lambda data: unpack_header(b"\x93\x01\xa5HELLO" + data, FROM_WORKER),
    "a description": unpack_about,
    "a payload": lambda data: unpack([bytes(4) + data]),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_nested_lists_that_claim_to_be_long_cost_no_memory(read: Callable[[bytes], Any]) -> None:
    data = claims(1000, MAX_HEADER_SIZE // 2, MAX_HEADER_SIZE - 6000)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            read(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(data)


def many(of: bytes, count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + of * count


TOO_MANY = {
    "empty lists": many(b"\x90", FEW + 1),
    "empty maps": many(b"\x80", FEW + 1),
    "lists of lists": many(many(b"\x90", 1000), FEW // 1000 + 1),
    "a map": b"\xdf" + struct.pack(">I", FEW // 2 + 1) + b"\x01" * (FEW + 2),
}


@pytest.mark.parametrize("data", TOO_MANY.values(), ids=TOO_MANY)
def test_small_values_without_number_cost_no_memory(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nesting, "MAX_VALUES", FEW)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=f"more than {FEW} values"):
            unpack([bytes(4) + data])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(data)


def test_a_brokers_header_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nesting, "MAX_VALUES", FEW)
    header = b"\x94\x01\xa6STATUS\x01\x81\xa1a" + TOO_MANY["empty maps"]
    with pytest.raises(ProtocolError, match="more than"):
        unpack_header(header, TO_CLIENT)


def test_as_many_as_may_be_are_read() -> None:
    value = [None] * (MAX_VALUES - 1)
    assert unpack([bytes(4) + msgpack.packb(value)]) == value
    blobs = {"one": bytes(3 * MAX_VALUES), "other": [[1.5, "word"], {"a": {}}]}
    assert unpack([bytes(4) + msgpack.packb(blobs)]) == blobs


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd" + struct.pack(">I", 9) + b"\xc6" + struct.pack(">I", 5_000_000) + bytes(5_000_000),
        many(b"\x01", 10) + bytes(5_000_000),
        b"\xc1" * 5_000_000,
        b"\x91" * 5_000_000,
    ],
    ids=["too short", "too long", "no msgpack", "nested"],
)
def test_large_frames_that_are_no_value_are_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack([bytes(4) + data])
    with pytest.raises(ProtocolError):
        unpack_header(data, TO_CLIENT)


def test_short_ones_are_left_to_msgpack() -> None:
    check_lengths(b"\x93\x01")
