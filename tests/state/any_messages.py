"""Histories of messages that are right in form and in nothing else, from a fuzzer's bytes.

Each side's state gets them from peers that it may know or not, in any order, with numbers and names
that mean something now and then. Nothing may be raised, and the indexes must agree.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import msgpack

from aserpc.errors import ProtocolError
from aserpc.header import pack_header, unpack_header
from aserpc.manager.records import Send, Start, Stop
from aserpc.manager.state import ManagerState
from aserpc.messages import (
    FROM_CLIENT,
    FROM_WORKER,
    PROTOCOL_VERSION,
    TO_CLIENT,
    TO_MANAGER,
    TO_WORKER,
    Message,
)
from aserpc.spawn import SpawnConfig
from support.choices import NUMBERS, Choices

from . import client_desk, worker_desk
from .builders import House, about

Side = tuple[type[Message], ...]

NAMES = ("lj", "emt", "größe")
SESSIONS = (b"s" * 16, b"t" * 16)
SPAWN_IDS = ("a1", "a2", "s1", "s2")
STATES = ("idle", "busy", "loading", "leaving", "nonsense", "")
ABOUTS = (about(), about(factory="other"), b"", msgpack.packb({"kwargs": {"a": [1, {"b": None}]}}))
DELAYS = (0.0, 0.001, 0.1, 1.0, 11.0, 26.0, 61.0, 300.0)


def _key(choose: Choices) -> list[Any]:
    return [choose.one_of(SESSIONS), choose.number(4)]


def _several(of: Callable[[Choices], Any]) -> Callable[[Choices], Any]:
    return lambda choose: [of(choose) for _ in range(choose.number(4))]


def _error(choose: Choices) -> Any:
    return {"kind": choose.word(), "message": choose.word()} if choose.number(2) else None


#: What may well stand in a field, by the field's name.
LIKELY: dict[str, Callable[[Choices], Any]] = {
    "session": lambda choose: choose.one_of(SESSIONS),
    "id": lambda choose: choose.number(4),
    "calculator": lambda choose: choose.one_of(NAMES),
    "op": lambda choose: choose.one_of(["calculate", "describe"]),
    "target": lambda choose: "any",
    "about": lambda choose: choose.one_of(ABOUTS),
    "keys": _several(_key),
    "running": _several(_key),
    "returned": _several(_key),
    "together": _several(_several(_key)),
    "unknown": _several(_key),
    "received": _several(lambda choose: [*_key(choose), choose.number(6)]),
    "known": _several(lambda choose: [*_key(choose), choose.word(), choose.word()]),
    "capacity": lambda choose: 1 + choose.number(4),
    "error": _error,
    "identity": lambda choose: {"pid": 1, "host": "h", "spawn_id": choose.one_of(SPAWN_IDS)},
    "spawn_id": lambda choose: choose.one_of(SPAWN_IDS),
    "spawn_ids": _several(lambda choose: choose.one_of(SPAWN_IDS)),
    "calculators": _several(lambda choose: [choose.one_of(NAMES), choose.number(3)]),
    "refused": _several(lambda choose: [choose.one_of(NAMES), choose.word()]),
    "gpus": _several(lambda choose: ["0", 0.5, [[choose.one_of(SPAWN_IDS), "lj"]]]),
    "workers": _several(
        lambda choose: [
            choose.one_of([None, *SPAWN_IDS]),
            choose.one_of(STATES),
            choose.one_of(NUMBERS),
        ]
    ),
}


def any_message(choose: Choices, side: Side) -> Message | None:
    """Return a message that may come from a side; None where what was chosen is none."""
    kind = choose.one_of(side)
    values = []
    for field in dataclasses.fields(kind):
        likely = LIKELY.get(field.name)
        wanted = likely is not None and bool(choose.number(16))
        values.append(likely(choose) if wanted and likely else choose.field(str(field.type)))
    try:
        return unpack_header(msgpack.packb([PROTOCOL_VERSION, kind.KIND, *values]), side)
    except (ProtocolError, ValueError, OverflowError):
        return None


def sent(message: Message, side: Side) -> None:
    """Check that what a state sends can be read by those who get it."""
    assert unpack_header(pack_header(message), side) is not None


def broker(data: bytes) -> None:
    """Peers of all kinds talk to a broker; in the end all are gone, and nothing is left."""
    choose = Choices(data)
    house = House(allow_mixed=bool(choose.number(2)))
    peers = [bytes([0]) + b"one", bytes([0]) + b"two", bytes([1]) + b"k" * 32 + b"three"]
    while choose.left():
        peer, action = choose.one_of(peers), choose.number(8)
        if action == 0:
            house.wait(choose.one_of(DELAYS))
        elif action == 1:
            house.cut.symmetric_difference_update({peer})
            house.state.connection_closed(house.now)
        else:
            side = FROM_CLIENT if action < 5 else FROM_WORKER
            message = any_message(choose, side)
            if message is not None:
                (house.client(message, peer) if action < 5 else house.worker(peer, message))
    for messages in house.mail.values():
        for message in messages:
            assert pack_header(message)
    house.cut.update(peers)
    house.state.connection_closed(house.now)
    state = house.state
    for _ in range(10_000):
        if (due := state.next_tick()) is None:
            break
        house.now = max(house.now, due)
        house.perform(state.tick(house.now))
    tables = (state.workers, state.managers, state.clients, state.jobs, state.deaths, state.spawned)
    assert not any(tables)
    assert not len(state.answers)
    assert not state.calculators
    assert state.next_tick() is None


def worker(data: bytes) -> None:
    """A broker tells a worker this and that."""
    choose = Choices(data)
    desk = worker_desk.Desk(serves=bool(choose.number(4)))
    key = None
    while choose.left() and not desk.state.ended:
        action = choose.number(6)
        if action == 0:
            replies = desk.wait(choose.one_of(DELAYS[:5]))
        elif action == 1 and key is not None:
            replies, key = desk.end(key), None
        elif action == 1:
            key, replies = desk.begin(), []
        elif action == 2 and not choose.number(4):
            replies = desk.state.finish(desk.now)
        else:
            message = any_message(choose, TO_WORKER)
            replies = [] if message is None else desk.get(message)
        for reply in replies:
            sent(reply, FROM_WORKER)


def client(data: bytes) -> None:
    """A broker tells a client this and that; in the end all requests have come to an end."""
    choose = Choices(data)
    desk = client_desk.Desk()
    asked = set()
    while choose.left():
        action = choose.number(6)
        if action == 0:
            desk.wait(choose.one_of(DELAYS[:5]))
        elif action == 1 and (number := choose.number(4)) not in asked:
            asked.add(number)
            deadline = choose.one_of([None, 0.5, 5.0])
            desk.ask(number, choose.one_of([1.0, 10.0]), deadline)
        else:
            message = any_message(choose, TO_CLIENT)
            if message is not None:
                desk.get(message)
    desk.wait(1e4)
    assert not desk.state.pending
    for send in desk.sent:
        sent(send.message, FROM_CLIENT)


def manager(data: bytes) -> None:
    """A broker tells a manager this and that, while its processes come and go."""
    choose = Choices(data)
    configs = {
        name: SpawnConfig(name=name, command=["x"], max_workers=1 + choose.number(3), gpus=0.5)
        for name in NAMES[:2]
    }
    numbers = itertools.count(1)
    state = ManagerState(configs, {"pid": 1}, ["0"], 3, 5.0, lambda: f"s{next(numbers)}")
    now = 0.0
    running: dict[str, None] = {}
    effects = state.start(now)
    while True:
        for effect in effects:
            if isinstance(effect, Start):
                assert len(running) < 3
                running[effect.spawn_id] = None
            elif isinstance(effect, Stop):
                assert effect.spawn_id in running
            elif isinstance(effect, Send):
                sent(effect.message, FROM_WORKER)
        if not choose.left():
            return
        action, effects = choose.number(8), []
        if action == 0:
            now += choose.one_of(DELAYS)
            effects = state.tick(now)
        elif action == 1 and running:
            spawn_id = choose.one_of([*running])
            del running[spawn_id]
            effects = state.exited(spawn_id, choose.word(), choose.word(), now)
        elif action == 2 and running:
            effects = state.running(choose.one_of([*running]), now)
        elif action == 3 and running:
            effects = state.tell(choose.one_of([*running]), choose.word(), now)
        elif action == 4 and not choose.number(8):
            effects = state.reload(configs, now)
        else:
            message = any_message(choose, TO_MANAGER)
            effects = [] if message is None else state.receive(message, now)


TARGETS: dict[str, Callable[[bytes], None]] = {
    f"{target.__name__}_state": target for target in (broker, worker, client, manager)
}
