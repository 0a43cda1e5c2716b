"""Bytes that are no packed value raise ProtocolError, and nothing else; they cost no memory."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aserpc.encoding import Buffer, attempt, pack, unpack
from aserpc.errors import ProtocolError


def meta(value: object, large: int = 0) -> bytes:
    packed: bytes = msgpack.packb(value)
    return large.to_bytes(4, "little") + packed


def array_form(header: object, data: bytes, code: int = 1) -> msgpack.ExtType:
    packed = msgpack.packb(header)
    return msgpack.ExtType(code, len(packed).to_bytes(2, "little") + packed + data)


EIGHT = bytes(8)
HOSTILE: dict[str, list[Buffer]] = {
    "nothing": [],
    "an empty frame": [b""],
    "no value": [b"\0\0\0\0"],
    "no msgpack": [b"\0\0\0\0\xc1"],
    "bytes after the value": [meta(1) + b"x"],
    "a frame too many": [meta(1), b"x"],
    "a frame too few": [meta(array_form(["<f8", [9000], 0], b"", 2), 1)],
    "a frame that nothing uses": [meta(1, 1), b"x"],
    "a frame used twice": [meta([array_form(["<f8", [1], 0], b"", 2)] * 2, 1), EIGHT],
    "a frame of the wrong size": [meta(array_form(["<f8", [2], 0], b"", 2), 1), EIGHT],
    "more frames than fit": [(2**32 - 1).to_bytes(4, "little") + b"\xc0"],
    "an unknown extension": [meta(msgpack.ExtType(99, b"abc"))],
    "a timestamp that is none": [meta(msgpack.ExtType(7, b""))[:-2] + b"\xff"],
    "an array without header": [meta(msgpack.ExtType(1, b""))],
    "a header that ends early": [meta(msgpack.ExtType(1, b"\xff\xff\x93"))],
    "a negative length": [meta(array_form(["<f8", [-1], 0], EIGHT))],
    "a length that overflows": [meta(array_form(["<f8", [2**62, 2**62, 2], 0], EIGHT))],
    "huge and empty": [meta(array_form(["<f8", [0, 2**63, 2**63], 0], b""))],
    "empty items without end": [meta(array_form(["|V0", [2**40], 0], b""))],
    "a length that is no number": [meta(array_form(["<f8", [True], 0], EIGHT))],
    "too many dimensions": [meta(array_form(["|u1", [1] * 100, 0], b"x"))],
    "unknown flags": [meta(array_form(["<f8", [1], 8], EIGHT))],
    "a scalar with a shape": [meta(array_form(["<f8", [1], 2], EIGHT))],
    "objects": [meta(array_form(["|O", [1], 0], EIGHT))],
    "objects in a field": [meta(array_form([[["a", "|O"]], [1], 0], EIGHT))],
    "a dtype to parse": [meta(array_form(["f8,__import__('os')", [1], 0], EIGHT))],
    "a long header": [meta(array_form(["<f8", [1] * 5000, 0], EIGHT))],
    "a nested dtype": [meta(array_form([[["a", [["b", [["c", [["d", 1]]]]]]]], [1], 0], EIGHT))],
    "an invalid character": [meta(array_form(["<U1", [], 2], b"\xff\xff\xff\xff"))],
    "a complex number of 3 bytes": [meta(msgpack.ExtType(4, b"abc"))],
    "a tuple's mark alone": [meta(msgpack.ExtType(3, b""))],
    "a tuple's mark in the middle": [meta([1, msgpack.ExtType(3, b"")])],
    "two tuple's marks": [meta([msgpack.ExtType(3, b""), msgpack.ExtType(3, b"")])],
    "objects without items": [meta([msgpack.ExtType(6, b"")])],
    "fewer objects than said": [meta([msgpack.ExtType(6, b""), [3], [1, 2]])],
    "a shape of -1": [meta([msgpack.ExtType(6, b""), [-1, -2], [1, 2]])],
    "an array as a key": [b"\0\0\0\0\x81" + meta(array_form(["<f8", [1], 0], EIGHT))[4:] + b"\1"],
    "a list as a key": [b"\0\0\0\0\x81\x91\1\1"],
    "no UTF-8": [b"\0\0\0\0\xa1\xff"],
    "deeper than anyone needs": [b"\0\0\0\0" + b"\x91" * 100_000 + b"\1"],
    "a long list that is not there": [b"\0\0\0\0\xdd\xff\xff\xff\xff"],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frames_raise_protocol_error(name: str) -> None:
    with pytest.raises(ProtocolError):
        unpack(HOSTILE[name])


def test_nested_lists_that_claim_to_be_long_cost_no_memory() -> None:
    size = 1 << 20
    frame = bytes(4) + (b"\xdd" + struct.pack(">I", size // 2)) * 1000 + b"\xc0" * size
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            unpack([frame])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(frame)


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_random_frames(frames: list[Buffer]) -> None:
    try_unpack(frames)


def try_unpack(frames: Sequence[Buffer]) -> None:
    try:
        value = unpack(frames)
    except ProtocolError:
        return
    assert attempt(value) is not None


@given(st.sampled_from(range(7)) | st.integers(0, 255), st.binary(max_size=60))
def test_random_extensions(code: int, data: bytes) -> None:
    extension = b"\xc7" + bytes([len(data), code]) + data
    try_unpack([bytes(4) + extension])
    try_unpack([bytes(4) + b"\x92" + extension + b"\1"])
    try_unpack([b"\1\0\0\0" + extension, data])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**64 - 1) | st.text(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)
headers = st.tuples(
    st.sampled_from(["<f8", "|b1", "<U2", "<M8[s]", "|V3", "|O"])
    | st.lists(st.tuples(st.text(max_size=2), st.sampled_from(["<f8", "|S2"])), max_size=3)
    | values,
    st.lists(st.integers(-1, 4) | st.sampled_from([2**31, 2**63]), max_size=3) | values,
    st.integers(0, 4) | values,
)


@given(headers, st.binary(max_size=40))
def test_random_array_headers(header: object, data: bytes) -> None:
    try_unpack([meta(array_form(header, data))])


SAMPLE: dict[str, Any] = {
    "energy": -1.5,
    "forces": np.arange(12.0).reshape(4, 3),
    "large": np.arange(3000.0),
    "nested": {"t": (1, 2j, [None, True]), 3: np.float32(2)},
    "words": np.array(["a", "b"], object),
    "table": np.zeros(2, [("a", "<f8"), ("b", "|S3")]),
    "big": 10**30,
}


@settings(max_examples=300)
@given(st.data())
def test_mutated_messages(data: st.DataObject) -> None:
    frames = [bytearray(frame) for frame in pack(SAMPLE)]
    for _ in range(data.draw(st.integers(1, 4))):
        frame = data.draw(st.sampled_from(frames))
        if not frame:
            continue
        at = data.draw(st.integers(0, len(frame) - 1))
        action = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if action == "set":
            frame[at] = data.draw(st.integers(0, 255))
        elif action == "cut":
            del frame[at : at + data.draw(st.integers(1, 9))]
        else:
            frame[at:at] = data.draw(st.binary(max_size=9))
    try_unpack([bytes(frame) for frame in frames])
