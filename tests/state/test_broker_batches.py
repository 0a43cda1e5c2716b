"""Workers that compute batches: who gets what, and who is to blame when one dies."""

from __future__ import annotations

import pytest

from aserpc.messages import Accept, Demand, Offer, RequestKey, WorkerEnded

from .builders import House, session


@pytest.fixture
def house() -> House:
    return House()


def ask(house: House, count: int) -> list[RequestKey]:
    """Have clients of their own ask."""
    return [house.ask(number, f"s{number}") for number in range(count)]


# ---- who gets what -------------------------------------------------------------------------------


def test_a_worker_gets_as_many_as_it_takes(house: House) -> None:
    house.serve(b"w", capacity=4, max_batch=2)
    keys = ask(house, 6)
    assert house.given(b"w") == keys[:4]
    house.answer(b"w", keys[0], batch=2)
    assert house.given(b"w") == keys[4:5]


def test_the_worker_with_the_fewest_gets_the_next(house: House) -> None:
    house.serve(b"v", b"w", capacity=8, max_batch=4)
    ask(house, 8)
    given = [house.given(peer) for peer in (b"v", b"w")]
    assert [len(keys) for keys in given] == [4, 4]
    for key in given[0][:2]:
        house.answer(b"v", key)
    house.ask(8)
    assert len(house.given(b"v")) == 1


def test_the_time_of_a_batch_is_shared_by_its_structures(house: House) -> None:
    house.serve(b"w", capacity=4, max_batch=2)
    for key in ask(house, 2):
        house.answer(b"w", key, seconds=3.0, batch=2)
    assert house.state.calculators["lj"].seconds == pytest.approx(1.5)


def test_what_waits_behind_a_batch_counts_as_queued(house: House) -> None:
    house.worker(b"manager", Offer([["lj", 0]], {}))
    house.take(b"manager", Accept)
    house.serve(b"w", capacity=8, max_batch=2)
    ask(house, 5)
    house.wait(1.0)
    demand = house.take(b"manager", Demand)[-1]
    assert (demand.queued, demand.running) == (3, 2)


# ---- deaths --------------------------------------------------------------------------------------


def test_the_requests_of_a_batch_whose_worker_dies_are_computed_one_by_one(house: House) -> None:
    house.serve(b"w", capacity=6, max_batch=3)
    keys = ask(house, 3)
    house.vanish(b"w")
    assert [house.job(key).attempts for key in keys] == [0, 0, 0]
    house.serve(b"v", capacity=6, max_batch=3)
    for key in keys:
        assert house.given(b"v") == [key]
        house.answer(b"v", key)
    assert house.answers() == dict.fromkeys(keys)


def test_only_a_death_alone_counts(house: House) -> None:
    house.serve(b"w0", capacity=6, max_batch=3)
    keys = ask(house, 3)
    house.vanish(b"w0")
    died = 1
    while not (answers := house.answers()):
        peer = b"w%d" % died
        house.serve(peer, capacity=6, max_batch=3)
        (key,) = house.given(peer)
        assert key == keys[0]
        house.vanish(peer)
        died += 1
    assert answers == {keys[0]: "poison"}
    assert died == 3
    house.serve(b"v", capacity=6, max_batch=3)
    for key in keys[1:]:
        assert house.given(b"v") == [key]
        house.answer(b"v", key)
    assert house.answers() == dict.fromkeys(keys[1:])


def test_a_request_that_was_alone_dies_at_once(house: House) -> None:
    house.serve(b"v", b"w", capacity=6, max_batch=3)
    key = house.ask()
    (first,) = (peer for peer in (b"v", b"w") if house.given(peer))
    house.vanish(first)
    assert house.job(key).attempts == 1
    house.vanish(b"v" if first == b"w" else b"w")
    assert house.answers() == {key: "poison"}


def test_one_that_has_died_is_never_in_company_again(house: House) -> None:
    house.serve(b"w", capacity=6, max_batch=3)
    suspect = house.ask(0, "a")
    house.vanish(b"w")
    others = [house.ask(number, "b") for number in (1, 2)]
    house.serve(b"v", capacity=6, max_batch=3)
    assert house.given(b"v") == [suspect]
    house.answer(b"v", suspect)
    assert house.given(b"v") == others


def test_those_that_could_not_be_in_the_batch_are_not_suspected(house: House) -> None:
    house.serve(b"w", capacity=6, max_batch=3)
    first = house.ask(0, options={"charge": 1})
    other = house.ask(1, options={"charge": 2})
    same = [house.ask(number, options={"charge": 1}) for number in (2, 3, 4)]
    house.vanish(b"w")
    marked = [key for key in (first, other, *same) if house.job(key).alone]
    assert marked == [first, *same[:2]]


def test_one_that_is_cancelled_is_company_all_the_same(house: House) -> None:
    house.serve(b"w", capacity=6, max_batch=3)
    first, second = ask(house, 2)
    house.cancel(first)
    house.vanish(b"w")
    assert house.job(second).attempts == 0
    assert house.job(second).alone


def test_what_hung_together_is_computed_one_by_one(house: House) -> None:
    house.serve(b"w", capacity=6, max_batch=2)
    keys = ask(house, 4)
    house.goodbye(b"w", *keys[2:], together=keys[:2])
    assert [house.job(key).alone for key in keys] == [True, True, False, False]
    assert [house.job(key).attempts for key in keys] == [0] * 4
    house.serve(b"v", capacity=6, max_batch=2)
    for key in keys[:2]:
        assert house.given(b"v") == [key]
        house.answer(b"v", key)
    assert house.given(b"v") == keys[2:]


def test_a_batch_over_its_time_is_tried_one_by_one(house: House) -> None:
    house.serve(b"w", capacity=6, max_batch=2)
    house.state.workers[b"w"].calculation_timeout = 5.0
    keys = ask(house, 2)
    house.wait(6.0)
    house.vanish(b"w")
    assert not house.answers()
    house.serve(b"v", capacity=6, max_batch=2)
    house.state.workers[b"v"].calculation_timeout = 5.0
    house.wait(6.0)
    house.vanish(b"v")
    assert house.answers() == {keys[0]: "calculation_timeout"}


def test_what_a_manager_tells_of_a_batch_blames_nobody(house: House) -> None:
    house.serve(b"w", capacity=6, max_batch=2)
    keys = ask(house, 2)
    worker = house.state.workers[b"w"]
    worker.identity = {"spawn_id": "id0"}
    house.worker(b"manager", Offer([["lj", 0]], {}))
    house.state.spawned["id0"] = "lj"
    house.state.calculators["lj"].spawn_ids.append("id0")
    house.vanish(b"w")
    house.worker(b"manager", WorkerEnded("lj", "id0", "it was killed by signal SIGKILL"))
    assert [house.job(key).attempts for key in keys] == [0, 0]
    assert "SIGKILL" in str(house.job(keys[1]).deaths[0])


# ---- one that is to be alone ---------------------------------------------------------------------


def suspect_and_busy(house: House) -> RequestKey:
    """Have a suspect wait while the one worker has another request."""
    house.serve(b"v", b"w", capacity=6, max_batch=3)
    house.ask(0, "a")
    (first,) = (peer for peer in (b"v", b"w") if house.given(peer))
    second = b"v" if first == b"w" else b"w"
    house.ask(1, "b")
    assert house.given(second) == [(session("b"), 1)]
    house.vanish(first)
    self_ = (session("a"), 0)
    assert house.job(self_).alone
    assert not house.given(second)
    return self_


def test_nobody_overtakes_it(house: House) -> None:
    suspect = suspect_and_busy(house)
    (worker,) = house.state.workers
    later = house.ask(2, "c")
    assert not house.given(worker)
    house.answer(worker, (session("b"), 1))
    assert house.given(worker) == [suspect]
    house.answer(worker, suspect)
    assert house.given(worker) == [later]


def test_when_it_is_cancelled_the_others_go_on(house: House) -> None:
    suspect = suspect_and_busy(house)
    (worker,) = house.state.workers
    later = house.ask(2, "c")
    house.cancel(suspect)
    assert house.given(worker) == [later]


def test_when_its_deadline_passes_the_others_go_on(house: House) -> None:
    house.serve(b"v", b"w", capacity=6, max_batch=3)
    house.ask(0, "a", deadline=30.0)
    (first,) = (peer for peer in (b"v", b"w") if house.given(peer))
    (worker,) = {b"v", b"w"} - {first}
    house.ask(1, "b")
    house.vanish(first)
    later = house.ask(2, "c")
    house.given(worker)
    for _ in range(8):
        house.wait(4.0)
        house.beat(worker)
    assert house.answers() == {(session("a"), 0): "deadline"}
    assert house.given(worker) == [later]


def test_the_first_is_not_blamed_where_another_shares_no_batch_with_it(house: House) -> None:
    house.serve(b"w", capacity=4, max_batch=2)
    keys = [house.ask(0), house.ask(1, options={"a": 1})]
    house.vanish(b"w")
    assert [house.job(key).attempts for key in keys] == [0, 0]
