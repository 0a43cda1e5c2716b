"""Clients on other hosts that are cut off: their answers are kept, as are their turns."""

from __future__ import annotations

import pytest

from support.across import NEVER, Across, ask, energies
from support.hosts import Cut
from support.waiting import wait_for


@pytest.mark.parametrize("kind", Cut)
def test_what_is_computed_during_a_long_cut_is_not_computed_again(
    across: Across, kind: Cut
) -> None:
    across.set(ASERPC_WORKER_TIMEOUT="2")
    across.broker()
    worker = across.worker("one")
    client = across.client("laptop", "gate", 2, 4)
    wait_for(lambda: across.started(worker))
    head, laptop = across.hosts["head"], across.hosts["laptop"]
    laptop.cut(kind)
    wait_for(lambda: not head.connections(laptop))
    across.open()
    wait_for(lambda: across.ended(worker) == 2)
    laptop.restore()
    assert client.wait(40) == 0, client.errors()
    assert client.output() == f"asked\n2.0 {worker.pid}\n8.0 {worker.pid}\n"
    assert across.started(worker) == 2


def test_a_client_that_is_cut_off_for_some_seconds_keeps_its_place(across: Across) -> None:
    across.set(ASERPC_WORKER_TIMEOUT=NEVER)
    across.broker()
    worker = across.worker("one")
    client = across.client("laptop", "gate", 2, 4)
    wait_for(lambda: across.started(worker))
    later = ask(across, 6)
    wait_for(lambda: across.head.status()["pending_requests"] == {"gate": 2})
    head, laptop = across.hosts["head"], across.hosts["laptop"]
    before = head.connections(laptop)
    laptop.cut()
    head.close_connections(laptop)  # so that the broker knows, and the client does not
    wait_for(lambda: not head.connections(laptop))
    laptop.restore()
    wait_for(lambda: head.connections(laptop) - before)
    assert across.head.status()["pending_requests"] == {"gate": 2}
    across.open()
    assert client.wait(40) == 0, client.errors()
    assert energies(later.result()) == [18.0]
    assert across.started(worker) == 3
