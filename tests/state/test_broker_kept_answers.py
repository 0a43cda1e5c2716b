"""Answers that did not arrive: sent again, and not computed again."""

from __future__ import annotations

import pytest

from aserpc.broker.peers import NOBODY, remote_peer
from aserpc.messages import Answer, Buffer, Cancel, Ping, RequestKey

from .builders import House, request, session
from .quick_workers import THREE, ask, warm


@pytest.fixture
def house() -> House:
    return House()


def answered(house: House, number: int = 0, **fields: object) -> RequestKey:
    """Have a request answered, and the answer lost on its way to the client."""
    key = house.ask(number)
    assert house.given(b"w") == [key]
    house.answer(b"w", key, **fields)
    assert house.take(b"client", Answer)
    return key


def test_an_answer_that_was_lost_is_sent_again_and_not_computed_again(house: House) -> None:
    house.serve(b"w")
    key = answered(house, seconds=2.5)
    assert house.ping(key).unknown == [list(key)], "so that the client asks again"
    house.ask(0)
    (again,) = house.take(b"client", Answer)
    assert (again.key, again.seconds) == (key, 2.5)
    assert house.given(b"w") == []


def test_it_comes_with_its_payload(house: House) -> None:
    house.serve(b"w")
    house.ask(0)
    payload: list[Buffer] = [b"results"]
    house.state.from_worker(b"w", Answer(*request(0).key), payload, house.now)
    (effect,) = house.state.from_client(b"client", request(0), [], house.now)
    assert effect.payload is payload


def test_it_goes_where_it_is_asked_for_now(house: House) -> None:
    house.serve(b"w")
    key = answered(house)
    house.ask(0, peer=b"new")
    assert house.answers() == {}
    assert house.answers(b"new") == {key: None}


def test_it_may_be_lost_more_than_once(house: House) -> None:
    house.serve(b"w")
    answered(house)
    for _ in range(5):
        house.ask(0)
        assert len(house.answers()) == 1


@pytest.mark.parametrize("way", ["request", "ping", "cancel"])
def test_what_has_arrived_is_kept_no_longer(house: House, way: str) -> None:
    house.serve(b"w")
    key = answered(house)
    if way == "request":
        house.ask(1, received=[[*key, key[1]]])
        house.answer(b"w", (session("s"), 1))
        house.answers()
    elif way == "ping":
        house.client(Ping(received=[[*key, key[1]]]))
    else:
        house.client(Cancel([list(key)]))
    house.given(b"w")
    house.ask(0)
    assert house.given(b"w") == [key], "it is another's request now, and computed"


def test_it_is_kept_for_a_time(house: House) -> None:
    house.serve(b"w")
    key = answered(house)
    for _ in range(6):
        house.wait(10.0 - 0.01)
        house.beat(b"w")
    house.ask(0)
    assert house.answers() == {key: None}
    house.wait(1.0)
    house.ask(0)
    assert house.given(b"w") == [key]


def test_the_time_may_be_set() -> None:
    house = House(orphan_ttl=2.0)
    house.serve(b"w")
    answered(house)
    house.wait(2.0)
    assert len(house.state.answers) == 0


def test_a_calculator_s_error_is_an_answer_too(house: House) -> None:
    house.serve(b"w")
    key = answered(house, error={"kind": "calculation", "message": "SCF did not converge"})
    house.ask(0)
    assert house.answers() == {key: "calculation"}
    assert house.given(b"w") == []


def test_a_verdict_that_was_lost_costs_no_further_workers(house: House) -> None:
    house.serve(b"u", b"v", b"w")
    key = house.ask()
    for _ in range(2):
        worker = house.job(key).worker
        assert worker is not None
        house.vanish(worker.peer)
    assert house.answers() == {key: "poison"}
    house.ask(0)
    assert house.answers() == {key: "poison"}
    assert all(worker.state.value == "idle" for worker in house.state.workers.values())


def test_errors_that_another_attempt_may_not_meet_are_not_kept(house: House) -> None:
    key = house.ask()
    assert house.answers() == {key: "no_workers"}
    house.serve(b"w")
    house.ask(0)
    assert house.given(b"w") == [key]


def test_the_answer_to_a_cancelled_request_is_not_kept(house: House) -> None:
    house.serve(b"w")
    key = house.ask()
    house.cancel(key)
    house.answer(b"w", key)
    assert len(house.state.answers) == 0


def test_a_part_is_not_kept(house: House) -> None:
    house.serve(b"w")
    key = house.ask()
    house.worker(b"w", Answer(*key, part=0))
    assert len(house.state.answers) == 0


def test_an_answer_is_nobody_else_s(house: House) -> None:
    alice, bob = (remote_peer(name * 32, b"socket") for name in (b"a", b"b"))
    house.serve(b"w")
    key = house.ask(0, peer=alice)
    house.answer(b"w", key)
    house.ask(0, peer=bob)
    assert house.answers(bob) == {key: "not_allowed"}
    house.client(Cancel([list(key)]), bob)
    house.take(alice, Answer)
    house.ask(0, peer=alice)
    assert house.answers(alice) == {key: None}


def test_nothing_is_kept_of_what_was_acknowledged_at_once(house: House) -> None:
    house.serve(b"w")
    for number in range(100):
        received = [[session("s"), number - 1, number - 1]] if number else []
        house.answer(b"w", house.ask(number, received=received))
    assert len(house.state.answers) == 1


def test_several_that_are_given_twice_are_not_kept(house: House) -> None:
    far = remote_peer(NOBODY, b"far")
    warm(house, far)
    keys = ask(house, 3)
    for key in keys:
        house.answer(far, key, seconds=THREE)
    house.client(request(9, received=[[session("s"), 0, 2], [session("warm"), 1000, 1000]]))
    assert len(house.state.answers) == 0
    for key in keys[1:]:  # a question crossed them
        house.answer(far, key, seconds=THREE)
    assert len(house.state.answers) == 0
