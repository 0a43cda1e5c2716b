"""What is taken back from workers while messages cross, connections break and workers leave."""

from __future__ import annotations

import pytest

from aserpc.broker.ahead import PATIENCE
from aserpc.broker.peers import NOBODY, remote_peer
from aserpc.messages import Answer, Demand, Offer, Unknown

from .builders import WORKER_TIMEOUT, House, ready
from .quick_workers import THREE, ask, refuse, taken_back, warm

FAR = remote_peer(NOBODY, b"far")


@pytest.fixture
def house() -> House:
    return House()


def test_what_was_sent_ahead_is_looked_at_by_one_timer(house: House) -> None:
    warm(house, b"v", b"w")
    ask(house, 6)
    slow, other = house.state.workers[b"v"], house.state.workers[b"w"]
    assert [len(worker.jobs) for worker in (slow, other)] == [3, 3]
    house.wait(0.9 * PATIENCE)
    for key in list(other.jobs):
        house.answer(b"w", key, seconds=THREE)
    house.wait(0.2 * PATIENCE)
    assert [len(worker.jobs) for worker in (slow, other)] == [1, 2]
    calls = [timer.call for _, _, timer in house.state._timers._heap]
    assert calls.count(house.state._look_ahead) == 1


def test_nothing_is_sent_behind_a_long_calculation_when_all_others_were_cancelled(
    house: House,
) -> None:
    warm(house, b"w")
    keys = ask(house, 2)
    house.cancel(keys[1])
    house.given(b"w")
    house.wait(2 * PATIENCE)  # and its consistency is checked
    ask(house, 1, first=7)
    assert house.given(b"w") == []


def test_a_cancelled_one_does_not_make_its_worker_slow(house: House) -> None:
    house.serve(b"w", capacity=3)
    house.answer(b"w", house.ask(1000), seconds=THREE)
    house.given(b"w")
    ask(house, 9)
    given = house.given(b"w")
    house.wait(0.9 * PATIENCE)
    house.cancel(given[1])
    house.answer(b"w", given[0], seconds=THREE)
    house.wait(0.2 * PATIENCE)
    assert house.state.workers[b"w"].ahead


# ---- a worker that registers again ---------------------------------------------------------------


def test_one_that_is_to_give_back_is_asked_when_its_connection_may_have_broken(
    house: House,
) -> None:
    warm(house, FAR)
    keys = ask(house, 2)
    house.wait(2 * PATIENCE)
    assert taken_back(house, FAR) == keys[1:]
    house.answer(FAR, keys[0], seconds=THREE)
    # Its refusal was lost with a connection that was back before anything failed.
    house.state.connection_closed(house.now)
    house.wait(1.0)
    assert house.take(FAR, Unknown)


def test_what_a_worker_registers_with_is_taken_back_too(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 3)
    house.wait(2 * PATIENCE)
    house.answer(b"w", keys[0])
    house.worker(b"w", ready(running=keys[1:]))
    taken_back(house, b"w")
    house.wait(100.0)
    assert taken_back(house, b"w") == keys[2:]
    house.serve(b"v")
    assert house.given(b"v") == keys[2:]


def test_what_one_has_that_takes_fewer_from_now_on_is_taken_back(house: House) -> None:
    house.serve(b"w", capacity=4, max_batch=2)
    keys = ask(house, 4)
    assert house.given(b"w") == keys
    house.answer(b"w", keys[0], seconds=1.0)
    house.worker(b"w", ready(capacity=1, max_batch=1, running=keys[1:]))
    house.wait(2 * PATIENCE)
    assert taken_back(house, b"w") == keys[2:]


def test_one_that_it_registers_with_while_it_is_taken_back_is_given_back_once(
    house: House,
) -> None:
    warm(house, b"w")
    keys = ask(house, 2)
    house.wait(2 * PATIENCE)
    assert taken_back(house, b"w") == keys[1:]
    house.answer(b"w", keys[0], seconds=THREE)
    house.worker(b"w", ready(running=keys[1:], sent=1))  # of itself, before it read that
    refuse(house, b"w", keys[1])
    assert house.given(b"w") == [*keys, keys[1]]


def test_what_was_sent_ahead_by_the_broker_before_is_taken_back(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 3)
    house.restart()
    house.worker(b"w", Answer(*keys[0]))
    house.worker(b"w", ready(running=keys[1:]))
    ask(house, 3)
    house.wait(100.0)
    assert taken_back(house, b"w") == keys[2:]


def test_one_that_was_taken_back_on_its_way_is_sent_again_once(house: House) -> None:
    """A question, a request ahead and its cancellation are on the way when a worker registers."""
    warm(house, FAR)
    first = house.ask(0)
    house.state.connection_closed(house.now)  # another worker's
    house.wait(0.015)
    (question,) = house.take(FAR, Unknown)
    second = house.ask(1)
    assert house.given(FAR) == [first, second]
    house.wait(2 * PATIENCE)
    assert taken_back(house, FAR) == [second]
    house.answer(FAR, first, seconds=THREE)
    house.worker(FAR, ready(sent=question.sent))
    refuse(house, FAR, second)  # it has come to the request and its cancellation now
    assert house.given(FAR) == [second]


def test_one_that_may_have_begun_what_was_on_its_way_gets_nothing_more(house: House) -> None:
    warm(house, FAR)
    first = house.ask(0)
    house.state.connection_closed(house.now)
    house.wait(0.015)
    (question,) = house.take(FAR, Unknown)
    second = house.ask(1)
    house.wait(2 * PATIENCE)
    house.answer(FAR, first, seconds=1.0)
    house.serve(b"v")
    assert house.given(b"v") == [second]
    house.given(FAR)
    house.worker(FAR, ready(sent=question.sent))
    house.ask(2)
    assert not house.given(FAR)


# ---- a worker that leaves ------------------------------------------------------------------------


def test_what_is_taken_back_from_a_leaving_worker_has_something_to_wait_for(house: House) -> None:
    warm(house, b"w")
    ask(house, 2)
    house.shut_down()
    house.wait(2 * PATIENCE)
    assert house.state.calculators["lj"].deserted_at is not None


def test_what_a_leaving_worker_refuses_is_told_to_the_manager(house: House) -> None:
    house.worker(b"manager", Offer([["lj", 0]], {"pid": 1, "host": "h"}))
    warm(house, b"w")
    keys = ask(house, 2)
    house.wait(2 * PATIENCE)
    house.worker(b"w", ready(running=keys))
    house.shut_down()
    house.wait(10.0)
    house.take(b"manager", Demand)
    refuse(house, b"w", keys[1])
    house.wait(10.0)
    assert [demand.queued for demand in house.take(b"manager", Demand)][-1:] == [1]


def test_a_leaving_worker_that_has_begun_one_just_then_is_not_lost(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 2)
    house.wait(2 * PATIENCE)
    house.answer(b"w", keys[0])
    house.shut_down()
    house.wait(2 * WORKER_TIMEOUT)
    house.answer(b"w", keys[1])
    assert house.answers() == dict.fromkeys(keys)
