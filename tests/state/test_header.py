"""Every message survives the wire; what is no message is a ProtocolError and nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aserpc.errors import ProtocolError
from aserpc.header import (
    MAX_BROKER_HEADER_SIZE,
    MAX_HEADER_SIZE,
    VersionError,
    pack_header,
    unpack_header,
)
from aserpc.messages import (
    FROM_CLIENT,
    FROM_WORKER,
    PROTOCOL_VERSION,
    TO_CLIENT,
    TO_MANAGER,
    TO_WORKER,
    Accept,
    Answer,
    Cancel,
    Demand,
    Dismiss,
    Failed,
    Goodbye,
    Gpus,
    Heartbeat,
    Hello,
    Leave,
    Message,
    Offer,
    Ping,
    Pong,
    Probe,
    Ready,
    Refuse,
    Reject,
    Reload,
    Request,
    Shutdown,
    ShutdownRequest,
    SpawnFailed,
    Spawning,
    Status,
    StatusRequest,
    Stay,
    Stopping,
    Unknown,
    Welcome,
    WorkerEnded,
    unpack_about,
)
from aserpc.nesting import MAX_DEPTH

from .builders import about, session

SIDES = (FROM_CLIENT, TO_CLIENT, FROM_WORKER, TO_WORKER, TO_MANAGER)
KINDS = tuple({kind.KIND: kind for side in SIDES for kind in side}.values())
S = session("s")

#: At least one full and one bare message of each kind.
MESSAGES: list[Message] = [
    Request(S, 0, "lj"),
    Request(
        S,
        (1 << 63) - 1,
        "größe 你好",
        "describe",
        ["energy", "forces"],
        "any",
        {"a": [1, None, {"b": 2.5}], "c": b"\xff"},
        b"digest",
        12.5,
        priority=-(1 << 63),
    ),
    Answer(S, 1),
    Answer(S, 1, 3, {"kind": "calculation", "message": "x", "types": ["a"]}, 0.25, about()),
    Cancel([[S, 1], [S, 2]]),
    Ping(),
    Ping([[S, 1]]),
    Pong(b"i" * 16, [[S, 1, "queued", "waits"]], [[S, 2]]),
    StatusRequest(3),
    ShutdownRequest(4, None),
    ShutdownRequest(5, "lj"),
    Status(6, {"workers": {"lj": {"total": 1}}, "processes": [{"pid": 1}]}),
    Hello("lj", {"pid": 1, "host": "h", "spawn_id": None}),
    Ready("lj", {}, about(), 3, [[S, 1]]),
    Ready("lj", {}, about(), 3, [[S, 1]], 7, 60.0),
    Failed("lj", {"kind": "worker_failed", "message": "x"}),
    Heartbeat(),
    Leave(),
    Goodbye([[S, 1]]),
    Welcome(),
    Unknown(),
    Unknown(12, [S, 7]),
    Probe(),
    Refuse("differs"),
    Shutdown(),
    Dismiss(),
    Stay(),
    Stopping(),
    Offer([["lj", 0], ["emt", 2]], {"pid": 1, "host": "h"}),
    Accept([["lj", "the manager in process 2"]]),
    Demand("lj", 3, 1, 0.5, [["a1", "idle", 1.5], [None, "busy", 0.0]]),
    Spawning("lj", ["a1"], "starting, 3 s", ""),
    Gpus([["0", 0.5, [["a1", "lj"]]], ["1", 1.0, []]]),
    SpawnFailed("lj", "it ended with exit code 1"),
    WorkerEnded("lj", "a1", "it was killed by signal SIGSEGV"),
    WorkerEnded("lj", "a1", "it was killed by signal SIGTERM", "last words", told=True),
    Reload(7),
    Reject("version"),
]


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def packed(*values: Any) -> bytes:
    frame: bytes = msgpack.packb([PROTOCOL_VERSION, *values])
    return frame


def changed(message: Message, **values: Any) -> bytes:
    """Return a message's header with other values in some fields."""
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    assert fields.keys() >= values.keys()
    return packed(message.KIND, *{**fields, **values}.values())


def test_each_kind_of_message_is_tried() -> None:
    assert {type(message) for message in MESSAGES} == {*KINDS}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.KIND)
def test_a_message_survives_the_wire(message: Message) -> None:
    frame = pack_header(message)
    assert unpack_header(frame, (type(message),)) == message
    assert unpack_header(memoryview(frame), (type(message),)) == message


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.KIND)
def test_a_message_is_read_only_from_those_who_may_send_it(
    message: Message, side: tuple[type[Message], ...]
) -> None:
    frame = pack_header(message)
    if type(message) in side:
        assert unpack_header(frame, side) == message
    else:
        with pytest.raises(ProtocolError, match="unexpected message"):
            unpack_header(frame, side)


def test_the_fields_of_a_header_are_those_of_the_class_in_order() -> None:
    message = Ready("lj", {"pid": 1}, b"", 2, [[S, 7]])
    values = [getattr(message, field.name) for field in dataclasses.fields(message)]
    assert msgpack.unpackb(pack_header(message)) == [PROTOCOL_VERSION, "READY", *values]


# ---- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1, 99, -1])
def test_another_version_is_refused_and_both_are_named(version: int) -> None:
    with pytest.raises(VersionError) as caught:
        unpack_header(msgpack.packb([version, "WHATEVER", 1, 2, 3]), FROM_CLIENT)
    assert f"version {version} " in str(caught.value)
    assert f"not {PROTOCOL_VERSION}," in str(caught.value)


def test_a_rejection_is_read_in_any_version() -> None:
    frame = msgpack.packb([PROTOCOL_VERSION + 1, "REJECT", "version 1 is not 2"])
    assert unpack_header(frame, TO_CLIENT) == Reject("version 1 is not 2")


# ---- what is no message --------------------------------------------------------------------------

READY, ANSWER = Ready("lj", {}, about()), Answer(S, 1)
WRONG: dict[str, bytes] = {
    "nothing": b"",
    "no msgpack": b"\xc1",
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "a pickle": b"\x80\x05\x95\x0b\x00",
    "no list": msgpack.packb({"version": 1}),
    "an empty list": msgpack.packb([]),
    "a version only": msgpack.packb([PROTOCOL_VERSION]),
    "a version that is true": msgpack.packb([True, "PING", []]),
    "a version that is a float": msgpack.packb([1.0, "PING", []]),
    "an unknown kind": packed("BOGUS"),
    "a kind that is bytes": packed(b"PING", []),
    "a kind that nests": packed(nested(1000), []),
    "a kind that is long": packed("X" * 100_000),
    "a field too few": packed("PING"),
    "a field too many": packed("PING", [], 0, [], []),
    "a field of another type": packed("PING", {}, 0, []),
    "a field that is true": packed("STATUS_REQUEST", True),
    "a number that is a float": packed("STATUS_REQUEST", 1.0),
    "more after it": packed("PING", [], 0, []) + b"\x00",
    "a name that is no UTF-8": packed("HELLO", b"\xff", {}),
    "broken UTF-8": b"\x94\x01\xa5HELLO\xa2\xff\xfe\x80",
    "an empty name": packed("HELLO", "", {}),
    "a name of two lines": packed("HELLO", "a\nb", {}),
    "a long name": packed("HELLO", "é" * 128, {}),
    "a name with a zero": packed("HELLO", "a\0b", {}),
    "a short session": packed("CANCEL", [[b"s", 1]]),
    "a session that is text": packed("CANCEL", [["s" * 16, 1]]),
    "a negative id": packed("CANCEL", [[S, -1]]),
    "an id beyond 63 bits": packed("CANCEL", [[S, 1 << 63]]),
    "an id that is true": packed("CANCEL", [[S, True]]),
    "a key of three": packed("CANCEL", [[S, 1, 2]]),
    "a key that is none": packed("PING", [None], 0, []),
    "a capacity of nothing": changed(READY, capacity=0),
    "a capacity beyond all": changed(READY, capacity=1 << 40),
    "a worker that computes none at a time": changed(READY, max_batch=0),
    "an answer of a batch of none": changed(ANSWER, batch=0),
    "a description that is none": changed(READY, about=b"\xc1"),
    "a description that is a list": changed(READY, about=b"\x90"),
    "properties that are no list": changed(
        READY, about=msgpack.packb({"implemented_properties": 7})
    ),
    "properties that are no names": changed(
        READY, about=msgpack.packb({"implemented_properties": [7]})
    ),
    "a description that nests": changed(READY, about=msgpack.packb({"kwargs": nested(900)})),
    "an identity that nests": packed("HELLO", "lj", {"pid": nested(900)}),
    "options that nest": changed(Request(S, 1, "lj"), options={"a": nested(900)}),
    "an error that nests": changed(ANSWER, error={"kind": "x", "y": nested(900)}),
    "an error without kind": changed(ANSWER, error={}),
    "a time that is no number": changed(Answer(S, 1), seconds=float("nan")),
    "a time without end": changed(Answer(S, 1), seconds=float("inf")),
    "a time before its start": changed(Answer(S, 1), seconds=-1e-9),
    "a mean that is no number": changed(Demand("lj", 0, 0, 0.5, []), seconds=float("nan")),
    "idle for less than nothing": changed(Demand("lj", 0, 0, 0.5, []), workers=[["a", "idle", -1]]),
    "a minimum below nothing": changed(Offer([], {}), calculators=[["lj", -1]]),
    "a deadline that is no number": changed(Request(S, 0, "lj"), deadline=float("nan")),
    "a timeout that is no number": changed(READY, calculation_timeout=float("nan")),
    "a kind of error that is none": changed(ANSWER, error={"kind": 1}),
    "an unknown op": changed(Request(S, 1, "lj"), op="steal"),
    "an unknown target": changed(Request(S, 1, "lj"), target="all"),
    "a property that is none": changed(Request(S, 1, "lj"), properties=[1]),
    "a priority that is no whole number": changed(Request(S, 1, "lj"), priority=0.5),
    "answers of two": packed("PING", [], 0, [[S, 1]]),
    "answers of a short session": packed("PING", [], 0, [[b"s", 1, 1]]),
    "answers from none": packed("PING", [], 0, [[S, None, 1]]),
    "answers to none": packed("PING", [], 0, [[S, 1, 1 << 63]]),
    "answers without end": packed("PING", [], 0, [[S, 0, (1 << 63) - 1]]),
    "answers in great number": packed("PING", [], 0, [[S, i, i + 999] for i in range(11)]),
    "a map with a list as key": b"\x93\x01\xa6STATUS\x81\x90\x01",
    "news that nests": packed("PONG", b"i", [[S, 1, nested(900), ""]], [], 0),
    "news of three": packed("PONG", b"i", [[S, 1, ""]], [], 0),
    "an offer without minimum": packed("OFFER", [["lj"]], {}),
    "a minimum that is true": packed("OFFER", [["lj", True]], {}),
    "a refusal that is none": packed("ACCEPT", [None]),
    "a refusal by a number": packed("ACCEPT", [["lj", 2]]),
    "workers of two": packed("DEMAND", "lj", 1, 0, 0.0, [["s1", "idle"]]),
    "a spawn id that is a list": packed("DEMAND", "lj", 1, 0, 0.0, [[[], "idle", 0.0]]),
    "a worker's state that is none": packed("DEMAND", "lj", 1, 0, 0.0, [["s1", None, 0.0]]),
    "idle seconds that are text": packed("DEMAND", "lj", 1, 0, 0.0, [["s1", "idle", "1"]]),
    "a spawn id that is a number": packed("SPAWNING", "lj", [1], "", ""),
    "lists without end": b"\xdd\xff\xff\xff\xff",
    "text without end": b"\x92\x01\xdb\xff\xff\xff\xff",
    "deep nesting": b"\x91" * 100_000,
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_message_is_a_protocol_error(name: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        unpack_header(WRONG[name], KINDS)
    text = str(caught.value)
    assert len(text) < 300
    assert (" fields, not " in text) == name.startswith("a field too"), "wrong as is said"


def test_a_header_over_the_limit_is_not_unpacked() -> None:
    frame = packed("PING", [[S, 1]], 0) + bytes(MAX_HEADER_SIZE)
    with pytest.raises(ProtocolError, match="limit"):
        unpack_header(frame, FROM_CLIENT)


def test_the_broker_s_own_headers_may_be_larger() -> None:
    status = Status(1, {"processes": ["x" * MAX_HEADER_SIZE]})
    assert unpack_header(pack_header(status), TO_CLIENT) == status
    with pytest.raises(ProtocolError, match="limit"):
        unpack_header(bytes(MAX_BROKER_HEADER_SIZE + 1), TO_WORKER)


def test_the_largest_request_that_the_broker_takes_reaches_the_worker() -> None:
    # Packed again a float of 4 bytes has 8.
    numbers = [1.5] * 200_000
    options = msgpack.packb({"x": numbers}, use_single_float=True)
    frame = msgpack.packb([PROTOCOL_VERSION, "REQUEST", S, 1, "lj", "calculate", [], "any"])
    frame = bytes([0x90 + 13]) + frame[1:] + options + b"\xc4\x00\xc0\x90\x00"
    assert len(frame) < MAX_HEADER_SIZE
    message = unpack_header(frame, FROM_CLIENT)
    again = pack_header(message)
    assert len(again) > MAX_HEADER_SIZE
    assert unpack_header(again, TO_WORKER) == message


def test_values_may_nest_as_deep_as_is_said() -> None:
    identity = {"a": nested(MAX_DEPTH - 1)}
    assert unpack_header(packed("HELLO", "lj", identity), FROM_WORKER) == Hello("lj", identity)
    with pytest.raises(ProtocolError, match="nests deeper than 64"):
        unpack_header(packed("HELLO", "lj", {"a": nested(MAX_DEPTH)}), FROM_WORKER)


def test_an_absent_description_is_empty() -> None:
    assert unpack_about(b"") == {}


# ---- fuzz ----------------------------------------------------------------------------------------


def read(frame: bytes) -> None:
    """Read a frame as each side; what is read must be packed again and shown."""
    for side in SIDES:
        with contextlib.suppress(ProtocolError):
            message = unpack_header(frame, side)
            assert pack_header(message)
            assert repr(message)


@given(st.binary(max_size=300))
def test_random_bytes_are_a_protocol_error_or_a_message(frame: bytes) -> None:
    read(frame)


@given(
    st.sampled_from([pack_header(message) for message in MESSAGES]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 400),
)
def test_a_message_with_other_bytes_is_a_protocol_error_or_a_message(
    frame: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    mutable = bytearray(frame)
    for place, value in changes:
        mutable[place % len(mutable)] = value
    read(bytes(mutable))
    read(bytes(mutable[: length % (len(mutable) + 1)]))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.just(S)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=4)),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.sampled_from(KINDS), st.data())
def test_fields_of_any_value_are_a_protocol_error_or_a_message(
    kind: type[Message], data: st.DataObject
) -> None:
    number = len(dataclasses.fields(kind))
    values = data.draw(st.lists(VALUES, min_size=number, max_size=number))
    read(packed(kind.KIND, *values))
