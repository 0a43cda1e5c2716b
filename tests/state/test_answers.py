"""Which answers are kept: how many, for how long, and for whom."""

from __future__ import annotations

import pytest

from aserpc.broker.answers import Answers, weigh
from aserpc.broker.peers import remote_peer
from aserpc.messages import Answer, Buffer
from aserpc.timers import Timers

from .builders import session

AGE = 10.0
S = session("s")
CLIENT = b"\x00client"
PAYLOAD: list[Buffer] = [bytes(100), bytes(900)]
SIZE = weigh(PAYLOAD)


class Shelf(Answers):
    """Kept answers with their timers."""

    def __init__(self, limit: int) -> None:
        self.timers = Timers()
        super().__init__(self.timers, AGE, limit)

    def put(self, number: int, now: float = 0.0, who: bytes = S, client: bytes = CLIENT) -> None:
        self.keep(client, Answer(who, number), PAYLOAD, now)

    def numbers(self) -> list[int]:
        return [number for _, number in self._kept]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(5 * SIZE)


def test_an_answer_is_kept_with_its_payload(shelf: Shelf) -> None:
    answer = Answer(S, 7)
    shelf.keep(CLIENT, answer, PAYLOAD, 0.0)
    kept = shelf.get((S, 7))
    assert kept is not None
    assert kept.answer is answer
    assert kept.payload is PAYLOAD
    assert shelf.get((S, 8)) is None
    assert shelf.get((session("t"), 7)) is None


def test_what_is_kept_takes_its_payload_and_what_describes_it(shelf: Shelf) -> None:
    shelf.put(0)
    assert shelf.size == SIZE > 1000
    shelf.keep(CLIENT, Answer(S, 1, about=bytes(500)), PAYLOAD, 0.0)
    assert shelf.size == 2 * SIZE + 500


# ---- bytes ---------------------------------------------------------------------------------------


def test_the_oldest_make_room(shelf: Shelf) -> None:
    for number in range(8):
        shelf.put(number)
    assert shelf.numbers() == [3, 4, 5, 6, 7]
    assert shelf.size == 5 * SIZE


def test_a_large_one_pushes_out_as_many_as_it_needs_room(shelf: Shelf) -> None:
    for number in range(5):
        shelf.put(number)
    shelf.keep(CLIENT, Answer(S, 5), [bytes(2 * SIZE)], 0.0)
    assert shelf.numbers() == [3, 4, 5]
    assert shelf.size <= shelf.limit


def test_one_larger_than_the_limit_is_not_kept_and_pushes_out_nobody(shelf: Shelf) -> None:
    shelf.put(0)
    shelf.keep(CLIENT, Answer(S, 1), [bytes(5 * SIZE)], 0.0)
    assert shelf.numbers() == [0]
    assert shelf.size == SIZE


def test_many_small_frames_count_as_what_they_take(shelf: Shelf) -> None:
    shelf.keep(CLIENT, Answer(S, 1), [b""] * 10_000, 0.0)
    assert len(shelf) == 0


def test_the_first_of_two_answers_is_kept(shelf: Shelf) -> None:
    shelf.put(0)
    shelf.keep(CLIENT, Answer(S, 0), [b"other"], 0.0)
    kept = shelf.get((S, 0))
    assert kept is not None
    assert kept.payload is PAYLOAD
    assert shelf.size == SIZE


# ---- age -----------------------------------------------------------------------------------------


def test_answers_are_forgotten_each_in_its_time(shelf: Shelf) -> None:
    for number in range(3):
        shelf.put(number, now=2.0 * number)
    shelf.timers.run(AGE - 0.01)
    assert shelf.numbers() == [0, 1, 2]
    shelf.timers.run(AGE)
    assert shelf.numbers() == [1, 2]
    shelf.timers.run(AGE + 4.0)
    assert shelf.numbers() == []
    assert shelf.size == 0


def test_nothing_falls_due_when_nothing_is_kept(shelf: Shelf) -> None:
    for _ in range(3):
        shelf.put(0)
        shelf.acknowledge(CLIENT, [[S, 0, 0]])
    shelf.timers.run(AGE)
    assert shelf.timers.next() is None


def test_however_many_are_kept_one_timer_is_set(shelf: Shelf) -> None:
    for number in range(50):
        shelf.put(number, now=0.1 * number)
    assert len(shelf.timers) == 1


# ---- acknowledging -------------------------------------------------------------------------------


def test_ranges_are_forgotten(shelf: Shelf) -> None:
    for number in range(5):
        shelf.put(number)
    shelf.acknowledge(CLIENT, [[S, 3, 9], [S, 0, 1]])
    assert shelf.numbers() == [2]
    assert shelf.size == SIZE


def test_what_is_not_kept_is_no_mistake(shelf: Shelf) -> None:
    shelf.put(0)
    shelf.acknowledge(CLIENT, [[S, 1, 5], [session("t"), 0, 0], [S, 3, 2]])
    assert shelf.numbers() == [0]


def test_only_whose_key_asked_can_acknowledge(shelf: Shelf) -> None:
    alice, bob = (remote_peer(name * 32, b"socket") for name in (b"a", b"b"))
    shelf.put(0, client=alice)
    shelf.acknowledge(bob, [[S, 0, 0]])
    shelf.acknowledge(CLIENT, [[S, 0, 0]])
    assert shelf.numbers() == [0]
    shelf.acknowledge(remote_peer(b"a" * 32, b"another"), [[S, 0, 0]])
    assert shelf.numbers() == []
