"""Answers, news and cancellations: each request has one end, where it was asked for last."""

from __future__ import annotations

import pytest

from aserpc.messages import Answer, Buffer, Cancel, Dismiss, Pong

from .builders import House, about, ready, request, session


@pytest.fixture
def house() -> House:
    return House()


# ---- cancelling ----------------------------------------------------------------------------------


def test_cancelling_drops_what_is_queued_without_an_answer(house: House) -> None:
    house.serve(b"w")
    first = house.ask(0)
    house.cancel(house.ask(1))
    house.answer(b"w", first)
    assert house.answers() == {first: None}
    assert house.given(b"w") == [first]


def test_what_runs_keeps_its_slot_when_it_is_cancelled(house: House) -> None:
    house.serve(b"w")
    cancelled = house.ask(0)
    house.cancel(cancelled)
    following = house.ask(1)
    assert house.given(b"w") == [cancelled]
    house.answer(b"w", cancelled)
    assert house.given(b"w") == [following]


def test_the_answer_to_a_cancelled_request_is_dropped(house: House) -> None:
    house.serve(b"w")
    key = house.ask()
    house.cancel(key)
    assert len(house.take(b"w", Cancel)) == 1
    house.worker(b"w", Answer(*key, part=0))
    house.answer(b"w", key)
    assert house.answers() == {}
    assert house.mail[b"client"] == []


def test_a_cancelled_request_is_not_given_to_another_when_its_worker_dies(house: House) -> None:
    house.serve(b"v", b"w")
    key = house.ask()
    house.cancel(key)
    house.vanish(b"v")
    assert house.given(b"w") == []
    assert house.answers() == {}


def test_cancelling_what_is_not_known_does_nothing(house: House) -> None:
    house.cancel((session("x"), 3))
    assert house.is_empty()


def test_a_request_behind_a_cancelled_one_is_not_thought_to_run(house: House) -> None:
    house.serve(b"w", capacity=3)
    first, second, third = (house.ask(number) for number in range(3))
    house.cancel(second)
    house.answer(b"w", first)
    assert house.job(third).state.value == "assigned"
    house.answer(b"w", second)
    assert house.job(third).state.value == "running"


# ---- news and resending --------------------------------------------------------------------------


def test_a_ping_tells_known_from_unknown_and_the_incarnation(house: House) -> None:
    house.serve(b"w")
    runs, waits = house.ask(0), house.ask(1)
    pong = house.ping(runs, waits, (session("x"), 7))
    assert pong.incarnation == b"i" * 16
    assert [entry[:3] for entry in pong.known] == [[*runs, "running"], [*waits, "queued"]]
    assert pong.unknown == [[session("x"), 7]]


def test_an_answered_request_is_unknown(house: House) -> None:
    house.serve(b"w")
    key = house.ask()
    house.answer(b"w", key)
    assert house.ping(key).unknown == [list(key)]


def test_a_ping_without_requests_is_answered(house: House) -> None:
    assert house.ping() == Pong(b"i" * 16)


def test_sending_a_known_request_again_changes_only_the_address(house: House) -> None:
    house.serve(b"w")
    key = house.ask(0, peer=b"old")
    house.ask(0, peer=b"new")
    assert house.given(b"w") == [key]
    house.answer(b"w", key)
    assert house.answers(b"old") == {}
    assert house.answers(b"new") == {key: None}


def test_the_answer_goes_to_where_the_request_was_asked_about_last(house: House) -> None:
    house.serve(b"w")
    key = house.ask(0, peer=b"old")
    house.ping(key, peer=b"new")
    house.answer(b"w", key)
    assert house.answers(b"new") == {key: None}


def test_a_known_request_keeps_its_place_when_it_is_sent_again(house: House) -> None:
    house.serve(b"w")
    keys = [house.ask(number) for number in range(3)]
    house.ask(1)
    for key in keys:
        assert house.given(b"w") == [key]
        house.answer(b"w", key)


# ---- answers -------------------------------------------------------------------------------------


def test_the_payload_is_passed_on_as_it_is(house: House) -> None:
    house.serve(b"w")
    payload: list[Buffer] = [b"atoms"]
    effects = house.state.from_client(b"client", request(), payload, house.now)
    assert effects[0].payload is payload
    answer = Answer(*request().key, about=b"x")
    results: list[Buffer] = [b"results"]
    effects = house.state.from_worker(b"w", answer, results, house.now)
    assert effects[0].message is answer
    assert effects[0].payload is results


def test_an_answer_by_a_worker_that_has_not_the_request_is_dropped(house: House) -> None:
    house.serve(b"v", b"w")
    key = house.ask()
    house.answer(b"w", key)
    house.answer(b"w", (session("nobody"), 5))
    assert house.answers() == {}
    house.answer(b"v", key)
    assert house.answers() == {key: None}


def test_a_second_answer_is_dropped(house: House) -> None:
    house.serve(b"w")
    key = house.ask()
    house.answer(b"w", key)
    house.answer(b"w", key)
    assert house.answers() == {key: None}


def test_the_late_answer_of_a_worker_that_was_given_up_is_dropped(house: House) -> None:
    house.serve(b"v", b"w")
    key = house.ask()
    house.vanish(b"v")
    house.cut.clear()
    house.answer(b"v", key)
    assert house.answers() == {}
    assert house.given(b"w") == [key]


def test_parts_reach_the_client_before_the_final_answer(house: House) -> None:
    house.serve(b"w")
    key = house.ask()
    house.worker(b"w", Answer(*key, part=0))
    house.worker(b"w", Answer(*key, part=1))
    house.answer(b"w", key)
    assert [a.part for a in house.take(b"client", Answer)] == [0, 1, None]


def test_a_worker_may_answer_out_of_order(house: House) -> None:
    house.serve(b"w", capacity=2)
    first, second = house.ask(0), house.ask(1)
    house.answer(b"w", second)
    assert house.answers() == {second: None}
    house.answer(b"w", first)
    assert house.answers() == {first: None}


# ---- descriptions --------------------------------------------------------------------------------


def test_a_description_is_answered_without_a_worker_s_slot(house: House) -> None:
    house.serve(b"w")
    house.ask(0)
    key = house.describe(1)
    (answer,) = house.take(b"client", Answer)
    assert answer.key == key
    assert answer.about == about()
    assert len(house.given(b"w")) == 1


def test_a_description_waits_while_the_worker_loads(house: House) -> None:
    house.load(b"w")
    key = house.describe()
    assert house.answers() == {}
    house.worker(b"w", ready())
    assert house.answers() == {key: None}
    assert house.given(b"w") == []


def test_a_description_that_waits_is_told_of_the_failure(house: House) -> None:
    house.load(b"w")
    key = house.describe()
    house.fail(b"w")
    assert house.answers() == {key: "worker_failed"}
    assert house.is_empty()


def test_a_description_that_waits_can_be_cancelled_and_has_a_deadline(house: House) -> None:
    house.load(b"w")
    house.cancel(house.describe(0))
    key = house.ask(1, op="describe", deadline=2.0)
    house.wait(5)
    assert house.answers() == {key: "deadline"}


def test_a_worker_that_says_nothing_of_itself_is_a_description_too(house: House) -> None:
    house.load(b"w")
    key = house.describe()
    house.worker(b"w", ready(description=b""))
    assert house.answers() == {key: None}


# ---- nothing is left -----------------------------------------------------------------------------


def test_nothing_is_left_when_all_is_done(house: House) -> None:
    house.serve(b"v", b"w", capacity=2)
    for number in range(20):
        house.ask(number, str(number % 3), deadline=30.0)
    for _ in range(20):
        for peer in (b"v", b"w"):
            for key in house.given(peer):
                house.answer(peer, key)
    for peer in (b"v", b"w"):
        house.goodbye(peer)
        assert house.take(peer, Dismiss)
    assert len(house.answers()) == 20
    assert house.is_empty()
