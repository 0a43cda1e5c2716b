"""Workers and managers on other machines, whose connections break and come back."""

from __future__ import annotations

import pytest

from aserpc.broker.deaths import MAX_LOSSES, MAX_STRAYS
from aserpc.broker.peers import NOBODY, remote_peer
from aserpc.messages import Demand, Offer, Shutdown, Spawning, Unknown, WorkerEnded
from aserpc.messages.base import RequestKey

from .builders import House, ready, request, session

GRACE = 3.0
KEY: RequestKey = (session("s"), 0)
NEAR, FAR, FARTHER, MANAGER = (
    b"\x00near",
    *(remote_peer(NOBODY, name) for name in (b"far", b"farther", b"manager")),
)


@pytest.fixture
def house() -> House:
    return House(reconnect_grace=GRACE)


def cut(house: House, *peers: bytes) -> None:
    house.cut.update(peers)
    house.state.connection_closed(house.now)
    house.wait(0.1)


def restore(house: House, *peers: bytes) -> None:
    house.cut.difference_update(peers)
    for peer in peers:
        house.mail[peer].clear()
    house.wait(0.5)


def test_one_on_this_machine_is_lost_with_its_connection(house: House) -> None:
    house.serve(NEAR)
    cut(house, NEAR)
    assert not house.state.workers


def test_one_elsewhere_is_waited_for(house: House) -> None:
    house.serve(FAR)
    house.ask()
    house.given(FAR)
    cut(house, FAR)
    house.wait(GRACE - 0.5)
    assert FAR in house.state.workers
    restore(house, FAR)
    assert not house.given(FAR), "it has the request"
    assert house.take(FAR, Unknown), "it is asked what it has"
    house.answer(FAR, KEY)
    assert house.answers() == {KEY: None}


def test_after_the_grace_its_requests_run_elsewhere_and_its_answer_is_dropped(house: House) -> None:
    house.serve(FAR)
    house.ask()
    house.serve(FARTHER)
    cut(house, FAR)
    house.wait(GRACE)
    assert house.given(FARTHER) == [KEY]
    assert house.job(KEY).attempts == 0, "nobody has seen it die"
    restore(house, FAR)
    house.answer(FAR, KEY)
    assert not house.answers()
    house.answer(FARTHER, KEY)
    assert house.answers() == {KEY: None}


def test_one_that_is_away_gets_nothing_new(house: House) -> None:
    house.serve(FAR)
    cut(house, FAR)
    house.ask()
    assert not house.state.workers[FAR].jobs
    assert not house.answers(), "it waits for the worker to come back"
    restore(house, FAR)
    assert house.given(FAR) == [KEY]


def test_another_takes_what_comes_meanwhile(house: House) -> None:
    house.serve(FAR)
    cut(house, FAR)
    house.serve(FARTHER)
    house.ask()
    assert house.given(FARTHER) == [KEY]


def test_one_that_speaks_is_back(house: House) -> None:
    house.serve(FAR)
    cut(house, FAR)
    house.cut.clear()
    house.beat(FAR)
    house.ask()
    assert house.given(FAR) == [KEY]


def test_what_was_lost_on_the_way_is_sent_again(house: House) -> None:
    house.serve(FAR)
    house.ask()
    house.given(FAR)
    cut(house, FAR)
    restore(house, FAR)
    (unknown, *_) = house.take(FAR, Unknown)
    house.worker(FAR, ready(sent=unknown.sent))
    assert house.given(FAR) == [KEY]


def test_it_is_not_sent_again_for_ever(house: House) -> None:
    house.serve(FAR)
    house.perform(house.state.from_client(b"client", request(), [bytes(7_000_000)], house.now))
    for _ in range(MAX_STRAYS):
        assert house.given(FAR) == [KEY]
        assert not house.answers()
        cut(house, FAR)
        restore(house, FAR)
        house.worker(FAR, ready())
    (error,) = house.answers().values()
    assert error == "worker_lost"
    house.ask(1)
    assert house.given(FAR) == [(session("s"), 1)], "the worker is not to blame"


def test_what_is_still_on_its_way_is_not(house: House) -> None:
    house.serve(FAR)
    cut(house, FAR)
    restore(house, FAR)
    (unknown, *_) = house.take(FAR, Unknown)
    house.ask()
    assert house.given(FAR) == [KEY]
    house.worker(FAR, ready(sent=unknown.sent))
    assert house.given(FAR) == []
    assert house.job(KEY).worker is house.state.workers[FAR]


def test_a_new_connection_that_nobody_saw_break_is_asked_about(house: House) -> None:
    house.serve(FAR, FARTHER)
    house.ask()
    (busy,) = (w.peer for w in house.state.workers.values() if w.jobs)
    house.state.connection_closed(house.now)
    house.wait(0.1)
    assert house.take(busy, Unknown)
    (idle,) = {FAR, FARTHER} - {busy}
    assert not house.take(idle, Unknown)


def test_a_ready_that_was_lost_is_asked_for(house: House) -> None:
    house.load(FAR)
    house.beat(FAR)  # by a new connection: it has loaded, and said so by the old one
    assert house.take(FAR, Unknown)
    key = house.ask()
    house.worker(FAR, ready())
    assert house.given(FAR) == [key]


def test_a_shutdown_that_was_lost_is_said_again(house: House) -> None:
    house.serve(FAR)
    assert house.shut_down() == 1
    house.mail[FAR].clear()
    house.beat(FAR)
    assert house.take(FAR, Shutdown)


def test_network_flaps_are_no_verdict(house: House) -> None:
    peers = [remote_peer(NOBODY, b"w%d" % number) for number in range(4)]
    house.serve(*peers)
    house.ask()
    for _ in range(3):
        worker = house.job(KEY).worker
        assert worker is not None
        cut(house, worker.peer)
        house.wait(GRACE)
    worker = house.job(KEY).worker
    assert worker is not None
    house.answer(worker.peer, KEY)
    assert house.answers() == {KEY: None}


def test_but_a_request_does_not_wander_for_ever(house: House) -> None:
    house.serve(*(remote_peer(NOBODY, b"w%d" % number) for number in range(6)))
    house.ask()
    for _ in range(MAX_LOSSES):
        worker = house.job(KEY).worker
        assert worker is not None
        cut(house, worker.peer)
        house.wait(GRACE)
    assert house.answers() == {KEY: "worker_lost"}


def test_a_manager_that_saw_the_ends_makes_them_a_verdict(house: House) -> None:
    house.worker(MANAGER, Offer([["lj", 0]], {}))
    house.worker(MANAGER, Spawning("lj", ["a", "b", "c"], ""))
    for peer, spawn_id in ((FAR, "a"), (FARTHER, "b")):
        house.serve(peer)
        house.state.workers[peer].identity = {"spawn_id": spawn_id}
    house.ask()
    for _ in range(2):
        worker = house.job(KEY).worker
        assert worker is not None
        house.worker(MANAGER, WorkerEnded("lj", str(worker.spawn_id), "it was killed"))
    assert house.answers() == {KEY: "poison"}


def test_a_managers_connection_has_its_grace_too(house: House) -> None:
    house.worker(MANAGER, Offer([["lj", 0]], {}))
    cut(house, MANAGER)
    house.wait(GRACE - 0.5)
    house.ask()
    restore(house, MANAGER)
    assert house.take(MANAGER, Unknown)
    house.worker(MANAGER, Offer([["lj", 0]], {}))
    house.wait(1.0)
    assert house.take(MANAGER, Demand)
    cut(house, MANAGER)
    house.wait(GRACE + 0.5)
    assert not house.state.managers


def test_a_managers_new_connection_that_nobody_saw_break_is_asked_about(house: House) -> None:
    house.worker(MANAGER, Offer([["lj", 0]], {}))
    house.state.connection_closed(house.now)
    house.wait(0.1)
    assert house.take(MANAGER, Unknown)


def test_a_request_that_did_not_reach_a_far_worker_goes_to_an_idle_one(house: House) -> None:
    house.serve(FARTHER, FAR)
    key = house.ask(0)
    (last,) = (peer for peer in (FAR, FARTHER) if house.given(peer))
    house.answer(last, key)
    house.cut.add(last)  # it served the session last
    key = house.ask(1)
    assert house.given(FAR if last == FARTHER else FARTHER) == [key]


def test_two_that_were_to_be_alone_come_back_with_their_worker(house: House) -> None:
    house.serve(FAR, capacity=2)
    keys = [house.ask(number) for number in range(2)]
    house.vanish(FAR)
    house.wait(5.0)
    assert FAR not in house.state.workers
    house.cut.clear()
    house.worker(FAR, ready(capacity=2, running=keys))  # and its consistency is checked
