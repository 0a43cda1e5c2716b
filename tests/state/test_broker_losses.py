"""Which workers are lost, and what becomes of what they had."""

from __future__ import annotations

import pytest

from aserpc.broker.deaths import ANSWER_TIME, MAX_ATTEMPTS
from aserpc.messages import (
    Answer,
    Probe,
    Unknown,
)

from .builders import WORKER_TIMEOUT, House, ready


@pytest.fixture
def house() -> House:
    return House()


def states(house: House) -> dict[bytes, str]:
    return {peer: worker.state.value for peer, worker in house.state.workers.items()}


# ---- death ---------------------------------------------------------------------------------------


def test_a_request_whose_worker_dies_is_given_to_another_and_counts_an_attempt(
    house: House,
) -> None:
    house.serve(b"v", b"w")
    key = house.ask()
    house.given(b"v")
    house.vanish(b"v")
    assert house.given(b"w") == [key]
    assert house.job(key).attempts == 1
    house.answer(b"w", key)
    assert house.answers() == {key: None}


def test_after_too_many_deaths_the_client_is_told(house: House) -> None:
    house.serve(b"u", b"v", b"w")
    key = house.ask()
    for peer in [b"u", b"v"][:MAX_ATTEMPTS]:
        assert house.answers() == {}
        house.vanish(peer)
    (answer,) = house.take(b"client", Answer)
    assert answer.key == key
    assert answer.error is not None
    assert answer.error["kind"] == "poison"
    assert "2 workers died" in answer.error["message"]
    assert house.given(b"w") == []


def test_requests_that_were_not_started_count_no_attempt_and_keep_their_order(
    house: House,
) -> None:
    house.serve(b"v", capacity=3)
    keys = [house.ask(number, "ab"[number % 2]) for number in range(5)]
    house.load(b"w")
    house.wait(ANSWER_TIME)
    house.vanish(b"v")
    assert [house.job(key).attempts for key in keys] == [1, 0, 0, 0, 0]
    house.worker(b"w", ready())
    order = []
    while given := house.given(b"w"):
        order += given
        house.answer(b"w", given[0])
    assert order == keys


def test_what_comes_back_is_served_before_what_waited(house: House) -> None:
    house.serve(b"v")
    first = house.ask(0, "a")
    house.ask(1, "a")
    house.ask(0, "b")
    house.load(b"w")
    house.vanish(b"v")
    house.worker(b"w", ready())
    assert house.given(b"w") == [first]


def test_a_request_that_did_not_reach_its_worker_counts_no_attempt(house: House) -> None:
    for peer in (b"u", b"v", b"w"):
        house.serve(peer)
    house.cut.update((b"u", b"v"))
    key = house.ask()
    assert house.given(b"w") == [key]
    assert house.job(key).attempts == 0
    assert states(house) == {b"w": "busy"}


def test_none_of_several_that_did_not_reach_their_worker_counts_an_attempt(house: House) -> None:
    house.serve(b"u", capacity=2)
    keys = [house.ask(number) for number in range(2)]
    house.serve(b"v", capacity=3)
    house.load(b"w")
    house.cut.add(b"v")
    house.goodbye(b"u")
    assert [house.job(key).attempts for key in keys] == [0, 0]
    house.worker(b"w", ready(capacity=2))
    assert house.given(b"w") == keys


def test_a_second_request_that_does_not_arrive_finds_the_first_was_being_computed(
    house: House,
) -> None:
    house.serve(b"v", capacity=2)
    first = house.ask(0)
    house.load(b"w")
    house.cut.add(b"v")
    second = house.ask(1)
    assert [house.job(key).attempts for key in (first, second)] == [1, 0]


def test_all_connections_are_tried_when_one_was_closed(house: House) -> None:
    house.serve(b"u", b"v", b"w")
    key = house.ask()
    house.given(b"u")
    house.cut.add(b"u")
    house.state.connection_closed(house.now)
    house.wait(0.05)
    assert sorted(states(house).values()) == ["busy", "idle"]
    assert house.given(b"v") + house.given(b"w") == [key]


def test_connections_are_tried_for_a_while_after_one_was_closed(house: House) -> None:
    house.serve(b"w")
    house.ask()
    house.state.connection_closed(house.now)
    house.wait(0.4)
    house.cut.add(b"w")  # libzmq tells of the closing before sends fail
    house.wait(0.6)
    assert states(house) == {}


def test_many_closings_do_not_multiply_the_trials(house: House) -> None:
    house.serve(b"w")
    for _ in range(100):
        house.state.connection_closed(house.now)
        house.now += 0.6001  # the loop was late: the trial before is still due
        house.state.connection_closed(house.now)
        house.perform(house.state.tick(house.now))
    house.take(b"w", Probe)
    house.wait(0.59)
    assert len(house.take(b"w", Probe)) <= 4
    house.wait(5)
    house.take(b"w", Probe)
    house.wait(5)
    assert house.take(b"w", Probe) == []


# ---- silence -------------------------------------------------------------------------------------


def test_a_silent_idle_worker_is_asked_and_then_lost(house: House) -> None:
    house.serve(b"w")
    house.wait(WORKER_TIMEOUT / 2)
    assert len(house.take(b"w", Probe)) == 1
    house.wait(WORKER_TIMEOUT / 2 - 1e-3)
    assert states(house) == {b"w": "idle"}
    house.wait(2e-3)
    assert house.is_empty()


def test_a_worker_that_answers_probes_stays(house: House) -> None:
    house.serve(b"w")
    for _ in range(10):
        house.wait(WORKER_TIMEOUT / 2)
        if house.take(b"w", Probe):
            house.beat(b"w")
    assert states(house) == {b"w": "idle"}


def test_a_worker_that_beats_is_not_asked(house: House) -> None:
    house.serve(b"w")
    for _ in range(100):
        house.wait(WORKER_TIMEOUT / 4)
        house.beat(b"w")
    assert house.take(b"w", Probe) == []


def test_the_silence_ends_on_time_also_after_beats(house: House) -> None:
    house.serve(b"w")
    for _ in range(7):
        house.wait(WORKER_TIMEOUT / 7)
        house.beat(b"w")
    house.wait(WORKER_TIMEOUT - 1e-3)
    assert states(house) == {b"w": "idle"}
    house.wait(2e-3)
    assert states(house) == {}


@pytest.mark.parametrize("start", [0.1, 1 / 3, 1e5 / 3, 131071.99999999999])
def test_rounding_of_instants_does_no_harm(start: float) -> None:
    house = House(start, worker_timeout=0.3)
    house.serve(b"w")
    house.wait(0.1)
    house.beat(b"w")
    house.wait(0.2)
    assert states(house) == {b"w": "idle"}
    house.wait(0.1 + 1e-6)
    assert states(house) == {}


def test_a_busy_worker_may_be_silent_for_as_long_as_it_is_connected(house: House) -> None:
    house.serve(b"w")
    key = house.ask()
    house.wait(1000 * WORKER_TIMEOUT)
    assert states(house) == {b"w": "busy"}
    house.answer(b"w", key)
    house.wait(WORKER_TIMEOUT * 0.99)
    assert states(house) == {b"w": "idle"}


def test_a_loading_worker_may_be_silent_for_as_long_as_it_is_connected(house: House) -> None:
    house.load(b"w")
    house.wait(1000 * WORKER_TIMEOUT)
    assert states(house) == {b"w": "loading"}


def test_a_loading_worker_that_was_asked_to_leave_may_be_silent(house: House) -> None:
    house.load(b"w")
    house.shut_down()
    house.wait(10 * WORKER_TIMEOUT)
    assert states(house) == {b"w": "leaving"}


def test_a_silent_worker_that_is_leaving_is_lost(house: House) -> None:
    house.serve(b"w")
    house.shut_down()
    house.wait(WORKER_TIMEOUT + 1e-3)
    assert house.is_empty()


@pytest.mark.parametrize("state", ["busy", "loading"])
def test_a_silent_worker_is_lost_when_its_connection_is(house: House, state: str) -> None:
    if state == "busy":
        house.serve(b"w")
        house.ask()
    else:
        house.load(b"w")
    house.cut.add(b"w")  # stopped, not closed: libzmq's heartbeat ends the connection
    house.wait(WORKER_TIMEOUT / 2 + 1e-3)
    assert states(house) == {}


def test_nobody_is_lost_because_the_broker_was_held_up(house: House) -> None:
    house.serve(b"w")
    house.now += 100 * WORKER_TIMEOUT
    house.perform(house.state.tick(house.now))
    assert house.take(b"w", Probe)
    house.beat(b"w")
    house.wait(WORKER_TIMEOUT * 0.99)
    assert states(house) == {b"w": "idle"}


def test_a_worker_is_watched_once_however_often_it_comes_and_goes(house: House) -> None:
    for _ in range(50):
        house.serve(b"w")
        house.goodbye(b"w")
        house.wait(0.1)
    house.serve(b"w")
    house.wait(WORKER_TIMEOUT * 0.6)
    assert len(house.take(b"w", Probe)) == 1


def test_a_worker_that_was_given_up_registers_again(house: House) -> None:
    house.serve(b"w")
    house.wait(2 * WORKER_TIMEOUT)
    house.beat(b"w")
    assert house.take(b"w", Unknown)
    house.worker(b"w", ready())
    assert states(house) == {b"w": "idle"}
