"""For how long a request waits, and what it is told in the end."""

from __future__ import annotations

import pytest

from aserpc.messages import Answer, Request

from .builders import QUEUE_TIMEOUT, House, ready, session


@pytest.fixture
def house() -> House:
    return House()


# ---- nobody there --------------------------------------------------------------------------------


def test_a_name_that_nobody_serves_fails_at_once_and_lists_who_is_there(house: House) -> None:
    house.serve(b"v", name="mace")
    house.load(b"w", name="emt")
    house.ask()
    reason = house.reason()
    assert reason.startswith("No workers available for 'lj'")
    assert "Served now: 'emt', 'mace'." in reason


def test_without_any_worker_the_error_says_that_nothing_is_served(house: House) -> None:
    house.ask()
    assert "Served now: nothing." in house.reason()
    assert house.is_empty()


def test_the_list_of_those_who_are_there_is_bounded(house: House) -> None:
    for number in range(200):
        house.serve(str(number).encode(), name="x" * 200 + str(number))
    house.ask()
    reason = house.reason()
    assert "and 150 more" in reason
    assert len(reason) < 15_000


def test_a_name_whose_only_worker_is_leaving_fails_at_once(house: House) -> None:
    house.serve(b"w")
    house.ask(0)
    house.shut_down()
    house.ask(1)
    assert house.reason().startswith("No workers available for 'lj'")


def test_a_name_whose_worker_left_for_good_fails_at_once(house: House) -> None:
    house.serve(b"w")
    assert house.leave(b"w")
    house.ask()
    assert house.answers() == {(session("s"), 0): "no_workers"}
    assert house.is_empty()


def test_a_request_waits_while_the_worker_loads(house: House) -> None:
    house.load(b"w")
    key = house.ask()
    house.wait(10 * QUEUE_TIMEOUT)
    assert house.answers() == {}
    assert house.ping(key).known[0][3].startswith("a worker is loading")
    house.worker(b"w", ready())
    assert house.given(b"w") == [key]


# ---- queue timeout -------------------------------------------------------------------------------


def desert(house: House) -> tuple[bytes, int]:
    """Lose the only worker while a request waits."""
    house.serve(b"w")
    house.ask(0)
    key = house.ask(1)
    house.answer(b"w", (session("s"), 0))
    house.answers()
    house.vanish(b"w")
    return key


def test_who_waits_without_worker_for_the_queue_timeout_is_told_why(house: House) -> None:
    key = desert(house)
    lost_at = house.state.calculators["lj"].deserted_at
    assert lost_at is not None
    house.wait(lost_at + QUEUE_TIMEOUT - house.now - 1e-6)
    assert house.answers() == {}
    house.wait(2e-6)
    (answer,) = house.take(b"client", Answer)
    assert answer.key == key
    assert answer.error is not None
    assert answer.error["kind"] == "queue_timeout"
    assert "its connection broke" in answer.error["message"]
    assert house.is_empty()


def test_a_loading_worker_ends_the_queue_timeout(house: House) -> None:
    desert(house)
    house.wait(QUEUE_TIMEOUT - 5)
    house.load(b"v")
    house.wait(5 * QUEUE_TIMEOUT)
    assert house.answers() == {}


def test_the_queue_timeout_begins_anew_when_another_worker_is_lost(house: House) -> None:
    desert(house)
    house.wait(QUEUE_TIMEOUT - 5)
    house.load(b"v")
    house.vanish(b"v")
    house.wait(QUEUE_TIMEOUT - 5)
    assert house.answers() == {}
    house.wait(5)
    assert [*house.answers().values()] == ["queue_timeout"]


def test_the_queue_timeout_is_none_while_a_worker_is_busy(house: House) -> None:
    house.serve(b"w")
    house.ask(0)
    house.ask(1)
    house.wait(20 * QUEUE_TIMEOUT)
    assert house.answers() == {}


def test_a_request_that_comes_meanwhile_waits_too(house: House) -> None:
    desert(house)
    late = house.ask(2)
    assert house.answers() == {}
    house.serve(b"v")
    house.answer(b"v", (session("s"), 1))
    assert house.given(b"v")[-1] == late


def test_after_the_queue_timeout_the_next_request_fails_at_once(house: House) -> None:
    # A worker that leaves, but computes on, keeps the name known.
    house.serve(b"w")
    house.ask(0)
    house.ask(1)
    house.shut_down()
    house.wait(QUEUE_TIMEOUT + 1)
    assert [*house.answers().values()] == ["queue_timeout"]
    house.ask(2)
    assert [*house.answers().values()] == ["no_workers"]


def test_when_the_last_that_waits_is_cancelled_the_next_request_fails_at_once(
    house: House,
) -> None:
    house.serve(b"w")
    house.ask(0)
    key = house.ask(1)
    house.shut_down()
    house.cancel(key)
    house.ask(2)
    assert [*house.answers().values()] == ["no_workers"]


# ---- deadlines -----------------------------------------------------------------------------------


def test_a_deadline_drops_what_is_queued(house: House) -> None:
    house.serve(b"w")
    house.ask(0)
    key = house.ask(1, deadline=3.0)
    house.wait(2.999)
    assert house.answers() == {}
    house.wait(0.001)
    assert house.answers() == {key: "deadline"}


def test_a_deadline_leaves_alone_what_runs(house: House) -> None:
    house.serve(b"w")
    key = house.ask(deadline=3.0)
    house.wait(100)
    assert house.answers() == {}
    house.answer(b"w", key)
    assert house.answers() == {key: None}


def test_the_worker_is_told_how_much_of_the_deadline_is_left(house: House) -> None:
    house.serve(b"w")
    first = house.ask(0)
    house.ask(1, deadline=10.0)
    house.wait(4)
    house.take(b"w", Request)
    house.answer(b"w", first)
    (sent,) = house.take(b"w", Request)
    assert sent.deadline == pytest.approx(6.0)


def test_what_comes_back_to_the_queue_after_its_deadline_is_dropped(house: House) -> None:
    house.serve(b"w")
    key = house.ask(deadline=3.0)
    house.wait(5)
    house.load(b"v")
    house.vanish(b"w")
    assert house.answers() == {key: "deadline"}


def test_a_deadline_in_the_past_or_no_number_is_a_deadline_now(house: House) -> None:
    house.serve(b"w")
    house.ask(0)
    keys = [house.ask(1, deadline=-5.0), house.ask(2, deadline=float("nan"))]
    house.wait(0)
    assert house.answers() == dict.fromkeys(keys, "deadline")


def test_an_endless_deadline_is_none(house: House) -> None:
    house.serve(b"w")
    house.ask(0)
    house.ask(1, deadline=float("inf"))
    house.wait(1e4)
    assert house.answers() == {}


def test_an_answered_request_is_not_kept_until_its_deadline(house: House) -> None:
    house.serve(b"w")
    for number in range(1000):
        house.answer(b"w", house.ask(number, deadline=3600.0))
    assert len(house.state._timers) == 3  # the worker's, the client's, the oldest answer's
    assert len(house.state._timers._heap) < 200


# ---- the broker stops ----------------------------------------------------------------------------


def test_stopping_answers_all_and_tells_the_workers(house: House) -> None:
    house.serve(b"v", b"w", capacity=2)
    house.load(b"x", name="emt")
    keys = [house.ask(number) for number in range(6)]
    keys.append(house.ask(6, name="emt", op="describe"))
    house.perform(house.state.stop())
    assert house.answers() == dict.fromkeys(keys, "broker_stopped")
    assert all(type(house.mail[p][-1]).KIND == "STOPPING" for p in (b"v", b"w", b"x"))
    assert house.state.jobs == {}


def test_a_request_to_a_stopping_broker_is_answered(house: House) -> None:
    house.serve(b"w")
    house.perform(house.state.stop())
    key = house.ask()
    assert house.answers() == {key: "broker_stopped"}
