"""The last answers of a worker, which it gives again to a broker that has not got them."""

from __future__ import annotations

import pytest

from aserpc.messages import MAX_AHEAD, Answer, Cancel, Message, Ready, RequestKey, Stay, Unknown
from aserpc.worker.given import KEEP_SIZE, KEEP_TIME
from aserpc.worker.state import REGISTER_INTERVAL

from .builders import House, about, ready, request
from .worker_desk import HEARTBEAT, Desk, kinds

RESULTS = b"results"
CAPACITY = 3


@pytest.fixture
def desk() -> Desk:
    """A worker that may have three requests, and some more."""
    desk = Desk(capacity=CAPACITY)
    desk.now += REGISTER_INTERVAL
    return desk


def compute(desk: Desk, number: int, payload: bytes = RESULTS) -> RequestKey:
    """Have a worker compute and answer a request."""
    key = desk.ask(number)
    assert desk.begin() == key
    (answer,) = desk.state.computed(Answer(*key), desk.now, [payload])
    assert answer == Answer(*key)
    return key


def given(messages: list[Message]) -> list[RequestKey]:
    """Return which answers are among the messages, which end with READY."""
    assert isinstance(messages[-1], Ready)
    return [message.key for message in messages if isinstance(message, Answer)]


# ---- the worker ----------------------------------------------------------------------------------


def test_a_broker_without_any_answer_gets_the_last_ones_before_it_registers(desk: Desk) -> None:
    keys = [compute(desk, number) for number in range(2)]
    messages = desk.get(Unknown())
    assert kinds(messages) == ["ANSWER", "ANSWER", "READY"]
    assert given(messages) == keys
    assert [list(desk.state.payload(Answer(*key))) for key in keys] == [[RESULTS]] * 2


def test_a_broker_that_has_some_gets_the_rest(desk: Desk) -> None:
    first, second = compute(desk, 0), compute(desk, 1)
    assert given(desk.get(Unknown(0, list(first)))) == [second]


def test_a_broker_that_has_all_gets_none(desk: Desk) -> None:
    compute(desk, 0)
    last = compute(desk, 1)
    assert given(desk.get(Unknown(0, list(last)))) == []
    desk.now += REGISTER_INTERVAL
    assert given(desk.get(Unknown())) == [], "they are not kept for the next one"


def test_as_many_are_kept_as_it_may_have_requests(desk: Desk) -> None:
    keys = [compute(desk, number) for number in range(20)]
    assert given(desk.get(Unknown())) == keys[-CAPACITY - MAX_AHEAD :]


def test_each_is_given_again_once(desk: Desk) -> None:
    """A link that is too slow for an answer would break of it for ever."""
    first = compute(desk, 0)
    assert given(desk.get(Unknown())) == [first]
    second = compute(desk, 1)
    desk.now += REGISTER_INTERVAL
    assert given(desk.get(Unknown())) == [second]


def test_they_are_kept_for_a_time(desk: Desk) -> None:
    compute(desk, 0)
    desk.now += KEEP_TIME / 2
    later = compute(desk, 1)
    desk.now += KEEP_TIME / 2
    assert given(desk.get(Unknown())) == [later]


def test_what_is_old_takes_no_memory(desk: Desk) -> None:
    key = compute(desk, 0)
    for _ in range(int(KEEP_TIME / HEARTBEAT) + 1):
        desk.wait(HEARTBEAT)
        desk.get(Stay())
    assert list(desk.state.payload(Answer(*key))) == []
    assert desk.state._given._size == 0


def test_they_are_bounded_in_bytes(desk: Desk) -> None:
    large = bytes(KEEP_SIZE // 2 + 1)
    compute(desk, 0, large)
    second = compute(desk, 1, large)
    assert given(desk.get(Unknown())) == [second]
    compute(desk, 2, bytes(KEEP_SIZE + 1))
    desk.now += REGISTER_INTERVAL
    assert given(desk.get(Unknown())) == []


def test_what_was_not_begun_is_not_given_again(desk: Desk) -> None:
    desk.ask(0)
    desk.ask(1)
    messages = desk.get(Unknown())
    assert given(messages) == []


# ---- the broker ----------------------------------------------------------------------------------


@pytest.fixture
def house() -> House:
    house = House()
    house.serve(b"w", capacity=3)
    return house


def question(house: House) -> Unknown:
    """Have the broker ask a worker what it has, as after a restart."""
    worker = house.state.workers[b"w"]
    house.state._is_back(worker, house.now)
    house.perform(house.state._take())
    return house.take(b"w", Unknown)[-1]


def test_the_broker_names_the_last_answer_that_it_has(house: House) -> None:
    assert question(house).answered == []
    keys = [house.ask(number) for number in range(2)]
    house.answer(b"w", keys[1])
    assert question(house).answered == [*keys[1]]
    house.worker(b"w", Answer(*keys[0], part=0))
    assert question(house).answered == [*keys[1]]
    house.answer(b"w", keys[0])
    assert question(house).answered == [*keys[0]]


def test_a_refusal_is_no_answer(house: House) -> None:
    keys = [house.ask(number) for number in range(2)]
    house.answer(b"w", keys[0])
    house.cancel(keys[1])
    house.answer(b"w", keys[1], error={"kind": "cancelled"})
    assert question(house).answered == [*keys[0]]


def test_what_a_killed_broker_had_not_passed_on_is_not_computed_again(house: House) -> None:
    # It had read the answer, or had it in its socket.
    key = house.ask(0)
    house.wait(1.0)
    house.restart()
    house.worker(b"w", Answer(*key))
    house.worker(b"w", ready(capacity=3))
    house.ask(0)
    assert house.answers() == {key: None}
    assert house.given(b"w") == []


def test_what_is_given_twice_is_delivered_once_and_not_kept(house: House) -> None:
    key = house.ask(0)
    house.answer(b"w", key)
    house.client(request(1, received=[[*key, key[1]]]))
    house.answer(b"w", key)
    assert house.answers() == {key: None}
    assert len(house.state.answers) == 0


def test_the_question_fits_what_the_worker_has(house: House, desk: Desk) -> None:
    """The two of them, when the broker is killed with an answer in its hands."""
    keys = [house.ask(number) for number in range(2)]
    for number in range(2):
        compute(desk, number)
    house.answer(b"w", keys[0])
    messages = desk.get(question(house))
    assert given(messages) == [keys[1]]
    for message in messages:
        if isinstance(message, Ready):
            message.about = about()
        house.worker(b"w", message)
    assert house.answers() == dict.fromkeys(keys)


def test_an_answer_that_was_lost_just_after_it_registered_is_given_again(desk: Desk) -> None:
    first = compute(desk, 0)
    last = desk.ask(1)
    assert kinds(desk.get(Unknown(2, list(first)))) == ["READY"]
    assert desk.begin() == last
    desk.state.computed(Answer(*last), desk.now, [RESULTS])
    assert kinds(desk.get(Unknown(2, list(first)))) == ["ANSWER", "READY"]


def test_a_refusal_that_was_lost_just_after_it_registered_is_told_again(desk: Desk) -> None:
    key = desk.ask(0)
    assert kinds(desk.get(Unknown(1))) == ["READY"]
    assert kinds(desk.get(Cancel([list(key)]))) == ["ANSWER"]
    (message,) = desk.get(Unknown(1))
    assert isinstance(message, Ready)
    assert not message.running
