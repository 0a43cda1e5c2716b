"""The cost of a message does not grow with the queue, the workers or the requests that wait.

Steps of Python are counted, not time.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest

from aserpc.broker.state import BrokerState
from aserpc.client.state import PING_SIZE, ClientState
from aserpc.messages import Answer, Cancel, Heartbeat, Hello, Leave, Ping, Pong, StatusRequest

from .builders import ready, request, session


def steps(event: Callable[[], Any]) -> int:
    """Count the opcodes of an event, so that a scan in a loop or comprehension shows."""
    count = 0

    def trace(frame: Any, what: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        frame.f_trace_opcodes = True
        return trace

    old = sys.gettrace()
    gc.disable()  # its callbacks would be counted
    sys.settrace(trace)
    try:
        event()
    finally:
        sys.settrace(old)
        gc.enable()
    return count


def house(queued: int, workers: int, *, loading: int = 0) -> BrokerState:
    """Return a broker's state with so many busy workers and requests that wait."""
    state = BrokerState(b"i" * 16)
    for number in range(loading):
        state.from_worker(b"loading%d" % number, Hello("lj", {}), [], 0.0)
    for number in range(workers):
        state.from_worker(b"%d" % number, ready(), [], 0.0)
    for number in range(workers + queued):
        state.from_client(b"c", request(number, str(number % 7)), [], 0.0)
    assert len(state.jobs) == workers + queued
    return state


S = "0"
EVENTS: dict[str, Callable[[BrokerState], Callable[[], Any]]] = {
    "a request": lambda state: lambda: state.from_client(b"c", request(10**6, S), [], 1.0),
    "a request again": lambda state: lambda: state.from_client(b"d", request(0, S), [], 1.0),
    "an answer": lambda state: lambda: state.from_worker(b"0", Answer(session(S), 0), [], 1.0),
    "a heartbeat": lambda state: lambda: state.from_worker(b"0", Heartbeat(), [], 1.0),
    "a leave": lambda state: lambda: state.from_worker(b"0", Leave(), [], 1.0),
    "a ping": lambda state: lambda: state.from_client(b"c", Ping([[session(S), 0]]), [], 1.0),
    "a cancellation": lambda state: (
        lambda: state.from_client(b"c", Cancel([[session(str(9 % 7)), 9]]), [], 1.0)
    ),
    "a description": lambda state: (
        lambda: state.from_client(b"c", request(10**6, op="describe"), [], 1.0)
    ),
    "a deadline": lambda state: (
        lambda: state.from_client(b"c", request(10**6, S, deadline=5.0), [], 1.0)
    ),
    "another worker": lambda state: lambda: state.from_worker(b"new", ready(), [], 1.0),
    "a loss": lambda state: lambda: state.unreachable(b"0", Heartbeat(), 1.0),
    "a tick": lambda state: lambda: (state.tick(1.0), state.next_tick()),
}


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_costs_the_same_with_a_long_queue(name: str) -> None:
    small, large = (steps(EVENTS[name](house(queued, 3))) for queued in (10, 10_000))
    assert large <= small + 30


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_costs_the_same_with_many_workers(name: str) -> None:
    small, large = (steps(EVENTS[name](house(10, workers))) for workers in (3, 1000))
    assert large <= small + 30


@pytest.mark.parametrize("name", ["a request", "a description", "another worker"])
def test_an_event_costs_the_same_while_many_workers_load(name: str) -> None:
    small, large = (steps(EVENTS[name](house(0, 0, loading=number))) for number in (3, 1000))
    assert large <= small + 30


def test_an_event_costs_the_same_with_many_workers_that_have_room() -> None:
    def cost(workers: int) -> int:
        state = BrokerState(b"i" * 16)
        for number in range(workers):
            state.from_worker(b"%d" % number, ready(capacity=4), [], 0.0)
        for number in range(2 * workers):
            state.from_client(b"c", request(number), [], 0.0)
        return steps(lambda: state.from_client(b"c", request(10**6), [], 1.0))

    assert cost(1000) <= cost(3) + 30


def test_what_arrived_costs_the_same_however_much_is_kept() -> None:
    def cost(kept: int) -> int:
        state = house(0, 1)
        for number in range(kept):
            state.answers.keep(b"c", Answer(session("t"), number), [], 0.0)
        received = [[session("t"), 0, 0]]
        return steps(lambda: state.from_client(b"c", Ping(received=received), [], 1.0))

    assert cost(10_000) <= cost(3) + 30


def test_the_last_of_many_workers_to_load_costs_no_more() -> None:
    def last(workers: int) -> int:
        state = house(0, 0, loading=workers)
        state.from_client(b"c", request(1, op="describe"), [], 0.0)
        return steps(lambda: state.from_worker(b"loading%d" % (workers - 1), ready(), [], 1.0))

    assert last(1000) <= last(3) + 30


def test_a_status_is_the_one_answer_that_looks_at_all() -> None:
    def status(workers: int) -> int:
        state = house(10, workers)
        return steps(lambda: state.from_client(b"c", StatusRequest(1), [], 1.0))

    assert status(1000) > 50 * status(3) / 3


# ---- the client ----------------------------------------------------------------------------------


def desk(pending: int) -> ClientState:
    state = ClientState("ipc://somewhere")
    for number in range(pending):
        state.submit(request(number), [], 0.0, 60.0, 3600.0)
    return state


@pytest.mark.parametrize(
    "event",
    [
        lambda state: state.submit(request(10**6), [], 0.5, 60.0),
        lambda state: state.receive(Answer(*request(1).key), [], 0.5),
        lambda state: state.cancel(request(1).key),
        lambda state: (state.tick(0.5), state.next_tick()),
        lambda state: state.receive(Pong(b"", [[*request(1).key, "", ""]]), [], 0.5),
    ],
    ids=["a request", "an answer", "a cancellation", "a tick", "news"],
)
def test_a_client_s_event_costs_the_same_with_many_requests(
    event: Callable[[ClientState], Any],
) -> None:
    def cost(pending: int) -> int:
        state = desk(pending)
        return steps(lambda: event(state))

    assert cost(10_000) <= cost(10) + 30


def test_a_client_s_ping_costs_no_more_than_what_it_lists() -> None:
    def cost(pending: int) -> int:
        state = desk(pending)
        return steps(lambda: (state.tick(1.5), state.next_tick()))

    assert cost(20_000) <= cost(PING_SIZE) + 30
