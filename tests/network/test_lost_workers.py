"""Workers on other hosts, whose network goes and comes back."""

from __future__ import annotations

import pytest

from support.across import NEVER, Across, ask, energies, process
from support.asking import energy_at
from support.hosts import Cut
from support.waiting import wait_for


@pytest.mark.parametrize("kind", Cut)
def test_an_answer_waits_for_the_end_of_a_short_cut(across: Across, kind: Cut) -> None:
    across.set(ASERPC_WORKER_TIMEOUT=NEVER)
    across.broker()
    first = across.worker("one")
    call = ask(across, 2)
    wait_for(lambda: across.started(first))
    second = across.worker("two")
    across.hosts["one"].cut(kind)
    across.open(first)
    wait_for(lambda: across.ended(first) and across.hosts["one"].unsent() > 100)
    across.hosts["one"].restore()
    assert energies(call.result()) == [2.0]
    assert process(call.value) == first.pid
    assert (across.started(first), across.started(second)) == (1, 0)


@pytest.mark.parametrize("kind", Cut)
def test_a_request_runs_elsewhere_after_a_long_cut(across: Across, kind: Cut) -> None:
    across.set(ASERPC_WORKER_TIMEOUT="3")
    across.broker()
    first = across.worker("one")
    call = ask(across, 2)
    wait_for(lambda: across.started(first))
    second = across.worker("two")
    across.hosts["one"].cut(kind)
    wait_for(lambda: across.started(second))
    # The first gets this one as soon as it is back, with its answer to the other.
    following = ask(across, 4)
    across.open(first)
    wait_for(lambda: across.ended(first))
    across.hosts["one"].restore()
    assert energies(following.result()) == [8.0]
    across.open(second)
    assert energies(call.result()) == [2.0]
    assert [process(call.value), process(following.value)] == [second.pid, first.pid]
    assert (across.started(first), across.started(second)) == (2, 1)


@pytest.mark.parametrize("kind", Cut)
def test_an_idle_worker_comes_back(across: Across, kind: Cut) -> None:
    across.set(ASERPC_WORKER_TIMEOUT="2")
    across.broker()
    worker = across.worker("one")
    across.hosts["one"].cut(kind)
    wait_for(lambda: not across.states())
    across.hosts["one"].restore()
    wait_for(lambda: worker.pid in across.head.ready())
    across.open()
    assert energy_at(across.head.calculator("gate"), 2) == 2


def test_workers_come_back_when_the_brokers_host_does(across: Across) -> None:
    across.set(ASERPC_WORKER_TIMEOUT="2")
    across.broker()
    workers = [across.worker("one"), across.worker("two")]
    calls = [ask(across, x) for x in (2, 4)]
    wait_for(lambda: all(map(across.started, workers)))
    across.hosts["head"].cut()
    wait_for(lambda: not across.states())
    across.open()
    wait_for(lambda: all(map(across.ended, workers)))
    across.hosts["head"].restore()
    wait_for(lambda: across.head.ready() == {worker.pid for worker in workers})
    assert [energies(call.result()) for call in calls] == [[2.0], [8.0]]


def test_an_attempt_to_connect_is_given_up_before_its_packets_get_rare(across: Across) -> None:
    # TCP waits twice as long each time: after a cut of a minute it would try again in another.
    across.set(ASERPC_WORKER_TIMEOUT="2")
    across.broker()
    worker = across.worker("one")
    one, head = across.hosts["one"], across.hosts["head"]
    one.cut()
    attempts: set[str] = set()

    def seen() -> int:
        attempts.update(one.connections(head, "syn-sent"))
        return len(attempts)

    wait_for(lambda: seen() >= 2)
    one.restore()
    wait_for(lambda: worker.pid in across.head.ready())
