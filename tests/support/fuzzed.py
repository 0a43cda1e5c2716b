"""What a fuzzer feeds: everything of ours that reads bytes of others.

Each target takes any bytes. `ProtocolError` (and what the reader's docstring names) is the right
answer to most; anything else that it raises is a mistake of ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pickle
from collections.abc import Callable, Iterator

import msgpack
import numpy as np

from aserpc.broker.roster import pack_roster, unpack_roster
from aserpc.client.failures import to_exception
from aserpc.client.guards import is_finite
from aserpc.client.provenance import provenance
from aserpc.encoding import Buffer, attempt, unpack
from aserpc.errors import AserpcError, ProtocolError
from aserpc.header import pack_header, unpack_header
from aserpc.manager.spawned import unpack_spawned
from aserpc.manager.spawners.local import LocalSpawner
from aserpc.messages import (
    FROM_CLIENT,
    FROM_WORKER,
    PROTOCOL_VERSION,
    TO_CLIENT,
    TO_MANAGER,
    TO_WORKER,
    Answer,
    unpack_about,
)
from aserpc.payload import PackedAtoms, pack_atoms, unpack_atoms, unpack_results
from aserpc.socket_folder import unpack_owner
from support.choices import Choices

SIDES = (FROM_CLIENT, TO_CLIENT, FROM_WORKER, TO_WORKER, TO_MANAGER)
KINDS = tuple({kind.KIND: kind for side in SIDES for kind in side}.values())


def frames_of(data: bytes) -> list[Buffer]:
    """Cut bytes into frames: two bytes for the length of each but the last."""
    frames: list[Buffer] = []
    while len(data) >= 2 and (size := int.from_bytes(data[:2], "little")) <= len(data) - 2:
        frames.append(data[2 : 2 + size])
        data = data[2 + size :]
    return [*frames, data] if data else frames


def joined(frames: list[Buffer]) -> bytes:
    """Return the bytes that `frames_of` cuts into these frames."""
    return b"".join(len(frame).to_bytes(2, "little") + bytes(frame) for frame in frames)


def header(data: bytes) -> None:
    """Read a header as each side does."""
    for side in SIDES:
        try:
            message = unpack_header(data, side)
        except ProtocolError:
            continue
        assert unpack_header(pack_header(message), side) is not None
        assert repr(message)
        if isinstance(message, Answer):
            if message.error is not None:
                _error(to_exception(message.error, "it"))
            with contextlib.suppress(ProtocolError):
                provenance(message)


def _error(error: AserpcError) -> None:
    assert isinstance(error, AserpcError)
    assert str(error) is not None
    again = pickle.loads(pickle.dumps(error))
    assert type(again).__name__ == type(error).__name__
    assert isinstance(again, AserpcError)


def about(data: bytes) -> None:
    """Read a worker's description."""
    with contextlib.suppress(ProtocolError):
        assert msgpack.packb(unpack_about(data)) is not None


def payload(data: bytes) -> None:
    """Read a packed value."""
    try:
        value = unpack(frames_of(data))
    except ProtocolError:
        return
    assert attempt(value) is not None


def atoms(data: bytes) -> None:
    """Read a structure, and do with it what a worker does."""
    try:
        system = unpack_atoms(PackedAtoms.from_frames(frames_of(data)))
    except ProtocolError:
        return
    assert len(system) == len(system.numbers) == len(system.positions)
    copy = system.copy()
    assert copy.arrays.keys() == system.arrays.keys()
    again = pack_atoms(system)
    assert unpack_atoms(again).arrays.keys() == system.arrays.keys()
    for array in system.arrays.values():
        assert array.flags.writeable


def results(data: bytes) -> None:
    """Read results, and look at them as a client does."""
    try:
        found = unpack_results(frames_of(data))
    except ProtocolError:
        return
    for value in found.values():
        with np.errstate(all="ignore"):
            assert is_finite(value) in (True, False)
        if isinstance(value, np.ndarray):
            assert value.flags.writeable
            value.copy()


def error(data: bytes) -> None:
    """Make the exception that an answer tells of."""
    try:
        report = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException):
        return
    if isinstance(report, dict):
        _error(to_exception({**report, "kind": "calculation"}, "it"))
        if isinstance(report.get("kind"), str):
            _error(to_exception(report, "it"))


def roster(data: bytes) -> None:
    """Read what a broker has left."""
    try:
        found = unpack_roster(data)
    except ProtocolError:
        return
    assert unpack_roster(pack_roster(found)) == found


def spawned(data: bytes) -> None:
    """Read what a manager has left."""
    try:
        found = unpack_spawned(data)
    except ValueError:
        return
    spawner = LocalSpawner()
    for entry in found.values():
        assert spawner.adopt(entry["handle"]) in (True, False)


def owner(data: bytes) -> None:
    """Read who serves in a folder."""
    found = unpack_owner(data)
    assert found is None or isinstance(found["pid"], int)


# ---- well-formed msgpack, which random bytes seldom are ------------------------------------------


def built_header(data: bytes) -> None:
    """Read a header with the right number of fields, most of them of the right type."""
    choose = Choices(data)
    kind = choose.one_of(KINDS)
    values = [
        choose.field(str(field.type)) if choose.number(8) else choose.value()
        for field in dataclasses.fields(kind)
    ]
    with contextlib.suppress(ValueError, RecursionError):  # not to be packed
        header(msgpack.packb([PROTOCOL_VERSION, kind.KIND, *values]))


def built_payload(data: bytes) -> None:
    """Read a packed value."""
    choose = Choices(data)
    payload(choose.payload(choose.value()))


def built_results(data: bytes) -> None:
    """Read results."""
    choose = Choices(data)
    results(choose.payload({choose.word(): choose.value() for _ in range(choose.number(4))}))


def built_atoms(data: bytes) -> None:
    """Read a structure in which not everything is right."""
    choose = Choices(data)
    count = choose.number(4)
    arrays = {
        choose.word(): choose.array([count, *choose.sizes()]) for _ in range(choose.number(4))
    }
    numbers, positions = choose.array([count], "<i8"), choose.array([count, 3], "<f8")
    arrays.update(numbers=numbers, positions=positions)
    if not choose.number(4):
        arrays[choose.one_of(["numbers", "positions", "tags", "masses"])] = choose.value()
    info = {choose.word(): choose.value() for _ in range(choose.number(4))}
    key = [bytes(72), choose.take(3).ljust(3, b"\0"), None, arrays, info]
    if not choose.number(4):
        key[choose.number(5)] = choose.value()
    forms = [
        {"name": choose.word(), "kwargs": {choose.word(): choose.value()}}
        for _ in range(choose.number(3))
    ]
    rest = [choose.array([count, 3], "<f8") if choose.number(2) else None, forms]
    if not choose.number(4):
        rest[choose.number(2)] = choose.value()
    first = choose.payload(key)
    atoms(first + choose.payload(rest) if choose.number(2) else first)


def built_error(data: bytes) -> None:
    """Make the exception that an answer tells of."""
    choose = Choices(data)
    report = {
        name: choose.value() if not choose.number(4) else choose.words()
        for name in ("types", "message", "traceback", "kind")
        if choose.number(8)
    }
    with contextlib.suppress(ValueError, RecursionError):
        error(msgpack.packb(report))


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        *(header, about, payload, atoms, results, error, roster, spawned, owner),
        *(built_header, built_payload, built_results, built_atoms, built_error),
    )
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log nothing meanwhile: a fuzzer makes many mistakes."""
    logger = logging.getLogger("aserpc")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
