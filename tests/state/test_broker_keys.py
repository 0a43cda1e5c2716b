"""What the broker keeps apart by key: requests, connections, and all of a key that is revoked."""

from __future__ import annotations

import logging

import pytest

from aserpc.broker.peers import local_peer, remote_peer
from aserpc.messages import Answer, Hello, Offer, Ready, Refuse, Welcome

from .builders import House, ready, request

ALICE, BOB = b"a" * 32, b"b" * 32
ALICES, BOBS = remote_peer(ALICE, b"one"), remote_peer(BOB, b"two")
AGAIN = remote_peer(ALICE, b"three")


@pytest.fixture
def house() -> House:
    return House()


# ---- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stranger", [BOBS, remote_peer(BOB, b"one"), local_peer(b"one")])
def test_a_request_can_be_asked_about_by_its_own_key_only(house: House, stranger: bytes) -> None:
    house.serve(b"w")
    key = house.ask(peer=ALICES)
    assert house.ping(key, peer=stranger).unknown == [list(key)]
    house.answer(b"w", key)
    assert house.answers(ALICES) == {key: None}
    assert not house.answers(stranger)


def test_a_request_of_another_key_is_not_taken_over_by_sending_it_again(house: House) -> None:
    house.serve(b"w")
    key = house.ask(peer=ALICES)
    house.ask(peer=BOBS)
    assert house.answers(BOBS) == {key: "not_allowed"}
    house.answer(b"w", key)
    assert house.answers(ALICES) == {key: None}


def test_a_request_is_cancelled_by_its_own_key_only(house: House) -> None:
    house.serve(b"w")
    first, second = house.ask(0, peer=ALICES), house.ask(1, peer=ALICES)
    house.cancel(second, peer=BOBS)
    house.answer(b"w", first)
    house.answer(b"w", second)
    assert house.answers(ALICES) == {first: None, second: None}
    third = house.ask(2, peer=ALICES)
    house.cancel(third, peer=AGAIN)
    house.answer(b"w", third)
    assert not house.answers(ALICES)


@pytest.mark.parametrize("asks_again", ["by a ping", "by the request"])
def test_a_client_whose_connection_came_back_is_found_by_its_key(
    house: House, asks_again: str
) -> None:
    house.serve(b"w")
    key = house.ask(peer=ALICES)
    if asks_again == "by a ping":
        assert house.ping(key, peer=AGAIN).known
    else:
        house.ask(peer=AGAIN)
    house.answer(b"w", key)
    assert house.answers(AGAIN) == {key: None}
    assert not house.answers(ALICES)


# ---- connections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("message", [Hello("lj"), ready(), Offer([["cu", 0]], {})])
def test_a_workers_connection_is_not_given_to_another_key(
    house: House, message: Hello | Ready | Offer, caplog: pytest.LogCaptureFixture
) -> None:
    house.serve(ALICES)
    house.mail.clear()
    thief = remote_peer(BOB, b"one")
    with caplog.at_level(logging.WARNING):
        house.worker(thief, message)
    assert "claims the connection of worker of 'lj'" in caplog.text
    assert "one" not in caplog.text.replace("connection", "")
    assert not house.mail[thief]
    assert not house.state.workers, "what is sent to the owner would go to the thief"


def test_what_a_robbed_worker_had_is_computed_elsewhere(house: House) -> None:
    house.serve(ALICES)
    key = house.ask()
    house.serve(b"w")
    thief = remote_peer(BOB, b"one")
    house.worker(thief, Answer(*key))
    assert not house.answers(), "the thief's answer is none"
    assert house.given(b"w") == [key]
    assert house.job(key).attempts == 0
    house.answer(ALICES, key)
    house.answer(b"w", key)
    assert house.answers() == {key: None}


def test_a_managers_connection_is_not_given_to_another_key(house: House) -> None:
    house.worker(ALICES, Offer([["lj", 0]], {}))
    thief = remote_peer(BOB, b"one")
    house.worker(thief, Hello("lj"))
    assert not house.mail[thief]
    assert not house.state.workers
    assert not house.state.managers


def test_the_owner_of_a_connection_may_change_what_it_is(house: House) -> None:
    house.serve(ALICES)
    house.goodbye(ALICES)
    house.mail.clear()
    other = remote_peer(BOB, b"one")
    house.load(other)
    assert house.take(other, Welcome)


# ---- revoked -------------------------------------------------------------------------------------


def revoke(house: House, *users: bytes) -> None:
    house.perform(house.state.revoked(users, house.now))


def test_the_requests_of_a_revoked_key_are_dropped_and_not_answered(house: House) -> None:
    house.serve(b"w")
    running, queued = house.ask(0, peer=ALICES), house.ask(1, peer=ALICES)
    others = house.ask(2, peer=BOBS)
    revoke(house, ALICE)
    assert set(house.state.jobs) == {others}
    house.answer(b"w", running)
    assert house.given(b"w") == [running, others]
    house.answer(b"w", others)
    assert not house.mail[ALICES]
    assert house.answers(BOBS) == {others: None}
    assert queued not in house.state.jobs


def test_the_worker_of_a_revoked_key_is_told_to_end_and_others_go_on(house: House) -> None:
    house.serve(ALICES)
    key = house.ask()
    house.serve(BOBS)
    revoke(house, ALICE)
    assert house.take(ALICES, Refuse)
    assert house.given(BOBS) == [key]
    assert house.job(key).attempts == 0, "nobody died"
    house.answer(ALICES, key)
    house.answer(BOBS, key)
    assert house.answers() == {key: None}


def test_the_manager_of_a_revoked_key_is_told_to_end(house: House) -> None:
    house.worker(ALICES, Offer([["lj", 0]], {}))
    revoke(house, ALICE)
    assert house.take(ALICES, Refuse)
    assert not house.state.managers
    house.client(request(5))
    assert house.answers() == {request(5).key: "no_workers"}


def test_a_local_peer_has_no_key_that_could_be_revoked(house: House) -> None:
    worker, client = local_peer(b"w"), local_peer(b"c")
    house.serve(worker)
    key = house.ask(peer=client)
    revoke(house, ALICE, BOB)
    house.answer(worker, key)
    assert house.answers(client) == {key: None}
