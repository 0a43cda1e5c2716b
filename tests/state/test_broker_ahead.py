"""Requests that are sent to a quick worker ahead of its answers, and taken back from a slow one."""

from __future__ import annotations

import pytest

from aserpc.broker.ahead import PATIENCE
from aserpc.broker.records import AHEAD_TIME, ONE_AHEAD_TIME
from aserpc.broker.tables import WorkerState
from aserpc.messages import MAX_AHEAD, Cancel

from .builders import WORKER_TIMEOUT, House, ready
from .quick_workers import THREE, ask, refuse, taken_back, warm


@pytest.fixture
def house() -> House:
    return House()


# ---- who gets how much ---------------------------------------------------------------------------


def test_a_worker_whose_time_is_unknown_is_sent_one_at_a_time(house: House) -> None:
    house.serve(b"w")
    keys = ask(house, 3)
    assert house.given(b"w") == keys[:1]


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        (1.0, 1),
        (1.1 * ONE_AHEAD_TIME, 1),
        (0.9 * ONE_AHEAD_TIME, 2),
        (0.6 * AHEAD_TIME, 2),
        (THREE, 4),
        (1e-9, 1 + MAX_AHEAD),
    ],
)
def test_a_worker_is_sent_what_takes_a_short_time(house: House, seconds: float, count: int) -> None:
    warm(house, b"w", seconds=seconds)
    keys = ask(house, 2 * count)
    assert house.given(b"w") == keys[:count]
    house.answer(b"w", keys[0], seconds=seconds)
    assert house.given(b"w") == keys[count : count + 1]


def test_a_long_calculation_ends_it(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 9)
    given = house.given(b"w")
    house.answer(b"w", given[0], seconds=1.0)
    for key in given[1:]:
        assert not house.given(b"w")
        house.answer(b"w", key, seconds=THREE)
    assert house.given(b"w") == keys[4:5]


def test_a_refusal_says_nothing_about_the_time(house: House) -> None:
    house.serve(b"w", capacity=2)
    keys = ask(house, 2)
    house.cancel(keys[1])
    refuse(house, b"w", keys[1])
    house.answer(b"w", keys[0], seconds=1.0)
    assert house.state.workers[b"w"].seconds == 1.0
    assert house.state.calculators["lj"].seconds == 1.0


def test_nothing_is_sent_ahead_where_another_worker_is_idle(house: House) -> None:
    warm(house, b"v", b"w")
    ask(house, 2)
    assert [len(house.given(peer)) for peer in (b"v", b"w")] == [1, 1]
    ask(house, 6, first=2)
    assert [len(house.given(peer)) for peer in (b"v", b"w")] == [3, 3]


def test_a_worker_of_batches_is_sent_what_it_takes(house: House) -> None:
    house.serve(b"w", capacity=4, max_batch=2)
    house.answer(b"w", house.ask(1000), seconds=1e-6)
    house.given(b"w")
    assert house.given(b"w") == []
    keys = ask(house, 9)
    assert house.given(b"w") == keys[:4]


# ---- what waits for long is taken back -----------------------------------------------------------


def test_what_waits_behind_a_long_calculation_goes_to_another_worker(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 4)
    house.wait(2 * PATIENCE)
    assert taken_back(house, b"w") == keys[1:]
    house.serve(b"v")
    for key in keys[1:]:
        assert house.given(b"v") == [key]
        house.answer(b"v", key)
    refuse(house, b"w", *keys[1:])
    house.answer(b"w", keys[0], seconds=1.0)
    assert house.answers() == dict.fromkeys(keys)


def test_nothing_is_taken_back_while_the_worker_is_quick(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 40)
    for key in keys:
        house.wait(0.5 * PATIENCE)
        house.answer(b"w", key, seconds=THREE)
    assert house.answers() == dict.fromkeys(keys)
    assert not taken_back(house, b"w")


def test_a_worker_gets_nothing_more_before_it_has_given_back(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 4)
    assert house.given(b"w") == keys
    house.wait(2 * PATIENCE)
    house.answer(b"w", keys[0], seconds=THREE)
    refuse(house, b"w", *keys[1:3])
    assert not house.given(b"w")
    assert house.state.workers[b"w"].state is WorkerState.BUSY
    refuse(house, b"w", keys[3])
    assert house.given(b"w") == keys[1:2]


def test_one_that_it_had_begun_is_answered(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 3)
    house.wait(2 * PATIENCE)
    for key in keys[:2]:
        house.answer(b"w", key)
    refuse(house, b"w", keys[2])
    assert house.answers() == dict.fromkeys(keys[:2])
    assert house.given(b"w") == [*keys, keys[2]]


def test_one_that_it_had_begun_is_another_workers_if_that_was_sent_it(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 2)
    house.wait(2 * PATIENCE)
    house.serve(b"v")
    assert house.given(b"v") == keys[1:]
    house.answer(b"w", keys[0])
    house.answer(b"w", keys[1])
    assert house.answers() == {keys[0]: None}
    house.answer(b"v", keys[1])
    assert house.answers() == {keys[1]: None}


def test_a_worker_that_has_begun_one_is_not_taken_for_idle(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 2)
    house.wait(2 * PATIENCE)
    house.answer(b"w", keys[0])
    house.wait(10 * WORKER_TIMEOUT)
    assert b"w" in house.state.workers
    house.answer(b"w", keys[1])
    assert house.answers() == dict.fromkeys(keys)
    assert house.state.workers[b"w"].state is WorkerState.IDLE


def test_a_part_of_an_answer_is_no_end(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 2)
    house.wait(2 * PATIENCE)
    house.answer(b"w", keys[0])
    house.answer(b"w", keys[1], part=0)
    assert house.state.workers[b"w"].state is WorkerState.BUSY
    house.answer(b"w", keys[1])
    assert house.answers() == dict.fromkeys(keys)


def test_a_worker_that_registers_again_need_not_give_back(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 3)
    house.given(b"w")
    house.wait(2 * PATIENCE)
    house.answer(b"w", keys[0])
    # It was asked on a connection that broke: it has them still.
    house.worker(b"w", ready(running=keys[1:]))
    assert [job.key for job in house.state.workers[b"w"].jobs.values()] == keys[1:]
    for key in keys[1:]:
        house.answer(b"w", key)
    assert house.answers() == dict.fromkeys(keys)
    house.worker(b"w", ready())
    assert house.state.workers[b"w"].state is WorkerState.IDLE


def test_a_refusal_that_crosses_a_registration_ends_nothing(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 2)
    house.wait(2 * PATIENCE)
    # It registers before it reads that one is taken back, and refuses it then.
    house.worker(b"w", ready(running=keys))
    refuse(house, b"w", keys[1])
    house.answer(b"w", keys[0])
    assert house.answers() == {keys[0]: None}
    house.given(b"w")
    house.answer(b"w", keys[1])
    assert house.answers() == {keys[1]: None}


def test_a_worker_that_registers_again_with_nothing_is_idle(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 2)
    house.wait(2 * PATIENCE)
    house.answer(b"w", keys[0])
    house.given(b"w")
    house.worker(b"w", ready())
    assert house.given(b"w") == keys[1:]


def test_one_that_was_cancelled_does_not_wait_again(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 3)
    house.cancel(keys[1])
    house.take(b"w", Cancel)
    house.wait(2 * PATIENCE)
    assert taken_back(house, b"w") == keys[2:]
    refuse(house, b"w", keys[1], keys[2])
    house.answer(b"w", keys[0])
    assert house.given(b"w")[3:] == keys[2:]
    house.answer(b"w", keys[2])
    assert house.answers() == dict.fromkeys([keys[0], keys[2]])


def test_one_whose_deadline_passed_meanwhile_expires(house: House) -> None:
    warm(house, b"w")
    house.ask(0)
    late = house.ask(1, deadline=0.5 * PATIENCE)
    house.wait(2 * PATIENCE)
    assert house.answers() == {late: "deadline"}


# ---- deaths --------------------------------------------------------------------------------------


def test_of_several_that_were_sent_just_now_any_may_be_to_blame(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 3)
    house.vanish(b"w")
    assert [house.job(key).attempts for key in keys] == [0, 0, 0]
    house.serve(b"v")
    for key in keys:
        assert house.given(b"v") == [key]
        house.answer(b"v", key, seconds=THREE)
    assert house.answers() == dict.fromkeys(keys)


def test_a_request_that_kills_quick_workers_is_found(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 3)
    house.vanish(b"w")
    for number in range(2):
        peer = b"v%d" % number
        house.serve(peer)
        while (key := house.given(peer)[0]) != keys[1]:
            house.answer(peer, key, seconds=THREE)
        house.vanish(peer)
    house.serve(b"u")
    assert house.given(b"u") == keys[2:]
    assert house.answers() == {keys[0]: None, keys[1]: "poison"}


def test_after_a_while_it_is_the_first(house: House) -> None:
    house.serve(b"w", capacity=3)
    keys = ask(house, 3)
    house.wait(2.0)
    house.vanish(b"w")
    assert [house.job(key).attempts for key in keys] == [1, 0, 0]


def test_the_first_is_not_blamed_where_others_are_being_taken_back(house: House) -> None:
    warm(house, b"w")
    keys = ask(house, 2)
    house.wait(2 * PATIENCE)
    house.vanish(b"w")
    assert [house.job(key).attempts for key in keys] == [0, 0]
