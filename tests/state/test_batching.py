"""Which requests are computed together, and when a worker waits for more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from aserpc.messages import Answer, Buffer, Cancel, Goodbye, Ready, RequestKey, failure
from aserpc.worker.batching import FEWEST_ATOMS, Batching, Job, Limits
from aserpc.worker.state import Phase, WorkerState

from .builders import about, request
from .worker_desk import HEARTBEAT, IDENTITY, IDLE_TIMEOUT, Desk

NOW = float("-inf")


def job(number: int, who: str = "s", atoms: int = 2, since: float = 0.0, **fields: Any) -> Job:
    return Job(request(number, who, **fields), [bytes(atoms)], since)


def waiting(*jobs: Job) -> dict[RequestKey, Job]:
    return {job.request.key: job for job in jobs}


def count(payload: list[Buffer]) -> int:
    return len(payload[0])


def batching(structures: int = 4, atoms: int = 100, wait: float = 0.0) -> Batching:
    return Batching(Limits(structures, atoms, wait), count)


def taken(batching: Batching, *jobs: Job) -> list[int]:
    return [job.request.id for job in batching.take(waiting(*jobs))]


# ---- which ---------------------------------------------------------------------------------------


def test_what_is_there_is_taken_in_order_whoever_asks() -> None:
    jobs = [job(0, "a"), job(1, "b"), job(2, "a")]
    assert taken(batching(), *jobs) == [0, 1, 2]


def test_no_more_structures_than_are_allowed() -> None:
    assert taken(batching(3), *map(job, range(5))) == [0, 1, 2]
    assert taken(batching(1), *map(job, range(5))) == [0]


def test_options_must_be_equal() -> None:
    jobs = [job(0, options={"charge": 1}), job(1), job(2, options={"charge": 1})]
    assert taken(batching(), *jobs) == [0, 2]
    assert taken(batching(), *jobs[1:]) == [1]


def test_different_properties_do_not_part_requests() -> None:
    assert taken(batching(), job(0, properties=["energy"]), job(1, properties=["stress"])) == [0, 1]


def test_no_more_atoms_than_are_allowed_but_smaller_ones_fit_yet() -> None:
    sizes = [40, 50, 20, 10]
    jobs = [job(number, atoms=atoms) for number, atoms in enumerate(sizes)]
    assert taken(batching(), *jobs) == [0, 1, 3]


def test_a_structure_over_the_limit_is_computed_alone() -> None:
    jobs = [job(0, atoms=1000), job(1, atoms=1)]
    assert taken(batching(), *jobs) == [0]


def test_the_first_is_always_taken() -> None:
    jobs = [job(0, atoms=90), *(job(number, atoms=1) for number in range(1, 9))]
    assert taken(batching(), *jobs)[0] == 0


def test_atoms_are_counted_once_and_not_for_one_that_is_alone() -> None:
    counted: list[Buffer] = []

    def note(payload: list[Buffer]) -> int:
        counted.extend(payload)
        return 60

    found = Batching(Limits(4, 100), note)
    first, second = job(0), job(1)
    assert len(found.take(waiting(first))) == 1
    assert not counted
    for _ in range(2):
        assert len(found.take(waiting(first, second))) == 1
    assert len(counted) == 2


def test_a_worker_that_batches_holds_the_next_batch_too() -> None:
    assert batching(8).capacity == 16


def test_a_worker_that_does_not_hoards_nothing() -> None:
    assert batching(1).capacity == 1


# ---- memory --------------------------------------------------------------------------------------


def test_without_memory_for_it_batches_get_half_as_large() -> None:
    found = batching(atoms=100)
    found.lower(80)
    assert found.limits == Limits(4, 40)
    assert taken(found, job(0, atoms=30), job(1, atoms=30)) == [0]


def test_a_limit_is_never_raised_by_that_nor_lowered_for_ever() -> None:
    found = batching(atoms=100)
    found.lower(1000)
    assert found.limits.atoms == 100
    for _ in range(20):
        found.lower(found.limits.atoms)
    assert found.limits.atoms == FEWEST_ATOMS


# ---- when ----------------------------------------------------------------------------------------


def test_by_default_nothing_is_waited_for() -> None:
    found = batching()
    found.take(waiting(job(0, "a"), job(1, "b")))
    assert found.begins_at(waiting(job(2, "a", since=7.0)), 7.0) == NOW


def test_a_client_alone_never_waits() -> None:
    found = batching(wait=0.5)
    for number in range(5):
        there = waiting(job(number, "a", since=7.0))
        assert found.begins_at(there, 7.0) == NOW
        found.take(there)


def test_the_clients_of_the_last_batches_are_waited_for() -> None:
    found = batching(wait=0.5)
    found.take(waiting(job(0, "a")))
    found.take(waiting(job(0, "b", since=5.0), job(0, "c", since=5.0)), 6.0)
    there = [job(1, who, since=7.0) for who in "abc"]
    assert found.begins_at(waiting(*there[:1]), 7.0) == 7.5
    assert found.begins_at(waiting(*there[:2]), 7.0) == 7.5
    assert found.begins_at(waiting(*there), 7.0) == NOW


def test_clients_after_one_another_wait_for_nobody() -> None:
    found = batching(wait=0.5)
    for number in range(9):
        there = waiting(job(0, f"{number}", since=number + 0.1))
        assert found.begins_at(there, float(number)) == NOW
        found.take(there, float(number))


def test_those_who_were_there_at_once_are_counted_with_all_their_sessions_once() -> None:
    found = batching(9, wait=0.5)
    for number in range(1, 4):
        # One asked while the last batch was computed; each has a new session.
        there = [job(0, f"{number}{who}", since=number + (who > "a")) for who in "abc"]
        found.take(waiting(*there), number + 0.5)
    there = [job(0, who, since=4.9) for who in "wxyz"]
    assert found.begins_at(waiting(*there[:3]), 4.5) == 5.4
    assert found.begins_at(waiting(*there), 4.5) == NOW


def test_the_time_counts_from_when_the_worker_is_free() -> None:
    found = batching(wait=0.5)
    found.take(waiting(job(0, "a"), job(0, "b")))
    assert found.begins_at(waiting(job(1, "a", since=3.0)), 7.0) == 7.5
    assert found.begins_at(waiting(job(1, "a", since=8.0)), 7.0) == 8.5


def test_those_who_do_not_come_are_soon_not_waited_for() -> None:
    found = batching(wait=0.5)
    found.take(waiting(job(0, "a"), job(0, "b")))
    for number in (1, 2):
        found.take(waiting(job(number, "a")))
    assert found.begins_at(waiting(job(3, "a", since=7.0)), 7.0) == NOW


class Steps:
    """Clients that ask, and some time after their answer ask again, of a worker that batches.

    Each needs so many seconds between an answer and its next question.
    """

    def __init__(self, *own: float, wait: float = 0.05, takes: float = 1.0) -> None:
        self.own, self.takes = dict(enumerate(own)), takes
        self.batching = batching(16, 1000, wait)
        self.asks_at = {client: 0.001 * client for client in self.own}
        self.free_since, self.number = 0.0, 0
        #: How long there was something to compute and nothing was computed.
        self.waited = 0.0

    def batch(self) -> int:
        """Compute a batch; return how many it had."""
        jobs = sorted((at, client) for client, at in self.asks_at.items())
        now = max(self.free_since, jobs[0][0])
        while True:
            there = [job(self.number, f"{client}", since=at) for at, client in jobs if at <= now]
            begins_at = self.batching.begins_at(waiting(*there), self.free_since)
            later = [at for at, _ in jobs if at > now]
            if begins_at <= now:
                break
            now = min([begins_at, *later[:1]])
        self.waited += now - max(self.free_since, jobs[0][0])
        taken = self.batching.take(waiting(*there), self.free_since)
        self.number += 1
        self.free_since = now + self.takes
        for each in taken:
            client = int(each.request.session.strip(b"."))
            self.asks_at[client] = self.free_since + self.own[client]
        return len(taken)

    def leave(self, *clients: int) -> None:
        for client in clients:
            del self.asks_at[client], self.own[client]


@pytest.mark.parametrize("count", [2, 3, 16])
def test_clients_in_step_gather_and_stay_together(count: int) -> None:
    steps = Steps(*(0.001 + 0.002 * client for client in range(count)))
    found = [steps.batch() for _ in range(30)]
    assert found[0] == 1, "who comes first waits for nobody"
    assert found[4:] == [count] * 26


def test_one_whose_company_has_left_waits_twice() -> None:
    steps = Steps(0.001, 0.003)
    for _ in range(9):
        steps.batch()
    steps.leave(1)
    steps.waited = 0.0
    assert [steps.batch() for _ in range(9)] == [1] * 9
    assert steps.waited == pytest.approx(2 * 0.05)


def test_one_that_comes_later_joins_the_others() -> None:
    steps = Steps(0.001, 0.003)
    for _ in range(9):
        steps.batch()
    steps.own[2], steps.asks_at[2] = 0.002, steps.free_since - 0.5
    assert [steps.batch() for _ in range(9)][-6:] == [3] * 6


@pytest.mark.parametrize("full", [Limits(2, 100, 0.5), Limits(9, 5, 0.5)], ids=["count", "atoms"])
def test_a_full_batch_waits_for_nobody(full: Limits) -> None:
    found = Batching(full, count)
    found.take(waiting(job(0, "a")))
    found.take(waiting(job(0, "b"), job(0, "c")))
    there = waiting(*(job(1, who, atoms=2, since=7.0) for who in "ab"), job(2, "a", since=7.0))
    assert found.begins_at(there, 7.0) == NOW


# ---- the worker ----------------------------------------------------------------------------------


def desk(structures: int = 4, wait: float = 0.0) -> Desk:
    return Desk(batching=Batching(Limits(structures, 100, wait), len))


def begin(desk: Desk) -> list[RequestKey]:
    return [job.request.key for job in desk.state.next_batch(desk.now)]


def ask(desk: Desk, numbers: Iterable[int]) -> list[RequestKey]:
    return [desk.ask(number) for number in numbers]


def test_it_says_how_many_it_takes_and_computes_together() -> None:
    state = WorkerState("lj", IDENTITY, IDLE_TIMEOUT, HEARTBEAT, 0.0)
    (ready,) = state.loaded(about(), 5.0, batching(8))
    assert isinstance(ready, Ready)
    assert (ready.capacity, ready.max_batch) == (16, 8)


def test_it_says_what_it_was_told_to_take() -> None:
    state = WorkerState("lj", IDENTITY, IDLE_TIMEOUT, HEARTBEAT, 0.0, capacity=5)
    (ready,) = state.loaded(about(), 5.0)
    assert isinstance(ready, Ready)
    assert (ready.capacity, ready.max_batch) == (5, 1)


def test_it_computes_batch_after_batch() -> None:
    at = desk()
    keys = ask(at, range(6))
    assert begin(at) == keys[:4]
    assert begin(at) == [], "one is computed"
    for key in keys[:4]:
        assert at.end(key) == [Answer(*key)]
    assert begin(at) == keys[4:]


def test_it_waits_for_company_as_long_as_it_is_told() -> None:
    at = desk(wait=0.5)
    for number, who in enumerate("ab"):
        at.get(request(number, who))
    for key in begin(at):
        at.end(key)
    at.get(request(2, "a"))
    assert begin(at) == []
    assert at.state.begins_at() == at.now + 0.5
    at.now += 0.5
    assert [number for _, number in begin(at)] == [2]


def test_it_registers_with_all_that_it_has() -> None:
    at = desk(2)
    keys = ask(at, range(3))
    begin(at)
    at.now += 60.0
    (ready,) = at.get_unknown()
    assert isinstance(ready, Ready)
    assert [tuple(key) for key in ready.running] == keys


def test_it_goes_when_the_whole_batch_is_answered() -> None:
    at = desk(2)
    keys = ask(at, range(3))
    begin(at)
    assert at.state.finish(at.now) == []
    assert at.end(keys[0]) == [Answer(*keys[0])]
    assert at.end(keys[1]) == [Answer(*keys[1]), Goodbye([list(keys[2])])]


def test_what_is_computed_in_a_batch_is_not_cancelled() -> None:
    at = desk(2)
    keys = ask(at, range(3))
    begin(at)
    answers = at.get(Cancel([list(key) for key in keys]))
    assert [answer.key for answer in answers if isinstance(answer, Answer)] == keys[2:]


def test_of_several_that_hang_none_is_to_blame_yet() -> None:
    at = desk(3)
    keys = ask(at, range(4))
    begin(at)
    at.end(keys[0])
    told = at.state.hung(keys[1:3], failure("calculation_timeout", "it hung"), at.now)
    assert told == [Goodbye([list(keys[3])], [list(key) for key in keys[1:3]])]
    assert at.state.phase is Phase.FINISHING


def test_one_that_hangs_alone_is_answered() -> None:
    at = desk(3)
    keys = ask(at, range(3))
    begin(at)
    error = failure("calculation_timeout", "it hung")
    answer, goodbye = at.state.hung(keys[:1], error, at.now)
    assert isinstance(answer, Answer)
    assert (answer.key, answer.error) == (keys[0], error)
    assert goodbye == Goodbye([list(key) for key in keys[1:]])
