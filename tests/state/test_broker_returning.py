"""Managers and workers of a broker that is restarted."""

from __future__ import annotations

from typing import Any

from aserpc.broker.managers import DEMAND_INTERVAL
from aserpc.broker.workers import RETURN_GRACE
from aserpc.messages import Accept, Answer, Demand, Heartbeat, Offer, Ready, Unknown

from .builders import House, about, ready, request

MANAGER, OTHER, WORKER = b"manager", b"other", b"worker"


def offer(house: House, *names: str, peer: bytes = MANAGER, pid: int = 1) -> list[Any]:
    """Offer calculators; return those that are refused."""
    house.worker(peer, Offer([[name, 0] for name in names], {"pid": pid, "host": "h"}))
    (accept,) = house.take(peer, Accept)
    return accept.refused


def restarted(*names: str) -> House:
    """Return a house whose broker had a manager before it was restarted."""
    house = House()
    offer(house, *names)
    house.restart()
    return house


def test_requests_wait_for_a_manager_that_is_expected() -> None:
    house = restarted("lj", "emt")
    key = house.ask(name="emt")
    house.wait(0.5)
    assert house.answers() == {}
    assert house.take(MANAGER, Unknown)
    assert not house.status()["managers"], "it has not spoken yet"
    assert offer(house, "lj", "emt") == []
    house.wait(DEMAND_INTERVAL)
    demands = [(d.calculator, d.queued) for d in house.take(MANAGER, Demand)]
    assert demands[-1] == ("emt", 1)
    house.worker(WORKER, ready("emt"))
    house.answer(WORKER, key)
    assert house.answers() == {key: None}
    assert len(house.status()["managers"]) == 1


def test_one_that_speaks_first_is_told_that_the_broker_is_another() -> None:
    house = restarted("lj")
    house.worker(MANAGER, Heartbeat())
    assert house.take(MANAGER, Unknown)


def test_one_that_does_not_come_back_is_not_waited_for_long() -> None:
    house = restarted("lj", "emt")
    house.cut.add(MANAGER)
    key = house.ask()
    house.wait(RETURN_GRACE - 1)
    assert house.answers() == {}
    house.wait(2)
    assert house.answers() == {key: "no_workers"}
    assert house.is_empty()


def test_the_successor_of_one_that_is_expected_gets_its_names() -> None:
    house = restarted("lj")
    assert offer(house, "lj", peer=OTHER, pid=2) == []
    assert offer(house, "lj") == [["lj", "the manager in process 2 on h"]], "it comes too late"


def test_the_roster_is_to_be_saved_when_a_manager_comes_or_goes() -> None:
    house = House()
    offer(house, "lj")
    assert house.state.roster_changed
    house.state.roster_changed = False
    house.vanish(MANAGER)
    assert house.state.roster_changed
    assert not house.state.roster(house.now).managers


def test_a_calculation_is_not_late_from_when_its_worker_was_found() -> None:
    house = House()
    said = Ready("lj", {}, about(), capacity=2, calculation_timeout=5.0)
    house.worker(b"w", said)
    keys = [house.ask(number) for number in range(2)]
    house.wait(1.0)
    house.restart()
    house.wait(4.0)
    house.worker(b"w", Answer(*keys[0]))
    said.running = [[*keys[1]]]
    house.worker(b"w", said)
    house.client(request(1))
    house.wait(2.0)
    house.vanish(b"w")
    assert house.answers() == {}
