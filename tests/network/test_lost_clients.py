"""Clients on other hosts, whose network goes and comes back."""

from __future__ import annotations

import pytest

from support.across import NEVER, Across
from support.hosts import Cut
from support.waiting import wait_for


@pytest.mark.parametrize("kind", Cut)
def test_an_answer_waits_for_the_end_of_a_short_cut(across: Across, kind: Cut) -> None:
    across.set(ASERPC_WORKER_TIMEOUT=NEVER)
    across.broker()
    worker = across.worker("one")
    client = across.client("laptop", "gate", 2)
    wait_for(lambda: across.started(worker))
    across.hosts["laptop"].cut(kind)
    across.open()
    wait_for(lambda: across.hosts["head"].unsent() > 100)
    across.hosts["laptop"].restore()
    assert client.wait() == 0, client.errors()
    assert client.output() == f"asked\n2.0 {worker.pid}\n"
    assert across.started(worker) == 1


def test_a_closed_connection_that_the_broker_does_not_know_of(across: Across) -> None:
    across.set(ASERPC_WORKER_TIMEOUT=NEVER)
    across.broker()
    worker = across.worker("one")
    client = across.client("laptop", "gate", 2)
    wait_for(lambda: across.started(worker))
    across.hosts["laptop"].cut()
    across.hosts["laptop"].close_connections(across.hosts["head"])
    across.hosts["laptop"].restore()
    head, laptop = across.hosts["head"], across.hosts["laptop"]
    wait_for(lambda: laptop.connections(head))
    across.open()
    assert client.wait() == 0, client.errors()
    assert client.output() == f"asked\n2.0 {worker.pid}\n"
    assert across.started(worker) == 1


def test_a_client_comes_back_when_the_brokers_host_does(across: Across) -> None:
    across.set(ASERPC_WORKER_TIMEOUT="2")
    across.broker()
    worker = across.worker("one")
    client = across.client("laptop", "gate", 2, 4)
    wait_for(lambda: across.started(worker))
    across.hosts["head"].cut()
    wait_for(lambda: not across.states())
    across.open()
    wait_for(lambda: across.ended(worker))
    across.hosts["head"].restore()
    assert client.wait(40) == 0, client.errors()
    assert client.output() == f"asked\n2.0 {worker.pid}\n8.0 {worker.pid}\n"


def test_a_client_that_stays_away_is_told_so(across: Across) -> None:
    across.broker()
    across.worker("one")
    client = across.client("laptop", "gate", 2, ASERPC_CLIENT_TIMEOUT_MS="2000")
    across.hosts["laptop"].cut()
    assert client.wait() == 1
    assert "BrokerSilentError: no word from the broker at tcp://" in client.errors()
