"""What waits for clients that read slowly, and how much may be on its way to them."""

from __future__ import annotations

from collections import deque

import pytest
import zmq

from aserpc.broker import outbox as module
from aserpc.broker.outbox import LARGE, MAX_AGE, Outbox
from aserpc.broker.peers import remote_peer
from aserpc.messages import Buffer, RequestKey

from .builders import session

S = session("s")
ONE, OTHER = b"\x00one", b"\x00other"


class Desk:
    """An outbox, and clients that have room for some messages."""

    def __init__(self) -> None:
        self.outbox = Outbox(self._send)
        self.now = 0.0
        self.room = {ONE: 10**6, OTHER: 10**6}
        self.gone: set[bytes] = set()
        self.sent: deque[tuple[bytes, int]] = deque()

    def _send(self, peer: bytes, frames: list[Buffer]) -> None:
        if peer in self.gone:
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        if not self.room.get(peer, 1):
            raise zmq.Again
        self.room[peer] = self.room.get(peer, 1) - 1
        self.sent.append((peer, sum(map(len, frames))))

    def send(self, size: int, number: int | None = None, peer: bytes = ONE) -> None:
        key: RequestKey | None = None if number is None else (S, number)
        self.outbox.send(peer, [bytes(size)], self.now, key)
        self.check()

    def flush(self) -> list[tuple[bytes, int]]:
        self.outbox.flush(self.now)
        self.check()
        return self.take()

    def take(self) -> list[tuple[bytes, int]]:
        sent, self.sent = list(self.sent), deque()
        return sent

    def check(self) -> None:
        box = self.outbox
        for queue in box.waiting.values():
            assert queue.messages
            assert queue.size == sum(message.size for message in queue.messages)
        assert box.size == sum(queue.size for queue in box.waiting.values())
        assert box.flying == sum(box._flying.values())
        assert box.flying == sum(flight.size for flight in box._flights.values())
        assert all(box._flying.values())


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """An outbox with small bounds."""
    monkeypatch.setattr(module, "OUTBOX_SIZE", 10 * LARGE)
    monkeypatch.setattr(module, "PEER_WINDOW", 4 * LARGE)
    monkeypatch.setattr(module, "WINDOW", 6 * LARGE)
    return Desk()


def test_what_finds_no_room_waits_in_order(desk: Desk) -> None:
    desk.room[ONE] = 1
    for size in (1, 2, 3):
        desk.send(size)
    desk.send(9, peer=OTHER)
    assert desk.take() == [(ONE, 1), (OTHER, 9)]
    assert desk.flush() == []
    desk.room[ONE] = 5
    assert desk.flush() == [(ONE, 2), (ONE, 3)]
    assert not desk.outbox.waiting
    assert desk.outbox.size == 0


# ---- what is dropped -----------------------------------------------------------------------------


def test_an_answer_larger_than_the_bound_waits_where_nothing_else_does(desk: Desk) -> None:
    desk.room[ONE] = 0
    desk.send(50 * LARGE, 1)
    assert desk.outbox.size == 50 * LARGE
    desk.room[ONE] = 1
    assert desk.flush() == [(ONE, 50 * LARGE)]


def test_who_has_the_most_loses_the_newest(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.room = {ONE: 0, OTHER: 0}
    for number in range(9):
        desk.send(LARGE, number)
    desk.send(3 * LARGE, 10, OTHER)
    assert len(desk.outbox.waiting[ONE].messages) == 7
    assert desk.outbox.waiting[OTHER].size == 3 * LARGE
    assert caplog.text.count("dropped an answer") == 2
    desk.room[ONE] = 10**6
    desk.outbox._flights.clear()
    keys = [message.key for message in desk.outbox.waiting[ONE].messages]
    assert keys == [(S, number) for number in range(7)]


def test_waiting_is_bounded_whatever_comes(desk: Desk) -> None:
    desk.room = {ONE: 0, OTHER: 0}
    for number in range(100):
        desk.send((number % 7) * LARGE, number, (ONE, OTHER)[number % 3 > 1])
        assert desk.outbox.size <= 10 * LARGE


# ---- what is on its way --------------------------------------------------------------------------


def test_large_answers_wait_until_those_before_have_arrived(desk: Desk) -> None:
    for number in range(6):
        desk.send(LARGE, number)
    assert len(desk.take()) == 4
    desk.outbox.acknowledge([[S, 0, 0], [S, 3, 3]])
    assert len(desk.flush()) == 2
    desk.send(LARGE - 1, 6)
    assert len(desk.take()) == 1, "small ones are not counted"
    desk.outbox.acknowledge([[S, 0, 100]])
    assert desk.outbox.flying == 0


def test_the_largest_answer_may_fly_alone(desk: Desk) -> None:
    desk.send(100 * LARGE, 0)
    assert len(desk.take()) == 1
    desk.send(LARGE, 1)
    desk.send(1, 2)
    assert desk.take() == [], "in order, also what is small"
    desk.send(LARGE, 3, OTHER)
    assert len(desk.take()) == 1, "nor does it hold up another's first"
    desk.send(LARGE, 4, OTHER)
    assert desk.take() == [], "but all together are bounded too"
    desk.outbox.acknowledge([[S, 0, 0]])
    assert len(desk.flush()) == 3


def test_an_answer_that_is_sent_again_is_on_its_way_once(desk: Desk) -> None:
    desk.send(LARGE, 0)
    desk.send(LARGE, 0, OTHER)
    assert desk.outbox.flying == LARGE
    assert desk.outbox._flying == {OTHER: LARGE}


def test_what_was_sent_to_who_is_gone_is_on_its_way_no_longer(desk: Desk) -> None:
    for number in range(3):
        desk.send(LARGE, number)
    desk.gone.add(ONE)
    desk.send(1)
    assert desk.outbox.lost == {ONE}
    assert desk.outbox.flying == 0


def test_nothing_is_on_its_way_for_ever(desk: Desk) -> None:
    for number in range(5):
        desk.send(LARGE, number)
    desk.now = MAX_AGE - 1
    assert len(desk.take()) == 4
    assert desk.flush() == []
    desk.now = MAX_AGE
    assert len(desk.flush()) == 1
    assert desk.outbox.flying == LARGE


def test_what_revoked_keys_have_not_taken_is_dropped(desk: Desk) -> None:
    theirs = remote_peer(b"k" * 32, b"id")
    desk.room = {ONE: 0, theirs: 0}
    desk.send(LARGE, 0)
    desk.send(LARGE, 1, theirs)
    desk.outbox.drop({b"k" * 32})
    desk.check()
    assert {*desk.outbox.waiting} == {ONE}
