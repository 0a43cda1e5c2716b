"""What a client tells the broker of the answers that have arrived."""

from __future__ import annotations

import pytest

from aserpc.client.state import MAX_ARRIVED, PING_INTERVAL
from aserpc.header import pack_header, unpack_header
from aserpc.messages import FROM_CLIENT, MAX_RECEIVED, Answer, Cancel, Ping, Request

from .builders import session
from .client_desk import Desk, lost

S = session("s")


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_next_request_tells_of_the_last_answer(desk: Desk) -> None:
    desk.get(Answer(*desk.ask(0)))
    desk.ask(1)
    desk.ask(2)
    assert [request.received for request in desk.take(Request)] == [[], [[S, 0, 0]], []]


def test_a_ping_tells_of_those_that_have_arrived_meanwhile(desk: Desk) -> None:
    keys = [desk.ask(number) for number in range(6)]
    for number in (4, 0, 3, 1):
        desk.get(Answer(*keys[number]))
    desk.wait(PING_INTERVAL * 2.5)
    first, second = desk.take(Ping)
    assert first.received == [[S, 0, 1], [S, 3, 4]]
    assert second.received == []


def test_sessions_are_told_apart(desk: Desk) -> None:
    waits = desk.ask(0)
    for who in ("a", "b"):
        for number in (1, 2):
            desk.get(Answer(session(who), number))
    desk.wait(PING_INTERVAL * 1.5)
    (ping,) = desk.take(Ping)
    assert ping.received == [[session("a"), 1, 2], [session("b"), 1, 2]]
    assert ping.keys == [list(waits)]


def test_a_late_or_second_answer_is_told_of_too(desk: Desk) -> None:
    key = desk.ask(0)
    desk.perform(desk.state.cancel(key))
    for _ in range(2):
        desk.get(Answer(*key))
    desk.ask(1)
    assert desk.take(Request)[-1].received == [[S, 0, 0]]


def test_a_part_is_none(desk: Desk) -> None:
    desk.get(Answer(*desk.ask(0), part=0))
    desk.ask(1)
    assert desk.take(Request)[-1].received == []


def test_what_is_sent_again_tells_nothing_again(desk: Desk) -> None:
    desk.get(Answer(*desk.ask(0)))
    key = desk.ask(1)
    desk.get(lost(key))
    assert [request.received for request in desk.take(Request)] == [[], [[S, 0, 0]], []]


def test_it_costs_no_message_of_its_own(desk: Desk) -> None:
    for number in range(100):
        desk.get(Answer(*desk.ask(number)))
        desk.wait(PING_INTERVAL * 10)
    assert len(desk.sent) == len(desk.take(Request)) == 100


def test_the_last_answers_are_told_of_at_the_end(desk: Desk) -> None:
    desk.get(Answer(*desk.ask(0)))
    desk.sent.clear()
    desk.perform(desk.state.close())
    (ping,) = desk.take(Ping)
    assert (ping.keys, ping.received) == ([], [[S, 0, 0]])
    assert desk.state.close() == []


def test_no_last_word_is_needed_when_all_was_told(desk: Desk) -> None:
    desk.get(Answer(*desk.ask(0)))
    desk.perform(desk.state.cancel(desk.ask(1)))
    desk.take(Cancel)
    assert desk.state.close() == []


def test_a_message_tells_of_so_many_and_the_next_of_the_rest(desk: Desk) -> None:
    for number in range(0, 4 * MAX_RECEIVED, 2):
        desk.get(Answer(S, number))
    for first in (0, 2 * MAX_RECEIVED):
        desk.perform(desk.state.close())
        (ping,) = desk.take(Ping)
        assert [ping.received[0], len(ping.received)] == [[S, first, first], MAX_RECEIVED]
        assert unpack_header(pack_header(ping), FROM_CLIENT) == ping, "the broker takes it"
    assert desk.state.close() == []


def test_what_is_to_be_told_is_bounded(desk: Desk) -> None:
    for number in range(MAX_ARRIVED + 500):
        desk.get(Answer(S, number))
    desk.perform(desk.state.close())
    assert desk.take(Ping)[-1].received[0][1] == 500
