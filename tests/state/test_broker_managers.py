"""The broker and its managers: what is offered, wanted, started and given up."""

from __future__ import annotations

from typing import Any

from aserpc.broker.managers import DEMAND_INTERVAL
from aserpc.messages import (
    Accept,
    Answer,
    Demand,
    Dismiss,
    Goodbye,
    Heartbeat,
    Hello,
    Leave,
    Offer,
    Probe,
    Ready,
    Refuse,
    Reload,
    SpawnFailed,
    Spawning,
    Stay,
    Unknown,
)

from .builders import QUEUE_TIMEOUT, WORKER_TIMEOUT, House, about, ready

MANAGER, OTHER, WORKER = b"manager", b"other", b"worker"


def offer(
    house: House, *names: str, peer: bytes = MANAGER, pid: int = 1, min_workers: int = 0
) -> list[Any]:
    """Offer calculators; return those that are refused."""
    pairs = [[name, min_workers] for name in names]
    house.worker(peer, Offer(pairs, {"pid": pid, "host": "h"}))
    (accept,) = house.take(peer, Accept)
    return accept.refused


def offered(*names: str, min_workers: int = 0) -> House:
    house = House()
    assert offer(house, *(names or ("lj",)), min_workers=min_workers) == []
    return house


def demands(house: House, peer: bytes = MANAGER) -> list[Demand]:
    return house.take(peer, Demand)


def stay_in_touch(house: House, seconds: float, *peers: bytes) -> None:
    """Let time pass while managers answer the broker's probes."""
    for _ in range(int(seconds)):
        house.wait(1.0)
        for peer in peers:
            house.worker(peer, Heartbeat())


def test_a_request_for_what_is_offered_waits_and_the_manager_is_told() -> None:
    house = offered()
    house.ask()
    house.wait(0.02)
    assert house.answers() == {}
    assert [(d.calculator, d.queued) for d in demands(house)] == [("lj", 1)]


def test_a_request_for_what_nobody_offers_fails_at_once() -> None:
    house = offered("emt")
    key = house.ask()
    assert house.answers() == {key: "no_workers"}


def test_many_requests_are_told_together() -> None:
    house = offered()
    house.wait(1.0)
    demands(house)
    for number in range(20):
        house.ask(number)
    house.wait(DEMAND_INTERVAL - 0.05)
    assert [d.queued for d in demands(house)] == [20]


def test_a_description_is_demand_too() -> None:
    house = offered()
    house.describe()
    house.wait(0.5)
    assert demands(house)[-1].queued == 1


def test_demand_is_told_until_nobody_waits() -> None:
    house = offered()
    key = house.ask()
    house.wait(1.0)
    assert len(demands(house)) > 2
    house.cancel(key)
    house.wait(1.0)
    demands(house)
    house.wait(1.0)
    assert demands(house) == []


def test_a_worker_that_falls_idle_or_busy_is_told_though_nobody_waits() -> None:
    """Else a manager would end a busy worker to make room, or wait for one that is idle."""
    house = offered()
    house.serve(WORKER)
    house.wait(1.0)
    assert [worker[1] for worker in demands(house)[-1].workers] == ["idle"]
    key = house.ask()
    house.wait(1.0)
    assert [worker[1] for worker in demands(house)[-1].workers] == ["busy"]
    house.answer(WORKER, key)
    house.wait(1.0)
    assert [worker[1] for worker in demands(house)[-1].workers] == ["idle"]


def test_many_calculations_are_told_together() -> None:
    house = offered()
    house.serve(WORKER)
    house.wait(1.0)
    demands(house)
    for number in range(20):
        house.answer(WORKER, house.ask(number))
    house.wait(DEMAND_INTERVAL)
    assert len(demands(house)) <= 2


def test_a_worker_that_is_ready_is_told_at_once() -> None:
    """If its first request kills it, the start has not failed."""
    house = offered()
    house.ask()
    house.wait(0.02)
    house.load(WORKER)
    demands(house)
    house.worker(WORKER, ready())
    (demand,) = demands(house)
    assert [worker[1] for worker in demand.workers] == ["busy"]
    assert demand.queued == 0
    assert house.given(WORKER)


def test_what_is_offered_is_waited_for_without_a_limit() -> None:
    house = offered()
    house.ask()
    stay_in_touch(house, 3 * QUEUE_TIMEOUT, MANAGER)
    assert house.answers() == {}


def test_who_waits_for_a_manager_that_goes_waits_for_the_queue_timeout() -> None:
    house = offered()
    key = house.ask()
    house.worker(MANAGER, Goodbye([]))
    assert house.take(MANAGER, Dismiss)
    house.wait(QUEUE_TIMEOUT - 1)
    assert house.answers() == {}
    house.wait(2)
    assert house.answers() == {key: "queue_timeout"}
    assert house.is_empty()


def test_a_manager_that_comes_back_in_time_serves_those_who_wait() -> None:
    house = offered()
    house.ask()
    house.worker(MANAGER, Goodbye([]))
    house.wait(QUEUE_TIMEOUT - 1)
    offer(house, "lj")
    stay_in_touch(house, QUEUE_TIMEOUT, MANAGER)
    assert house.answers() == {}
    assert demands(house)[-1].queued == 1


def test_a_silent_manager_is_probed_then_given_up() -> None:
    house = offered()
    house.wait(WORKER_TIMEOUT - 1)
    assert house.take(MANAGER, Probe)
    assert house.state.managers
    house.wait(2)
    assert not house.state.managers
    assert house.is_empty()


def test_an_offer_is_a_sign_of_life() -> None:
    house = offered()
    house.wait(WORKER_TIMEOUT - 1)
    offer(house, "lj")
    house.wait(2)
    assert house.state.managers


def test_a_manager_whose_connection_breaks_is_gone() -> None:
    house = offered()
    house.vanish(MANAGER)
    assert house.is_empty()


def test_a_calculator_that_cannot_be_started_fails_at_once() -> None:
    house = offered()
    first = house.ask(1)
    house.worker(MANAGER, Spawning("lj", [], "", "5 starts failed; the last: no such model"))
    second = house.ask(2)
    assert house.answers() == {first: "worker_failed", second: "worker_failed"}


def test_an_error_that_is_fatal_is_told_with_its_reason() -> None:
    house = offered()
    house.worker(MANAGER, Spawning("lj", [], "", "no such model"))
    house.ask()
    assert "no such model" in house.reason()


def test_a_new_offer_forgives() -> None:
    house = offered()
    house.worker(MANAGER, Spawning("lj", [], "", "no such model"))
    offer(house, "lj")
    house.ask()
    assert house.answers() == {}


def test_a_start_that_failed_is_told_to_all_who_wait() -> None:
    house = offered()
    keys = [house.ask(1), house.describe(2)]
    house.worker(MANAGER, SpawnFailed("lj", "it ended with exit code 1"))
    assert house.answers() == dict.fromkeys(keys, "worker_failed")


def test_a_start_that_failed_beside_a_worker_is_told_to_nobody() -> None:
    house = offered()
    house.serve(WORKER)
    house.ask(1)
    house.ask(2)
    house.worker(MANAGER, SpawnFailed("lj", "it ended with exit code 1"))
    assert house.answers() == {}


def test_only_its_own_manager_speaks_for_a_calculator() -> None:
    house = offered()
    offer(house, "emt", peer=OTHER)
    house.ask()
    house.worker(OTHER, SpawnFailed("lj", "what others say"))
    house.worker(OTHER, Spawning("lj", ["s9"], "", "what others say"))
    house.worker(OTHER, Spawning("nobody's", ["s9"], ""))
    assert house.answers() == {}
    assert house.state.spawned == {}


def test_the_same_name_twice_is_refused_and_says_by_whom_it_is_offered() -> None:
    house = offered("lj", "emt")
    ((name, who),) = offer(house, "lj", "gfn2", peer=OTHER, pid=2)
    assert name == "lj"
    assert "process 1" in who
    house.ask(1)
    house.ask(2, name="gfn2")
    house.wait(0.5)
    assert {d.calculator for d in demands(house, OTHER)} == {"gfn2"}
    assert {d.calculator for d in demands(house) if d.queued} == {"lj"}


def test_a_name_that_becomes_free_is_offered_again_by_who_was_refused() -> None:
    house = offered("lj")
    assert offer(house, "lj", peer=OTHER)
    house.worker(MANAGER, Goodbye([]))
    assert house.take(OTHER, Unknown)
    assert offer(house, "lj", peer=OTHER) == []


def test_a_name_that_is_offered_no_longer_may_be_taken_over() -> None:
    house = offered("lj", "emt")
    assert offer(house, "lj", peer=OTHER)
    offer(house, "emt")
    assert house.take(OTHER, Unknown)
    assert offer(house, "lj", peer=OTHER) == []


def test_an_idle_worker_below_the_minimum_stays() -> None:
    house = offered("lj", min_workers=1)
    house.serve(b"w1", b"w2")
    assert house.leave(b"w1")
    house.worker(b"w2", Leave())
    assert house.take(b"w2", Stay)
    assert not house.take(b"w2", Dismiss)


def test_without_its_manager_a_worker_may_leave() -> None:
    house = offered("lj", min_workers=1)
    house.serve(WORKER)
    house.worker(MANAGER, Goodbye([]))
    assert house.leave(WORKER)
    assert house.is_empty()


def test_a_worker_under_another_name_than_it_was_started_for_is_refused() -> None:
    house = offered()
    house.worker(MANAGER, Spawning("lj", ["s1"], "starting"))
    house.worker(WORKER, Hello("emt", {"spawn_id": "s1"}))
    (refuse,) = house.take(WORKER, Refuse)
    assert "--name lj" in refuse.reason
    assert not house.state.workers


def test_demand_lists_workers_with_their_spawn_ids() -> None:
    house = offered()
    house.worker(MANAGER, Spawning("lj", ["s1"], "starting"))
    house.worker(b"w1", Ready("lj", {"spawn_id": "s1"}, about(), 1, []))
    house.load(b"w2")
    house.wait(0.5)
    ((first, state, idle), second) = demands(house)[-1].workers
    assert (first, state) == ("s1", "idle")
    assert idle <= 0.5
    assert second[:2] == [None, "loading"]


def test_a_spawn_id_that_is_no_text_is_none() -> None:
    house = offered()
    house.worker(WORKER, Hello("lj", {"spawn_id": [1]}))
    house.wait(0.5)
    assert demands(house)[-1].workers[0][0] is None


def test_a_manager_that_the_broker_does_not_know_is_told_so() -> None:
    house = House()
    house.worker(MANAGER, Heartbeat())
    assert house.take(MANAGER, Unknown)
    assert offer(house, "lj") == []
    house.ask()
    assert house.answers() == {}


def test_the_status_lists_what_can_be_started_and_how_starts_get_on() -> None:
    house = offered("lj", "emt")
    house.worker(MANAGER, Spawning("lj", ["s1"], "starting, 3 s"))
    status = house.status()
    assert status["manager"] == {"connected": True, "spawnable": ["emt", "lj"]}
    assert status["spawning"]["lj"]["processes"] == 1
    assert status["spawning"]["lj"]["text"] == "starting, 3 s"
    assert status["spawning"]["emt"]["processes"] == 0


def test_those_who_wait_are_told_how_the_start_gets_on() -> None:
    house = offered()
    key = house.ask()
    house.worker(MANAGER, Spawning("lj", ["s1"], "starting; last line: Downloading torch"))
    (entry,) = house.ping(key).known
    assert "Downloading torch" in entry[3]


def test_a_worker_that_is_lost_is_told_and_its_request_waits_for_the_next() -> None:
    house = offered()
    house.serve(WORKER)
    house.ask()
    house.vanish(WORKER)
    house.wait(0.5)
    assert demands(house)[-1].queued == 1
    stay_in_touch(house, 2 * QUEUE_TIMEOUT, MANAGER)
    assert house.answers() == {}


def test_reload_reaches_every_manager() -> None:
    house = offered()
    offer(house, "emt", peer=OTHER)
    house.client(Reload(1))
    assert house.take(MANAGER, Reload)
    assert house.take(OTHER, Reload)


def test_processes_that_have_ended_are_forgotten() -> None:
    house = offered()
    for number in range(100):
        house.worker(MANAGER, Spawning("lj", [f"s{number}"], "starting"))
    assert house.state.spawned == {"s99": "lj"}
    house.worker(MANAGER, Spawning("lj", [], ""))
    assert house.state.spawned == {}


def test_nothing_is_left_when_all_have_gone() -> None:
    house = offered("lj", "emt")
    house.worker(MANAGER, Spawning("lj", ["s1"], "starting"))
    key = house.ask()
    house.serve(WORKER)
    house.worker(WORKER, Answer(*key))
    assert house.answers() == {key: None}
    house.goodbye(WORKER)
    house.worker(MANAGER, Goodbye([]))
    assert house.is_empty()
    assert house.state.spawned == {}
    assert house.state.managers == {}
