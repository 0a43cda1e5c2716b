"""Connections of workers that are closed, as by a firewall, and what becomes of the requests."""

from __future__ import annotations

from support.across import NEVER, Across, ask, energies, process
from support.asking import energy_at
from support.hosts import Host
from support.waiting import wait_for


def wait_for_another_connection(host: Host, peer: Host, before: set[str]) -> None:
    wait_for(lambda: host.connections(peer) - before)


def test_a_closed_connection_may_come_back(across: Across) -> None:
    across.set(ASERPC_WORKER_TIMEOUT=NEVER)
    broker = across.broker()
    first = across.worker("one")
    call = ask(across, 2)
    wait_for(lambda: across.started(first))
    second = across.worker("two")
    one, head = across.hosts["one"], across.hosts["head"]
    for _ in range(3):
        before = one.connections(head)
        one.close_connections(head)
        wait_for_another_connection(one, head, before)
        wait_for(lambda: across.states() == {first.pid: "busy", second.pid: "idle"})
    across.open(first)
    assert energies(call.result()) == [2.0], broker.errors()
    assert process(call.value) == first.pid
    assert (across.started(first), across.started(second)) == (1, 0)


def test_a_closed_connection_that_the_broker_does_not_know_of(across: Across) -> None:
    across.set(ASERPC_WORKER_TIMEOUT=NEVER)
    across.broker()
    worker = across.worker("one")
    call = ask(across, 2)
    wait_for(lambda: across.started(worker))
    across.hosts["one"].cut()
    across.hosts["one"].close_connections(across.hosts["head"])
    across.open(worker)
    wait_for(lambda: across.ended(worker))
    across.hosts["one"].restore()
    assert energies(call.result()) == [2.0]
    assert across.head.ready() == {worker.pid}


def test_a_closed_connection_that_stays_away_is_a_lost_worker(across: Across) -> None:
    across.set(ASERPC_WORKER_TIMEOUT=NEVER)
    across.broker()
    first = across.worker("one")
    call = ask(across, 2)
    wait_for(lambda: across.started(first))
    second = across.worker("two")
    across.hosts["one"].cut()
    across.hosts["head"].close_connections(across.hosts["one"])
    wait_for(lambda: across.started(second))
    across.open(first)
    wait_for(lambda: across.ended(first))
    across.open(second)
    assert process(call.result()) == second.pid
    across.hosts["one"].restore()
    wait_for(lambda: first.pid in across.head.ready())
    assert energy_at(across.head.calculator("gate"), 4) == 8


def test_lost_connections_are_no_verdict_on_a_request(across: Across) -> None:
    across.set(ASERPC_WORKER_TIMEOUT="2")
    across.broker()
    first = across.worker("one")
    call = ask(across, 2)
    wait_for(lambda: across.started(first))
    second = across.worker("two")
    across.hosts["one"].cut()
    wait_for(lambda: across.started(second))
    third = across.worker("laptop")
    across.hosts["two"].cut()
    wait_for(lambda: across.started(third))
    across.open()
    assert energies(call.result()) == [2.0]
    assert process(call.value) == third.pid
