"""Workers that die in mid-calculation: who is to blame, and what the client is told."""

from __future__ import annotations

import gc
import sys

import pytest

from aserpc.broker.deaths import EVIDENCE_AGE, EVIDENCE_TIME
from aserpc.broker.tables import JobState
from aserpc.messages import Accept, Answer, Demand, Hello, Offer, Ready, Spawning, WorkerEnded
from aserpc.messages.base import RequestKey

from .builders import House, about, request, session

KEY: RequestKey = (session("s"), 0)
SEGFAULT = "its process was killed by signal SIGSEGV"


@pytest.fixture
def house() -> House:
    """A broker with a manager that has started six processes."""
    house = House()
    house.worker(b"manager", Offer([["lj", 0]], {"pid": 1, "host": "h"}))
    house.worker(b"manager", Spawning("lj", [f"id{n}" for n in range(6)], ""))
    house.take(b"manager", Accept)
    return house


def serve(house: House, *numbers: int, limit: float | None = None) -> None:
    for number in numbers:
        peer, identity = b"w%d" % number, {"spawn_id": f"id{number}", "pid": number, "host": "h"}
        house.worker(peer, Hello("lj", identity))
        house.worker(peer, Ready("lj", identity, about(), calculation_timeout=limit))


def ended(house: House, number: int, how: str = SEGFAULT, *, told: bool = False) -> None:
    house.worker(b"manager", WorkerEnded("lj", f"id{number}", how, "stack\nin C", told))


def computes(house: House) -> int:
    """Return which worker computes the request."""
    worker = house.job(KEY).worker
    assert worker is not None
    return int(worker.peer[1:])


def error(house: House) -> tuple[str, str]:
    (answer,) = house.take(b"client", Answer)
    assert answer.error is not None
    return answer.error["kind"], answer.error["message"]


def test_the_second_death_waits_for_the_managers_words(house: House) -> None:
    serve(house, 0, 1)
    house.ask()
    first = computes(house)
    house.vanish(b"w%d" % first)
    ended(house, first, "its process ended with exit code 139")
    second = computes(house)
    house.cut.add(b"w%d" % second)
    house.state.connection_closed(house.now)
    house.wait(0.1)
    assert house.job(KEY).state is JobState.CONDEMNED
    assert not house.answers()
    ended(house, second)
    kind, message = error(house)
    assert kind == "poison"
    assert "exit code 139" in message
    assert SEGFAULT in message
    assert message.count("in C") == 2


def test_a_manager_that_tells_nothing_is_not_waited_for_long(house: House) -> None:
    serve(house, 0, 1)
    house.ask()
    house.vanish(b"w%d" % computes(house))
    house.vanish(b"w%d" % computes(house))
    house.wait(EVIDENCE_TIME)
    kind, message = error(house)
    assert kind == "poison"
    assert "connection broke" in message


def test_a_manager_may_see_a_death_before_the_socket_does(house: House) -> None:
    serve(house, 0, 1)
    house.ask()
    for _ in range(2):
        ended(house, computes(house))
    kind, message = error(house)
    assert kind == "poison"
    assert message.count(SEGFAULT) == 2


def test_a_worker_that_was_told_to_end_is_no_evidence(house: House) -> None:
    serve(house, 0, 1, 2)
    house.ask()
    for _ in range(2):
        last = computes(house)
        house.vanish(b"w%d" % last)
    assert house.job(KEY).state is JobState.CONDEMNED
    ended(house, last, "its process was killed by signal SIGKILL", told=True)
    assert house.job(KEY).state is JobState.RUNNING
    house.answer(b"w%d" % computes(house), KEY)
    assert house.answers() == {KEY: None}


def test_a_worker_that_comes_back_has_not_died(house: House) -> None:
    serve(house, 0)
    house.ask()
    house.vanish(b"w0")
    house.cut.clear()
    serve(house, 0)
    assert computes(house) == 0
    house.vanish(b"w0")
    assert house.job(KEY).state is JobState.QUEUED, "one death, not two"
    ended(house, 0)
    house.wait(EVIDENCE_AGE)
    serve(house, 1)
    house.answer(b"w1", KEY)
    assert house.answers() == {KEY: None}


def test_what_was_condemned_is_spared_when_its_worker_comes_back(house: House) -> None:
    serve(house, 0, 1)
    house.ask()
    for _ in range(2):
        last = computes(house)
        house.vanish(b"w%d" % last)
    assert house.job(KEY).state is JobState.CONDEMNED
    house.cut.clear()
    serve(house, last)
    assert house.job(KEY).state is JobState.RUNNING


def test_one_that_is_spared_has_its_deadline_again(house: House) -> None:
    serve(house, 0, 1)
    house.ask(deadline=10.0)
    for _ in range(2):
        last = computes(house)
        house.vanish(b"w%d" % last)
    ended(house, last, told=True)
    assert house.job(KEY).state is JobState.QUEUED
    house.wait(10.0)
    assert house.answers() == {KEY: "deadline"}


def test_the_words_come_when_it_waits_again_and_make_no_difference(house: House) -> None:
    serve(house, 0)
    house.ask()
    house.vanish(b"w0")
    ended(house, 0)
    assert house.job(KEY).state is JobState.QUEUED
    assert house.job(KEY).attempts == 1
    serve(house, 1)
    house.answer(b"w1", KEY)
    assert house.answers() == {KEY: None}


def test_one_that_is_cancelled_while_its_manager_is_waited_for_is_gone(house: House) -> None:
    serve(house, 0, 1)
    house.ask()
    for _ in range(2):
        last = computes(house)
        house.vanish(b"w%d" % last)
    house.cancel(KEY)
    ended(house, last)
    assert not house.answers()
    house.wait(EVIDENCE_AGE)
    assert not house.state.jobs
    assert not house.state.deaths


def test_the_end_of_an_idle_worker_is_no_death(house: House) -> None:
    serve(house, 0)
    ended(house, 0, "its process ended with exit code 0")
    assert not house.state.workers
    assert not house.state.deaths


def test_a_manager_tells_of_its_own_workers_only(house: House) -> None:
    serve(house, 0)
    house.ask()
    house.worker(b"other", Offer([["emt", 0]], {"pid": 2, "host": "h"}))
    house.worker(b"other", WorkerEnded("lj", "id0", SEGFAULT))
    assert computes(house) == 0


def test_a_calculation_over_its_time_is_not_tried_again(house: House) -> None:
    serve(house, 0, 1, limit=5.0)
    house.ask()
    house.wait(5.0)
    ended(house, computes(house), "its process ended with exit code 1")
    kind, message = error(house)
    assert kind == "calculation_timeout"
    assert "longer than 5 s" in message
    assert "in C" in message


def test_a_death_before_that_time_is_a_death_like_others(house: House) -> None:
    serve(house, 0, 1, limit=5.0)
    house.ask()
    house.wait(2.0)
    ended(house, computes(house))
    assert house.job(KEY).state is JobState.RUNNING


def test_the_time_counts_from_when_the_calculation_began(house: House) -> None:
    identity = {"spawn_id": "id0"}
    house.worker(b"w0", Hello("lj", identity))
    house.worker(b"w0", Ready("lj", identity, about(), capacity=2, calculation_timeout=5.0))
    house.ask(1)
    house.ask(0)
    house.wait(4.0)
    house.answer(b"w0", (session("s"), 1))
    house.wait(4.0)
    ended(house, 0)
    assert house.job(KEY).state is JobState.QUEUED


def test_the_manager_knows_of_a_worker_before_a_request_can_kill_it(house: House) -> None:
    house.ask()
    house.wait(0.1)
    house.take(b"manager", Demand)
    serve(house, 0)
    (demand,) = house.take(b"manager", Demand)
    assert [state for _, state, _ in demand.workers] == ["busy"]
    assert demand.queued == 0


def test_nothing_is_left_of_a_refused_request_for_the_collector() -> None:
    house = House()
    structure = b"a structure"
    references = sys.getrefcount(structure)
    gc.disable()
    try:
        message = request()
        house.serve(b"v", b"w")
        house.perform(house.state.from_client(b"client", message, [structure], house.now))
        for _ in range(2):
            house.vanish(next(peer for peer in (b"v", b"w") if house.given(peer)))
        assert house.answers() == {message.key: "poison"}
        assert sys.getrefcount(structure) == references
    finally:
        gc.enable()
