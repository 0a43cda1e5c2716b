"""Clients that go away: what becomes of their requests, and of those that come back."""

from __future__ import annotations

import pytest

from aserpc.broker.clients import (
    CLIENT_TIMEOUT,
    LOCAL_GRACE,
    REMOTE_GRACE,
    TRIAL_INTERVAL,
    TRIALS,
)
from aserpc.broker.peers import NOBODY, remote_peer
from aserpc.messages import Ping, Pong, RequestKey

from .builders import House, ready, session

HERE, FAR = b"\x00client", remote_peer(NOBODY, b"laptop")
GRACES = [(HERE, LOCAL_GRACE), (FAR, REMOTE_GRACE)]


@pytest.fixture
def house() -> House:
    house = House()
    house.serve(b"w")
    return house


def keys(*numbers: int) -> list[RequestKey]:
    return [(session("s"), number) for number in numbers]


def break_connection(house: House, peer: bytes) -> None:
    """Have the broker notice that a client can't be reached."""
    house.silent.add(peer)
    house.state.client_unreachable(peer, house.now)


# ---- killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("peer", "grace"), GRACES, ids=["here", "far"])
def test_what_a_gone_client_had_queued_is_dropped(house: House, peer: bytes, grace: float) -> None:
    for number in range(4):
        house.ask(number, peer=peer)
    other = house.ask(0, "other", peer=b"other")
    break_connection(house, peer)
    house.wait(grace - 0.01)
    assert len(house.state.jobs) == 5
    house.wait(0.02)
    assert {*house.state.jobs} == {*keys(0), other}
    assert house.status()["pending_requests"] == {"lj": 1}
    house.given(b"w")
    house.answer(b"w", keys(0)[0])
    assert house.given(b"w") == [other]


def test_what_is_being_computed_for_it_goes_on_and_its_answer_is_kept(house: House) -> None:
    (key,) = keys(0)
    house.ask(0)
    break_connection(house, b"client")
    house.wait(100.0)
    assert house.job(key).state.value == "orphaned"
    house.answer(b"w", key)
    assert house.answers() == {}
    assert house.state.jobs == {}
    house.ask(0)
    assert house.answers() == {key: None}
    assert house.given(b"w") == [key], "it was computed once"


def test_what_its_worker_had_not_begun_is_cancelled(house: House) -> None:
    house.worker(b"w", ready(capacity=3))
    first, second, third = (house.ask(number) for number in range(3))
    other = house.ask(0, "other", peer=b"other")
    break_connection(house, b"client")
    house.wait(LOCAL_GRACE)
    assert {*house.state.jobs} == {first, other}
    for key in (second, third):
        house.answer(b"w", key, error={"kind": "cancelled"})
    assert house.given(b"w")[-1] == other


def test_an_orphan_whose_worker_dies_is_forgotten(house: House) -> None:
    house.serve(b"v")
    key = house.ask()
    break_connection(house, b"client")
    house.wait(LOCAL_GRACE)
    worker = house.job(key).worker
    assert worker is not None
    house.vanish(worker.peer)
    assert house.state.jobs == {}
    assert len(house.given(b"v") + house.given(b"w")) == 1


def test_a_client_that_is_back_in_time_loses_nothing(house: House) -> None:
    for number in range(3):
        house.ask(number, peer=FAR)
    break_connection(house, FAR)
    house.wait(REMOTE_GRACE - 0.1)
    house.client(Ping(), FAR)
    house.silent.clear()
    house.wait(100.0)
    assert [*house.state.jobs] == keys(0, 1, 2)


def test_one_that_is_back_too_late_finds_what_was_computed(house: House) -> None:
    first, second = house.ask(0), house.ask(1)
    break_connection(house, b"client")
    house.wait(LOCAL_GRACE)
    pong = house.ping(first, second)
    assert [entry[:3] for entry in pong.known] == [[*first, "running"]]
    assert pong.unknown == [list(second)]
    house.ask(1)
    house.answer(b"w", first)
    assert house.answers() == {first: None}
    assert house.given(b"w") == [first, second]


def test_a_request_sent_again_is_tied_to_its_calculation(house: House) -> None:
    key = house.ask(0)
    break_connection(house, b"client")
    house.wait(LOCAL_GRACE)
    house.ask(0, peer=b"new")
    assert house.job(key).state.value == "running"
    house.answer(b"w", key)
    assert house.answers(b"new") == {key: None}
    assert house.given(b"w") == [key]


def test_what_it_had_computed_is_taken_over_with_its_deaths(house: House) -> None:
    house.serve(b"v")
    key = house.ask(0)
    break_connection(house, b"client")
    house.wait(LOCAL_GRACE)
    house.ask(0)
    worker = house.job(key).worker
    assert worker is not None
    house.vanish(worker.peer)
    assert house.job(key).attempts == 1


# ---- another connection --------------------------------------------------------------------------


def test_all_that_waited_on_a_broken_connection_waits_on_the_new_one(house: House) -> None:
    for number in range(5):
        house.ask(number, peer=b"old")
    break_connection(house, b"old")
    house.ping(*keys(3), peer=b"new")
    house.wait(10 * CLIENT_TIMEOUT)
    assert [*house.state.jobs] == keys(0, 1, 2, 3, 4)
    house.answer(b"w", keys(0)[0])
    assert house.answers(b"new") == dict.fromkeys(keys(0))


def test_one_that_is_there_keeps_what_was_not_asked_for_elsewhere(house: House) -> None:
    for number in range(3):
        house.ask(number, peer=b"old")
    house.ping(*keys(2), peer=b"new")
    for number in range(3):
        house.answer(b"w", keys(number)[0])
    assert house.answers(b"old") == dict.fromkeys(keys(0, 1))
    assert house.answers(b"new") == dict.fromkeys(keys(2))


# ---- silence -------------------------------------------------------------------------------------


def test_a_silent_client_is_given_up(house: House) -> None:
    house.ask(0)
    house.ask(1)
    house.silent.add(b"client")
    house.wait(CLIENT_TIMEOUT - 0.01)
    assert len(house.state.jobs) == 2
    house.wait(CLIENT_TIMEOUT)
    assert [*house.state.jobs] == keys(0)


def test_one_that_asks_for_news_is_not(house: House) -> None:
    house.ask(0)
    house.ask(1)
    house.wait(100 * CLIENT_TIMEOUT)
    assert len(house.state.jobs) == 2


def test_nobody_is_given_up_because_the_broker_was_held_up(house: House) -> None:
    house.ask(0)
    house.ask(1)
    house.now += 100 * CLIENT_TIMEOUT
    house.perform(house.state.tick(house.now))
    house.client(Ping(), b"client")  # it was unread all the time
    house.wait(10 * CLIENT_TIMEOUT)
    assert len(house.state.jobs) == 2


def test_a_client_without_requests_is_forgotten(house: House) -> None:
    for number in range(100):
        house.answer(b"w", house.ask(number, peer=b"%d" % number))
    assert len(house.state.clients) == 100
    house.wait(CLIENT_TIMEOUT)
    assert not house.state.clients


# ---- finding out ---------------------------------------------------------------------------------


def test_connections_are_tried_when_one_was_closed(house: House) -> None:
    house.ask(0, "a", peer=b"a")
    house.ask(0, "b", peer=b"b")
    house.answer(b"w", (session("a"), 0))
    house.mail.clear()
    house.state.client_connection_closed(house.now)
    house.wait(10 * TRIAL_INTERVAL)
    assert len(house.take(b"b", Pong)) == TRIALS
    assert not house.mail[b"a"], "it waits for nothing"


def test_many_closings_do_not_multiply_the_trials(house: House) -> None:
    house.ask(0)
    for _ in range(1000):
        house.state.client_connection_closed(house.now)
        house.wait(0.01)
    assert len(house.take(b"client", Pong)) <= 12
    house.wait(10.0)
    house.take(b"client", Pong)
    house.wait(10.0)
    assert not house.take(b"client", Pong)


def test_who_can_t_be_reached_and_waits_for_nothing_does_not_matter(house: House) -> None:
    house.answer(b"w", house.ask(0))
    house.state.client_unreachable(b"client", house.now)
    house.state.client_unreachable(b"nobody", house.now)
    house.wait(LOCAL_GRACE)
    house.ask(1)
    house.wait(10.0)
    assert [*house.state.jobs] == keys(1)
