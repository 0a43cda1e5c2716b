"""A broker that follows a killed one: whom it waits for, and what is not computed twice."""

from __future__ import annotations

import pytest

from aserpc.broker.peers import NOBODY, remote_peer
from aserpc.broker.workers import RETURN_GRACE
from aserpc.messages import (
    Answer,
    Buffer,
    Cancel,
    Goodbye,
    Heartbeat,
    Message,
    Offer,
    Shutdown,
    Unknown,
    Welcome,
)

from .builders import WORKER_TIMEOUT, House, ready, request, session

FIRST, SECOND, THIRD = ((session("s"), number) for number in range(3))


@pytest.fixture
def house() -> House:
    return House()


def states(house: House) -> dict[bytes, str]:
    return {peer: worker.state.value for peer, worker in house.state.workers.items()}


def restarted(house: House, *, computing: int = 0, capacity: int = 1) -> House:
    """Restart a broker whose worker has had so many requests for a while."""
    house.serve(b"w", capacity=capacity)
    for number in range(computing):
        house.ask(number)
    house.wait(1.0)
    house.restart()
    return house


# ---- what is left behind -------------------------------------------------------------------------


def test_the_roster_names_workers_managers_and_what_is_computed(house: House) -> None:
    house.serve(b"v", capacity=2)
    house.load(b"w", name="emt")
    house.worker(b"m", Offer([["lj", 2], ["mace", 0]], {}))
    house.ask(0)
    house.ask(1)
    house.wait(1.0)
    roster = house.state.roster(house.now)
    assert roster.workers == {b"v": ("lj", [FIRST, SECOND]), b"w": ("emt", [])}
    assert roster.managers == {b"m": {"lj": 2, "mace": 0}}
    assert not roster.stopped
    house.state.stop()
    assert house.state.roster(house.now).stopped


def test_the_roster_is_to_be_saved_when_a_worker_or_manager_comes_or_goes(house: House) -> None:
    def changes(event: Message, peer: bytes) -> bool:
        house.state.roster_changed = False
        house.worker(peer, event)
        return house.state.roster_changed

    assert changes(ready(), b"w")
    assert changes(Offer([["lj", 0]], {}), b"m")
    assert not changes(Heartbeat(), b"w")
    assert changes(Goodbye(), b"w")
    assert changes(Goodbye(), b"m")


def test_only_what_takes_long_is_in_the_roster(house: House) -> None:
    house.serve(b"w")
    house.ask(0)
    house.state.roster_changed = False
    assert house.state.roster(house.now).workers[b"w"] == ("lj", [])
    assert house.state.roster_changed, "it is to be looked at again"
    house.wait(0.2)
    house.state.roster_changed = False
    assert house.state.roster(house.now).workers[b"w"] == ("lj", [FIRST])
    assert not house.state.roster_changed
    house.answer(b"w", FIRST)
    assert house.state.roster_changed


# ---- workers -------------------------------------------------------------------------------------


def test_requests_wait_for_a_worker_that_is_expected(house: House) -> None:
    restarted(house)
    key = house.ask()
    assert house.answers() == {}
    house.wait(1)
    assert house.take(b"w", Unknown)
    house.worker(b"w", ready())
    assert house.given(b"w") == [key]


def test_an_expected_worker_that_computes_for_long_is_waited_for(house: House) -> None:
    restarted(house)
    house.ask()
    house.wait(100 * WORKER_TIMEOUT)
    assert states(house) == {b"w": "returning"}


def test_an_expected_worker_s_connection_has_a_grace(house: House) -> None:
    restarted(house)
    house.cut.add(b"w")
    house.wait(4)
    assert states(house) == {b"w": "returning"}
    house.cut.clear()
    house.wait(0.3)
    assert house.take(b"w", Unknown)
    house.wait(100)
    assert states(house) == {b"w": "returning"}


def test_an_expected_worker_that_does_not_come_back_is_lost(house: House) -> None:
    restarted(house)
    key = house.ask()
    house.cut.add(b"w")
    house.wait(RETURN_GRACE + 0.5)
    assert states(house) == {}
    assert house.answers() == {key: "no_workers"}
    assert house.is_empty()


def test_trying_an_expected_worker_does_not_multiply(house: House) -> None:
    restarted(house)
    house.cut.add(b"w")
    house.wait(4.9)
    house.cut.clear()
    house.wait(1)
    house.take(b"w", Unknown)
    house.wait(WORKER_TIMEOUT)
    assert len(house.take(b"w", Unknown)) <= 2


def test_an_expected_worker_s_word_makes_it_register(house: House) -> None:
    restarted(house)
    house.beat(b"w")
    assert house.take(b"w", Unknown)
    house.load(b"w")
    assert states(house) == {b"w": "loading"}


@pytest.mark.parametrize("computing", [0, 1])
def test_an_expected_worker_may_leave(house: House, computing: int) -> None:
    restarted(house, computing=computing)
    assert house.leave(b"w"), "it was idle then, whatever the roster says"
    assert house.is_empty()


def test_an_expected_worker_may_say_goodbye(house: House) -> None:
    restarted(house, computing=2, capacity=2)
    house.ask(1)
    house.goodbye(b"w", SECOND)
    assert [*house.state.jobs] == [SECOND]
    house.serve(b"v")
    assert house.given(b"v") == [SECOND]


# ---- shutting down -------------------------------------------------------------------------------


def test_an_expected_worker_hears_that_it_is_to_go_when_it_is_back(house: House) -> None:
    restarted(house)
    house.cut.add(b"w")
    assert house.shut_down() == 1
    house.wait(3.0)
    assert states(house) == {b"w": "leaving"}
    house.cut.clear()
    house.wait(0.5)
    assert house.take(b"w", Shutdown)
    house.goodbye(b"w")
    assert house.is_empty()


@pytest.mark.parametrize("word", [Heartbeat(), ready()], ids=["heartbeat", "ready"])
def test_one_that_speaks_as_if_it_stayed_is_told_again(house: House, word: Message) -> None:
    restarted(house)
    house.cut.add(b"w")
    house.shut_down()
    house.cut.clear()
    house.worker(b"w", word)
    assert house.take(b"w", Shutdown)
    assert not house.take(b"w", Welcome)
    assert states(house) == {b"w": "leaving"}


def test_one_that_is_to_go_and_does_not_come_back_is_lost(house: House) -> None:
    restarted(house)
    house.cut.add(b"w")
    house.shut_down()
    house.wait(RETURN_GRACE + 0.5)
    assert house.is_empty()


# ---- what is being computed ----------------------------------------------------------------------


def test_a_request_is_tied_to_the_worker_that_computes_it(house: House) -> None:
    restarted(house, computing=1)
    house.serve(b"v")
    assert house.ping(FIRST).unknown == [list(FIRST)], "so that the client sends it"
    house.ask(0)
    assert not house.given(b"v") + house.given(b"w"), "it is not computed again"
    assert house.ping(FIRST).known[0][2] == "running"
    house.answer(b"w", FIRST)
    assert house.answers() == {FIRST: None}


def test_it_waits_for_as_long_as_the_worker_holds_the_interpreter(house: House) -> None:
    restarted(house, computing=1)
    house.ask(0)
    house.serve(b"v")
    house.wait(100 * WORKER_TIMEOUT)
    assert not house.given(b"v")
    assert states(house)[b"w"] == "returning"
    house.answer(b"w", FIRST)
    assert house.answers() == {FIRST: None}


def test_it_is_queued_when_the_worker_turns_out_lost(house: House) -> None:
    restarted(house, computing=1)
    house.cut.add(b"w")
    house.serve(b"v")
    house.ask(0)
    assert not house.given(b"v")
    house.wait(RETURN_GRACE + 0.5)
    assert house.given(b"v") == [FIRST]
    assert house.job(FIRST).attempts == 0, "nobody saw it die of it"


def test_it_waits_for_the_next_worker_when_there_is_no_other(house: House) -> None:
    restarted(house, computing=1)
    house.cut.add(b"w")
    house.ask(0)
    house.wait(RETURN_GRACE + 10.0)
    assert house.answers() == {}
    house.serve(b"v")
    assert house.given(b"v") == [FIRST]


def test_a_worker_that_dies_after_it_was_back_counts(house: House) -> None:
    restarted(house, computing=1)
    house.serve(b"v")
    house.ask(0)
    house.wait(1.0)
    house.vanish(b"w")
    assert house.given(b"v") == [FIRST]
    assert house.job(FIRST).attempts == 1


def test_it_is_queued_when_the_worker_says_that_it_has_it_not(house: House) -> None:
    restarted(house, computing=1)
    house.ask(0)
    house.worker(b"w", ready())
    assert house.given(b"w") == [FIRST]


def test_it_is_tied_to_a_worker_that_says_that_it_has_it(house: House) -> None:
    # A worker that no roster names.
    house.load(b"v")
    house.ask(0)
    house.ask(1)
    house.worker(b"w", ready(capacity=2, running=[FIRST]))
    assert house.given(b"w") == [SECOND], "the other is there already"
    house.answer(b"w", FIRST)
    assert house.answers() == {FIRST: None}


def test_what_nobody_has_sent_yet_takes_its_worker_s_slot(house: House) -> None:
    house.worker(b"w", ready(running=[FIRST]))
    assert states(house) == {b"w": "busy"}
    house.ask(1)
    assert not house.given(b"w")
    house.ask(0)
    assert not house.given(b"w")
    house.answer(b"w", FIRST)
    assert house.given(b"w") == [SECOND]
    assert house.answers() == {FIRST: None}


def test_its_requests_come_back_in_any_order(house: House) -> None:
    restarted(house, computing=3, capacity=3)
    for number in (2, 1):
        house.ask(number)
    assert [house.job(key).state.value for key in (FIRST, SECOND, THIRD)] == [
        "orphaned",
        "assigned",
        "assigned",
    ]
    house.answer(b"w", FIRST)
    assert house.job(SECOND).state.value == "running"
    house.answer(b"w", SECOND)
    house.answer(b"w", THIRD)
    assert house.answers() == {SECOND: None, THIRD: None}


def test_what_runs_elsewhere_need_not_be_begun(house: House) -> None:
    house.serve(b"v")
    house.ask(0)
    house.worker(b"w", ready(capacity=2, running=[FIRST]))
    assert house.take(b"w", Cancel) == [Cancel([list(FIRST)])]
    house.answer(b"w", FIRST)
    assert house.answers() == {}
    house.answer(b"v", FIRST)
    assert house.answers() == {FIRST: None}


def test_a_worker_that_was_given_up_need_not_begin_what_others_have_done(house: House) -> None:
    house.serve(b"w")
    house.ask(0)
    house.vanish(b"w")
    house.cut.clear()
    house.serve(b"v")
    house.answer(b"v", FIRST)
    house.worker(b"w", ready(running=[FIRST]))
    assert house.take(b"w", Cancel) == [Cancel([list(FIRST)])]
    assert states(house)[b"w"] == "idle"


def test_a_client_may_cancel_what_it_has_not_sent_again(house: House) -> None:
    restarted(house, computing=1)
    house.cancel(FIRST)
    assert house.take(b"w", Cancel)
    house.answer(b"w", FIRST)
    assert len(house.state.answers) == 0


def test_it_must_be_a_request_to_the_same_calculator(house: House) -> None:
    restarted(house, computing=1)
    house.ask(0, name="emt")
    assert house.answers() == {FIRST: "not_allowed"}


def test_a_request_that_was_cancelled_is_not_taken_up(house: House) -> None:
    restarted(house, computing=1)
    house.ask(0)
    house.cancel(FIRST)
    house.worker(b"w", ready())
    assert house.given(b"w") == []
    assert states(house) == {b"w": "idle"}


# ---- what was computed meanwhile -----------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_a_result_is_delivered_when_its_request_comes_back(house: House, known: bool) -> None:
    if known:
        restarted(house, computing=1)
    payload: list[Buffer] = [b"results"]
    house.perform(house.state.from_worker(b"w", Answer(*FIRST), payload, house.now))
    assert house.answers() == {}
    (effect,) = house.state.from_client(b"client", request(0), [], house.now)
    assert isinstance(effect.message, Answer)
    assert effect.payload is payload


def test_it_is_delivered_to_who_waits_in_the_queue(house: House) -> None:
    house.load(b"v")
    house.ask(0)
    house.answer(b"w", FIRST)
    assert house.answers() == {FIRST: None}
    assert house.state.jobs == {}


def test_a_worker_s_late_answer_is_dropped_where_it_was_given_up(house: House) -> None:
    house.serve(b"w")
    house.ask(0)
    house.vanish(b"w")
    house.cut.clear()
    house.answer(b"w", FIRST)
    assert house.answers() == {}
    assert len(house.state.answers) == 0
    house.serve(b"v")
    house.answer(b"v", FIRST)
    assert house.answers() == {FIRST: None}
    house.client(Cancel([list(FIRST)]))
    house.answer(b"w", FIRST)
    assert len(house.state.answers) == 0


def test_the_word_that_something_was_not_begun_is_no_result(house: House) -> None:
    house.answer(b"w", FIRST, error={"kind": "cancelled", "message": "not started"})
    assert len(house.state.answers) == 0


def test_results_are_kept_for_a_time_only(house: House) -> None:
    restarted(house, computing=1)
    house.answer(b"w", FIRST)
    house.wait(60.0)
    assert len(house.state.answers) == 0


# ---- managers ------------------------------------------------------------------------------------


def test_an_expected_manager_keeps_its_minimum_of_workers(house: House) -> None:
    house.serve(b"w")
    house.worker(b"m", Offer([["lj", 1]], {}))
    house.wait(1.0)
    house.restart()
    house.worker(b"w", ready())
    assert not house.leave(b"w")


def test_a_manager_elsewhere_is_expected_too(house: House) -> None:
    far = remote_peer(NOBODY, b"m")
    house.worker(far, Offer([["lj", 0]], {}))
    house.restart()
    house.cut.add(far)
    house.wait(RETURN_GRACE - 1.0)
    house.cut.clear()
    house.wait(1.0)
    assert house.take(far, Unknown)


# ---- nobody known --------------------------------------------------------------------------------


def test_nobody_is_told_at_once_that_there_are_no_workers(house: House) -> None:
    house.restart()
    key = house.ask(0)
    house.describe(1)
    house.wait(RETURN_GRACE - 0.1)
    assert house.answers() == {}
    house.serve(b"w")
    assert house.given(b"w") == [key]
    assert house.answers() == {SECOND: None}


def test_after_a_while_they_are(house: House) -> None:
    house.restart()
    key = house.ask(0)
    house.wait(RETURN_GRACE)
    assert house.answers() == {key: "no_workers"}
    house.ask(1)
    assert house.answers() == {SECOND: "no_workers"}
    assert house.is_empty()


def test_after_a_broker_that_was_stopped_they_are_told_at_once(house: House) -> None:
    house.state.stop()
    house.restart()
    house.ask(0)
    assert house.answers() == {FIRST: "no_workers"}
