"""When a worker registers, what it computes next, and what it says meanwhile."""

from __future__ import annotations

import itertools

import pytest

from aserpc.messages import (
    Answer,
    Buffer,
    Cancel,
    Heartbeat,
    Hello,
    Probe,
    Ready,
    Stopping,
    Unknown,
    Welcome,
    failure,
)
from aserpc.worker.batching import Batching, Limits
from aserpc.worker.state import (
    PATIENCE,
    REGISTER_INTERVAL,
    WAITING_INTERVAL,
    Phase,
    WorkerState,
)

from .builders import about, request, session
from .worker_desk import HEARTBEAT, IDENTITY, IDLE_TIMEOUT, Desk, kinds


@pytest.fixture
def desk() -> Desk:
    return Desk()


# ---- registering ---------------------------------------------------------------------------------


def test_it_says_hello_while_it_loads_and_ready_after() -> None:
    state = WorkerState("lj", IDENTITY, IDLE_TIMEOUT, HEARTBEAT, 0.0, capacity=3)
    assert state.start() == [Hello("lj", IDENTITY)]
    assert state.loaded(about(), 5.0) == [Ready("lj", IDENTITY, about(), 3, [])]


def test_a_broker_that_does_not_know_it_hears_hello_again_while_it_loads() -> None:
    desk = Desk(serves=False)
    assert desk.get(Unknown()) == [Hello("lj", IDENTITY)]


def test_a_broker_that_does_not_know_it_hears_what_it_has() -> None:
    desk = Desk(capacity=3)
    keys = [desk.ask(number) for number in range(3)]
    assert desk.begin() == keys[0]
    desk.wait(2 * REGISTER_INTERVAL)
    (message,) = desk.get(Unknown())
    assert isinstance(message, Ready)
    assert sorted(map(tuple, message.running)) == keys


def test_when_it_gives_up_batches_the_broker_hears_that_it_takes_fewer() -> None:
    batching = Batching(Limits(4))
    desk = Desk(batching=batching)
    keys = [desk.ask(number) for number in range(5)]
    assert [job.request.key for job in desk.state.next_batch(desk.now)] == keys[:4]
    batching.stop()
    (answer, message) = desk.end(keys[0])
    assert answer == Answer(*keys[0])
    assert message == Ready(
        "lj", IDENTITY, about(), 1, [list(key) for key in keys[1:]], max_batch=1
    )
    assert kinds(desk.end(keys[1])) == ["ANSWER"]


def test_it_registers_once_however_often_it_was_asked_meanwhile(desk: Desk) -> None:
    desk.begin()
    desk.now += 3600.0
    sent = [message for _ in range(100) for message in desk.get(Unknown())]
    assert kinds(sent) == ["READY"]
    desk.now += REGISTER_INTERVAL
    assert kinds(desk.get(Unknown())) == ["READY"]


def test_it_registers_at_once_with_the_next_broker(desk: Desk) -> None:
    desk.get(Stopping())
    assert kinds(desk.get(Unknown())) == ["READY"]


def test_a_worker_that_goes_does_not_register(desk: Desk) -> None:
    desk.wait(IDLE_TIMEOUT)
    assert desk.state.phase is Phase.LEAVING
    assert desk.get(Unknown()) == []
    desk.state.finish(desk.now)
    assert desk.get(Unknown()) == []


def test_a_worker_that_failed_does_not_register() -> None:
    desk = Desk(serves=False)
    desk.state.load_failed(failure("worker_failed", "no licence"), desk.now)
    desk.now += 2 * REGISTER_INTERVAL
    assert desk.get(Unknown()) == []


# ---- computing -----------------------------------------------------------------------------------


def test_requests_are_computed_in_the_order_in_which_they_came(desk: Desk) -> None:
    keys = [desk.ask(number) for number in (4, 2, 8)]
    done = []
    while (key := desk.begin()) is not None:
        done.append(key)
        assert desk.end(key) == [Answer(*key)]
    assert done == keys


def test_the_payload_goes_with_its_request(desk: Desk) -> None:
    payload: list[Buffer] = [b"atoms"]
    desk.state.receive(request(), payload, desk.now)
    (job,) = desk.state.next_batch(desk.now)
    assert (job.request, job.payload) == (request(), payload)


def test_a_request_that_it_has_already_is_ignored(desk: Desk) -> None:
    key = desk.ask(1)
    desk.ask(1)
    assert desk.begin() == key
    desk.ask(1)
    desk.end(key)
    assert desk.begin() is None


def test_nothing_is_computed_while_it_loads() -> None:
    desk = Desk(serves=False)
    key = desk.ask()
    assert desk.begin() is None
    desk.state.loaded(about(), desk.now)
    assert desk.begin() == key


def test_a_request_that_waits_can_be_cancelled_and_that_is_answered(desk: Desk) -> None:
    first, second = desk.ask(0), desk.ask(1)
    (answer,) = desk.get(Cancel([list(first), [session("x"), 9]]))
    assert isinstance(answer, Answer)
    assert answer.key == first
    assert answer.error is not None
    assert answer.error["kind"] == "cancelled"
    assert desk.begin() == second


def test_what_is_computed_is_not_cancelled(desk: Desk) -> None:
    key = desk.ask()
    desk.begin()
    assert desk.get(Cancel([list(key)])) == []
    assert desk.end(key) == [Answer(*key)]


# ---- signs of life -------------------------------------------------------------------------------


def test_it_beats_in_its_interval(desk: Desk) -> None:
    assert kinds(desk.wait(5 * HEARTBEAT)) == ["HEARTBEAT"] * 5


def test_it_answers_a_probe_and_needs_no_beat_then(desk: Desk) -> None:
    desk.wait(HEARTBEAT / 2)
    assert desk.get(Probe()) == [Heartbeat()]
    assert desk.wait(HEARTBEAT * 0.9) == []


def test_it_beats_while_it_waits_for_leave(desk: Desk) -> None:
    desk.state.heartbeat_interval = 1.0
    desk.wait(IDLE_TIMEOUT)
    assert kinds(desk.wait(2.5)).count("HEARTBEAT") >= 2


# ---- waiting for a broker ------------------------------------------------------------------------


def complaints(desk: Desk, seconds: float) -> list[float]:
    """Look for a complaint ten times a second."""
    start, times = desk.now, []
    while desk.now < start + seconds:
        desk.wait(0.1)
        if desk.state.waiting_since(desk.now) is not None:
            times.append(desk.now - start)
    return times


def test_it_says_every_few_seconds_that_it_waits_for_a_broker() -> None:
    times = complaints(Desk(serves=False), 20.0)
    assert times[0] == pytest.approx(PATIENCE, abs=0.11)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps == pytest.approx([WAITING_INTERVAL] * len(gaps), abs=0.11)
    assert len(times) == 4


def test_it_does_not_complain_of_a_broker_that_answers(desk: Desk) -> None:
    desk.state.idle_timeout = 1e9
    for _ in range(10):
        desk.wait(HEARTBEAT)
        desk.get(Welcome())
        assert desk.state.waiting_since(desk.now) is None


def test_it_says_when_the_broker_is_gone(desk: Desk) -> None:
    times = complaints(desk, 2 * HEARTBEAT)
    assert times[0] == pytest.approx(HEARTBEAT + PATIENCE, abs=0.11)


def test_it_waits_for_the_next_broker_after_one_has_stopped(desk: Desk) -> None:
    desk.get(Stopping())
    assert complaints(desk, 3.0)[0] == pytest.approx(PATIENCE, abs=0.11)
