"""Which answer is whose, when to ask for news, and when to stop waiting."""

from __future__ import annotations

import pytest

from aserpc.client.state import (
    MAX_LARGE_RESENDS,
    MAX_RESENDS,
    PING_INTERVAL,
    PING_SIZE,
    News,
    Resolve,
    Send,
)
from aserpc.errors import BrokerSilentError, DeadlineError, ProtocolError
from aserpc.messages import (
    Answer,
    Cancel,
    Ping,
    Reject,
    Request,
    Status,
)

from .builders import request
from .client_desk import TIMEOUT, Desk, lost, pong


@pytest.fixture
def desk() -> Desk:
    return Desk()


# ---- answers -------------------------------------------------------------------------------------


def test_a_request_is_sent_and_its_answer_resolves_it(desk: Desk) -> None:
    key = desk.ask()
    assert desk.sent == [Send(request(), [b"atoms"])]
    answer = Answer(*key)
    desk.get(answer, b"results")
    assert desk.ends == {key: Resolve(key, answer, [b"results"], None)}
    assert desk.state.next_tick() is None


def test_answers_resolve_each_its_own_request(desk: Desk) -> None:
    keys = [desk.ask(number) for number in range(5)]
    for key in reversed(keys):
        desk.get(Answer(*key), str(key[1]).encode())
    assert [desk.ends[key].payload for key in keys] == [[b"0"], [b"1"], [b"2"], [b"3"], [b"4"]]


def test_a_late_answer_resolves_nothing(desk: Desk) -> None:
    late = desk.ask(0)
    desk.wait(TIMEOUT)
    desk.perform(desk.state.cancel(desk.ask(1)))
    other = desk.ask(2)
    desk.ends.clear()
    for number in (0, 1, 7):
        desk.get(Answer(late[0], number))
    desk.get(Answer(b"x" * 16, other[1]))
    assert desk.ends == {}


def test_a_second_answer_resolves_nothing(desk: Desk) -> None:
    key = desk.ask()
    desk.get(Answer(*key))
    desk.get(Answer(*key))
    assert len(desk.ends) == 1


def test_a_part_is_not_the_end_but_a_sign_of_life(desk: Desk) -> None:
    key = desk.ask()
    for number in range(5):
        desk.wait(TIMEOUT * 0.9)
        desk.get(Answer(*key, part=number))
    assert desk.ends == {}


def test_other_messages_of_the_broker_resolve_nothing(desk: Desk) -> None:
    desk.ask()
    desk.get(Status(1, {}))
    assert desk.ends == {}


def test_a_rejection_ends_all_with_the_broker_s_reason(desk: Desk) -> None:
    keys = [desk.ask(number, deadline=5.0) for number in range(3)]
    desk.get(Reject("protocol version 1 is not 2"))
    assert {*desk.ends} == {*keys}
    assert isinstance(desk.error(keys[0]), ProtocolError)
    assert "protocol version 1 is not 2" in str(desk.error(keys[0]))
    assert desk.state.next_tick() is None


# ---- cancelling ----------------------------------------------------------------------------------


def test_cancelling_tells_the_broker_and_ends_the_waiting(desk: Desk) -> None:
    key = desk.ask(deadline=5.0)
    desk.perform(desk.state.cancel(key))
    assert desk.take(Cancel) == [Cancel([list(key)])]
    desk.wait(100)
    assert desk.ends == {}
    assert desk.state.next_tick() is None


def test_cancelling_what_has_ended_does_nothing(desk: Desk) -> None:
    key = desk.ask()
    desk.get(Answer(*key))
    assert desk.state.cancel(key) == []


# ---- silence -------------------------------------------------------------------------------------


def test_a_silent_broker_is_given_up_after_the_timeout(desk: Desk) -> None:
    key = desk.ask()
    desk.wait(TIMEOUT - 1e-3)
    assert desk.ends == {}
    desk.wait(2e-3)
    assert isinstance(desk.error(key), BrokerSilentError)
    assert isinstance(desk.error(key), TimeoutError)
    assert "ipc://somewhere for 10 s" in str(desk.error(key))
    assert desk.take(Cancel) == [Cancel([list(key)])]


@pytest.mark.parametrize("timeout", [0.01, 0.5, 2.0, 60.0, 3600.0])
def test_any_timeout_is_kept(desk: Desk, timeout: float) -> None:
    key = desk.ask(timeout=timeout)
    desk.wait(timeout * 0.999)
    assert desk.ends == {}
    desk.wait(timeout * 0.002)
    assert key in desk.ends


def test_silence_counts_from_the_broker_s_last_word(desk: Desk) -> None:
    first = desk.ask(0)
    desk.wait(TIMEOUT * 0.8)
    desk.get(Answer(*desk.ask(1)))
    desk.wait(TIMEOUT * 0.9)
    assert first not in desk.ends
    desk.wait(TIMEOUT * 0.2)
    assert first in desk.ends


def test_a_client_waits_as_long_as_the_broker_confirms(desk: Desk) -> None:
    key = desk.ask()
    desk.wait(1000 * TIMEOUT, broker=True)
    assert desk.ends == {}
    assert desk.news[-1] == News(key, "lj", "queued", "waits")


def test_silence_before_a_request_does_not_count(desk: Desk) -> None:
    desk.get(Answer(*desk.ask(0)))
    desk.wait(100 * TIMEOUT)
    key = desk.ask(1)
    desk.wait(TIMEOUT * 0.999)
    assert key not in desk.ends


def test_a_shorter_timeout_is_kept_beside_a_longer_one(desk: Desk) -> None:
    long, short = desk.ask(0, timeout=600.0), desk.ask(1, timeout=2.0)
    desk.wait(2.001)
    assert {*desk.ends} == {short}
    desk.wait(598.0)
    assert {*desk.ends} == {long, short}


def test_requests_of_one_timeout_are_given_up_each_in_its_time(desk: Desk) -> None:
    keys = []
    for number in range(4):
        keys.append(desk.ask(number))
        desk.wait(1.0)
    desk.wait(TIMEOUT - 4.0 + 1e-3)
    assert {*desk.ends} == {keys[0]}
    desk.wait(1.0)
    assert {*desk.ends} == {*keys[:2]}


def test_a_client_that_was_held_up_asks_before_it_gives_up(desk: Desk) -> None:
    # Stopped with Ctrl-Z, or in native code that holds the GIL: it was not the broker's silence.
    key = desk.ask()
    desk.now += 100 * TIMEOUT
    desk.perform(desk.state.tick(desk.now))
    assert desk.ends == {}
    desk.get(pong(*desk.take(Ping)[-1].keys))
    desk.wait(5 * TIMEOUT, broker=True)
    assert desk.ends == {}
    desk.wait(TIMEOUT + 1e-3)
    assert key in desk.ends


def test_a_client_that_was_held_up_gives_up_soon_if_nobody_is_there(desk: Desk) -> None:
    key = desk.ask()
    desk.now += 100 * TIMEOUT
    desk.wait(PING_INTERVAL + 1e-3)
    assert key in desk.ends


def test_what_was_asked_long_ago_does_not_count_as_asked(desk: Desk) -> None:
    desk.ask(0)
    desk.wait(TIMEOUT)
    assert len(desk.ends) == 1
    desk.wait(100 * TIMEOUT)
    key = desk.ask(1)
    desk.now += 2 * TIMEOUT
    desk.perform(desk.state.tick(desk.now))
    assert key not in desk.ends


# ---- asking for news -----------------------------------------------------------------------------


def test_a_request_that_is_answered_soon_costs_no_ping(desk: Desk) -> None:
    for number in range(100):
        key = desk.ask(number)
        desk.wait(PING_INTERVAL * 0.9)
        desk.get(Answer(*key))
    assert desk.take(Ping) == []


def test_a_ping_lists_only_those_without_news(desk: Desk) -> None:
    old = desk.ask(0)
    desk.wait(PING_INTERVAL * 0.6)
    desk.ask(1)
    desk.wait(PING_INTERVAL * 0.5)
    assert [ping.keys for ping in desk.take(Ping)] == [[list(old)]]


def test_one_ping_an_interval_is_sent_for_all(desk: Desk) -> None:
    for number in range(50):
        desk.ask(number)
    desk.wait(PING_INTERVAL * 5.5, broker=True)
    pings = desk.take(Ping)
    assert [len(ping.keys) for ping in pings] == [50] * 5


def test_a_ping_lists_a_thousand_at_most_and_each_has_its_turn(desk: Desk) -> None:
    keys = {desk.ask(number) for number in range(2500)}
    desk.wait(PING_INTERVAL * 3.5, broker=True)
    pings = desk.take(Ping)
    assert [len(ping.keys) for ping in pings] == [PING_SIZE] * 3
    assert {tuple(key) for ping in pings for key in ping.keys} == keys


def test_pings_go_on_while_the_broker_is_silent(desk: Desk) -> None:
    desk.ask()
    desk.wait(PING_INTERVAL * 4.5)
    assert len(desk.take(Ping)) == 4


def test_a_short_timeout_is_asked_about_more_often(desk: Desk) -> None:
    desk.ask(timeout=0.4)
    desk.wait(10.0, broker=True)
    assert desk.ends == {}
    assert len(desk.take(Ping)) == pytest.approx(100, abs=2)


def test_news_of_what_has_ended_is_ignored(desk: Desk) -> None:
    key = desk.ask()
    desk.get(Answer(*key))
    desk.get(pong(key))
    desk.get(lost(key))
    assert desk.news == []
    assert len(desk.take(Request)) == 1


# ---- sending again -------------------------------------------------------------------------------


def test_what_the_broker_does_not_know_is_sent_again(desk: Desk) -> None:
    key = desk.ask()
    desk.sent.clear()
    desk.get(lost(key))
    assert desk.sent == [Send(request(), [b"atoms"])]
    desk.get(Answer(*key))
    assert desk.ends[key].error is None


def test_it_is_sent_again_with_what_is_left_of_the_deadline(desk: Desk) -> None:
    key = desk.ask(deadline=9.0)
    desk.sent.clear()
    desk.wait(4.0, broker=True)
    desk.get(lost(key))
    (again,) = desk.take(Request)
    assert again.deadline == pytest.approx(5.0)


def test_it_is_not_sent_again_for_ever(desk: Desk) -> None:
    key = desk.ask()
    for _ in range(MAX_RESENDS):
        desk.get(lost(key))
    assert desk.ends == {}
    assert len(desk.take(Request)) == 1 + MAX_RESENDS
    desk.get(lost(key))
    assert isinstance(desk.error(key), BrokerSilentError)
    assert desk.take(Request) == []


def test_old_questions_do_not_have_it_sent_again_and_again(desk: Desk) -> None:
    key = desk.ask(timeout=60.0)
    desk.wait(3.5 * PING_INTERVAL)
    first, second, third = (ping.id for ping in desk.take(Ping))
    desk.sent.clear()
    # A request that takes long to leave holds the pings behind it up, and is lost with its link.
    for number in (first, second, third):
        desk.get(lost(key, number=number))
    assert len(desk.take(Request)) == 1
    desk.wait(1.5 * PING_INTERVAL)
    (ping,) = desk.take(Ping)
    desk.get(lost(key, number=ping.id))
    assert len(desk.take(Request)) == 1


def test_a_large_one_is_sent_less_often_and_may_be_too_large_for_its_link(desk: Desk) -> None:
    key = desk.ask(payload=bytes(2_500_000))
    for _ in range(MAX_LARGE_RESENDS):
        desk.get(lost(key))
    assert desk.ends == {}
    desk.get(lost(key))
    times = MAX_LARGE_RESENDS + 1
    assert f"of 2.5 MB, or its answer was lost {times} times" in str(desk.error(key))


def test_a_large_one_may_have_held_up_what_the_broker_is_asked(desk: Desk) -> None:
    large, small = desk.ask(0, payload=bytes(2_500_000)), desk.ask(1)
    desk.wait(TIMEOUT + 1.0)
    assert "It has 2.5 MB: on a slow link set a longer timeout" in str(desk.error(large))
    assert "MB" not in str(desk.error(small))


def test_what_was_sent_again_has_the_whole_timeout(desk: Desk) -> None:
    first, second = desk.ask(0), desk.ask(1)
    desk.wait(TIMEOUT * 0.9)
    desk.get(lost(first))
    desk.wait(TIMEOUT * 0.9)
    assert desk.ends == {}
    desk.wait(TIMEOUT * 0.2)
    assert {*desk.ends} == {first, second}


# ---- deadlines -----------------------------------------------------------------------------------


def test_a_deadline_ends_the_wait_on_time(desk: Desk) -> None:
    key = desk.ask(deadline=3.0)
    desk.wait(2.999, broker=True)
    assert desk.ends == {}
    desk.wait(0.002, broker=True)
    assert isinstance(desk.error(key), DeadlineError)
    assert isinstance(desk.error(key), TimeoutError)
    assert desk.take(Cancel) == [Cancel([list(key)])]


def test_a_deadline_ends_the_wait_of_its_request_only(desk: Desk) -> None:
    other = desk.ask(0)
    desk.ask(1, deadline=3.0)
    desk.wait(5.0, broker=True)
    assert other not in desk.ends


def test_an_answered_request_s_deadline_is_forgotten(desk: Desk) -> None:
    for number in range(1000):
        desk.get(Answer(*desk.ask(number, deadline=3600.0)))
    assert len(desk.state._deadlines) == 0
    assert len(desk.state._deadlines._heap) < 200


def test_a_deadline_and_silence_at_once_end_a_request_once(desk: Desk) -> None:
    key = desk.ask(timeout=5.0, deadline=5.0)
    desk.wait(5.0)
    assert isinstance(desk.error(key), DeadlineError)


def test_deadlines_of_no_length_and_no_end(desk: Desk) -> None:
    now, never = desk.ask(0, deadline=0.0), desk.ask(1, deadline=float("inf"))
    desk.wait(100.0, broker=True)
    assert now in desk.ends
    assert never not in desk.ends
