"""More requests than there may be, and sessions beside each other."""

from __future__ import annotations

import statistics

import pytest

from aserpc.broker.answers import weigh
from aserpc.messages import Answer, Buffer, RequestKey

from .builders import House, ready, request, session

MANY = 10_000


@pytest.fixture
def house() -> House:
    return House()


def ask_with(house: House, number: int, size: int, name: str = "lj") -> RequestKey:
    """Send a request with a payload of so many bytes."""
    payload: list[Buffer] = [bytes(size)]
    message = request(number, name=name)
    house.perform(house.state.from_client(b"client", message, payload, house.now))
    return message.key


# ---- how many ------------------------------------------------------------------------------------


@pytest.fixture
def small() -> House:
    """A house in which three requests may wait for each calculator, with one worker."""
    house = House(max_queue=3)
    house.serve(b"w")
    return house


def test_more_requests_than_may_wait_are_refused_at_once(small: House) -> None:
    keys = [small.ask(number) for number in range(6)]
    assert small.answers() == {keys[4]: "busy", keys[5]: "busy"}
    assert len(small.state.jobs) == 4, "one is computed"


def test_the_refusal_tells_the_limit(small: House) -> None:
    for number in range(5):
        small.ask(number)
    assert small.reason() == "3 requests wait already, as many as may (max_queue)"


def test_as_soon_as_there_is_room_requests_are_taken(small: House) -> None:
    for number in range(5):
        small.ask(number)
    small.given(b"w")
    small.answer(b"w", (session("s"), 0))
    small.answers()
    key = small.ask(5)
    assert small.answers() == {}
    assert key in small.state.jobs


def test_a_request_that_was_taken_is_not_refused_when_it_is_sent_again(small: House) -> None:
    for number in range(4):
        small.ask(number)
    for number in range(4):
        small.ask(number)
        small.ask(number, peer=b"new")
    assert small.answers() == small.answers(b"new") == {}
    for number in range(4):
        small.answer(b"w", (session("s"), number))
    assert len(small.answers(b"new")) == 4


def test_one_that_was_answered_and_is_asked_for_again_is_not_refused(small: House) -> None:
    key = small.ask(9)
    small.answer(b"w", key)
    for number in range(5):
        small.ask(number)
    small.take(b"client", Answer)
    small.ask(9)
    assert small.answers() == {key: None}


def test_what_goes_back_to_the_queue_is_not_refused(small: House) -> None:
    keys = [small.ask(number) for number in range(4)]
    small.vanish(b"w")
    assert small.answers() == {}
    assert [*small.state.jobs] == keys


def test_each_calculator_has_a_queue_of_its_own(small: House) -> None:
    small.load(b"v", name="emt")
    for number in range(5):
        small.ask(number)
    small.answers()
    small.ask(5, name="emt")
    assert small.answers() == {}


def test_those_who_ask_what_it_is_count_too(small: House) -> None:
    small.load(b"v", name="emt")
    keys = [small.ask(number, name="emt", op="describe") for number in range(4)]
    assert small.answers() == {keys[3]: "busy"}


def test_a_free_worker_makes_room(small: House) -> None:
    small.serve(*(b"%d" % number for number in range(10)))
    for number in range(14):
        small.ask(number)
    assert small.answers() == {}


def test_a_name_that_nobody_serves_is_not_called_busy(small: House) -> None:
    for number in range(5):
        small.ask(number)
    small.answers()
    small.ask(6, name="mace")
    assert [*small.answers().values()] == ["no_workers"]


# ---- how large -----------------------------------------------------------------------------------

SIZE = 100_000
EACH = weigh([bytes(SIZE)])


def test_requests_that_would_take_more_memory_than_they_may_are_refused() -> None:
    house = House(max_queue_bytes=3 * EACH)
    house.load(b"v", name="emt")
    house.load(b"w")
    keys = [ask_with(house, number, SIZE, ("lj", "emt")[number % 2]) for number in range(5)]
    assert house.state.held == 3 * EACH
    (answer, _) = house.take(b"client", Answer)
    assert answer.key == keys[3], "all calculators share it"
    assert answer.error is not None
    assert answer.error["kind"] == "busy"
    assert "(max_queue_bytes)" in answer.error["message"]


def test_what_a_worker_has_takes_memory_until_it_is_answered() -> None:
    house = House(max_queue_bytes=2 * EACH + 5000)
    house.serve(b"w")
    first, _, third = (ask_with(house, number, SIZE) for number in range(3))
    assert house.answers() == {third: "busy"}
    house.answer(b"w", first)
    house.answers()
    ask_with(house, 3, SIZE)
    assert house.answers() == {}


def test_small_requests_count_as_what_they_take(house: House) -> None:
    house.load(b"w")
    for number in range(100):
        house.ask(number)
    assert house.state.held > 100 * 1000


def test_one_that_is_larger_than_all_may_be_is_taken_when_there_is_no_other() -> None:
    house = House(max_queue_bytes=EACH)
    house.serve(b"w")
    large = ask_with(house, 0, 10 * SIZE)
    assert house.answers() == {}
    key = ask_with(house, 1, 10)
    assert house.answers() == {key: "busy"}
    house.answer(b"w", large)
    assert house.answers() == {large: None}


def test_what_is_refused_leaves_nothing() -> None:
    house = House(max_queue_bytes=EACH)
    house.restart()
    house.serve(b"w")
    first = ask_with(house, 0, SIZE)
    for number in range(1, 50):
        ask_with(house, number, SIZE, "lj" if number % 2 else "unknown")
    house.answer(b"w", first)
    house.goodbye(b"w")
    assert house.is_empty()


# ---- side by side --------------------------------------------------------------------------------


def test_a_session_with_one_request_does_not_wait_for_one_with_ten_thousand(house: House) -> None:
    state = house.state
    state.from_worker(b"w", ready(), [], 0.0)
    for number in range(MANY):
        state.from_client(b"many", request(number, "many"), [], 0.0)
    waits: list[int] = []
    for number in range(20):
        key = request(number, "one").key
        state.from_client(b"one", request(number, "one"), [], 0.0)
        before = 0
        while state.jobs[key].worker is None:
            (running,) = state.workers[b"w"].jobs
            state.from_worker(b"w", Answer(*running), [], 0.0)
            before += 1
        state.from_worker(b"w", Answer(*key), [], 0.0)
        waits.append(before)
    assert statistics.mean(waits) <= 2, f"{waits} others were computed before each"


def test_ten_sessions_get_a_tenth_each_whatever_else_they_ask(house: House) -> None:
    state = house.state
    state.from_worker(b"w", ready(capacity=4), [], 0.0)
    for who in range(10):
        for number in range(MANY // 10 if who else MANY):
            state.from_client(b"%d" % who, request(number, str(who)), [], 0.0)
    served: dict[bytes, int] = {}
    for _ in range(1000):
        key = next(iter(state.workers[b"w"].jobs))
        served[key[0]] = served.get(key[0], 0) + 1
        state.from_worker(b"w", Answer(*key), [], 0.0)
    assert all(abs(count - 100) <= 4 for count in served.values()), served
