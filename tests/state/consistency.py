"""What must hold of a broker's state after every event."""

from __future__ import annotations

from aserpc.broker.deaths import verdict
from aserpc.broker.records import SERVING, TAKING, Calculator, Worker
from aserpc.broker.state import BrokerState
from aserpc.broker.tables import JobState, WorkerState

J = JobState


def check_consistency(state: BrokerState) -> None:
    """Check that the broker's indexes agree, and that nobody waits who need not."""
    waiting = {id(job) for each in state.calculators.values() for job in each.waiting()}
    for key, job in state.jobs.items():
        assert job.key == key
        assert state.calculators[job.calculator.name] is job.calculator
        if job.state is JobState.QUEUED:
            assert job.worker is None
            assert id(job) in waiting
        elif job.state is JobState.CONDEMNED:
            assert job.worker is None
            assert verdict(job) is not None
            assert job.timer is not None
        else:
            assert job.state in (JobState.ASSIGNED, JobState.RUNNING, JobState.ORPHANED)
            assert job.worker is not None
            assert state.workers[job.worker.peer] is job.worker
            assert job.worker.jobs[key] is job
        if job.state is not JobState.ORPHANED:
            assert job.is_known
            assert state.clients[job.client].jobs[key] is job
    _check_clients(state)
    for peer, worker in state.workers.items():
        assert worker.peer == peer
        assert state.calculators[worker.calculator.name] is worker.calculator
        _check_worker(worker)
    for name, calculator in state.calculators.items():
        assert calculator.name == name
        members = [w for w in state.workers.values() if w.calculator is calculator]
        assert calculator.members == len(members)
        _check_groups(calculator, members)
        _check_waiting(calculator)
        assert all(state.jobs[job.key] is job for job in calculator.waiting())
    deadlines = sum(job.deadline is not None for job in state.jobs.values())
    condemned = sum(job.state is JobState.CONDEMNED for job in state.jobs.values())
    deadlines += condemned + len(state.deaths)
    others = len(state.workers) + 2 * len(state.calculators) + len(state.managers) + 1
    others += state.routine_timers + 2  # one trial of all connections
    assert len(state._timers) <= deadlines + others, "timers leak"
    _check_managers(state)


def _check_clients(state: BrokerState) -> None:
    assert state.held == sum(job.size for job in state.jobs.values())
    waiting = [job for job in state.jobs.values() if job.state is not JobState.ORPHANED]
    assert sum(len(client.jobs) for client in state.clients.values()) == len(waiting)
    assert all(client.timer is not None for client in state.clients.values())
    answers = state.answers
    assert answers.size == sum(kept.size for kept in answers._kept.values()) <= answers.limit
    assert not any(key in state.jobs for key in answers._kept), "an answer, and computed again"


def _check_managers(state: BrokerState) -> None:
    offered = {(name, peer) for peer, manager in state.managers.items() for name in manager.names}
    calculators = state.calculators.values()
    assert offered == {(c.name, c.manager) for c in calculators if c.manager is not None}
    assert state.spawned == {s: c.name for c in calculators for s in c.spawn_ids}
    for calculator in calculators:
        if calculator.manager is None:
            kept = (calculator.spawn_ids, calculator.spawn_text, calculator.fatal)
            assert not any(kept)
            assert calculator.demand_timer is None
            assert not calculator.min_workers


def _check_worker(worker: Worker) -> None:
    assert worker.state not in (WorkerState.GONE, WorkerState.LOST)
    if worker.state in SERVING:
        assert bool(worker.jobs or worker.taken_back) is (worker.state is WorkerState.BUSY)
    elif worker.state is WorkerState.LOADING:
        assert not worker.jobs
    states = [job.state for job in worker.jobs.values()]
    assert all(job.worker is worker for job in worker.jobs.values())
    assert states[:1] != [JobState.ASSIGNED], "nothing runs before it"
    assert len(states) == 1 or not any(job.alone for job in worker.jobs.values())
    assert states.count(JobState.RUNNING) <= 1
    assert {*states} <= {J.ASSIGNED, J.RUNNING, J.CANCELLED, J.ORPHANED}


def _check_groups(calculator: Calculator, members: list[Worker]) -> None:
    def peers(chosen: list[Worker]) -> set[bytes]:
        return {worker.peer for worker in chosen}

    busy = [w for w in members if w.state is WorkerState.BUSY]
    assert {*calculator.workers} == peers([w for w in members if w.state in TAKING])
    assert {*calculator.serving} == peers([w for w in members if w.state in SERVING])
    here = [w for w in members if w.away_since is None]
    assert {*calculator.idle} == peers([w for w in here if w.state is WorkerState.IDLE])
    with_room = [w for w in busy if w.has_room]
    assert {*calculator.partial} == peers([w for w in here if w in with_room])


def _check_waiting(calculator: Calculator) -> None:
    queues = [*calculator._turns]
    assert all(queues), "an empty queue is kept"
    assert calculator.queued == sum(map(len, queues))
    if calculator.queued:
        assert not calculator.idle, "a worker idles while a request waits"
        is_blocked = calculator._first().alone
        assert is_blocked or not calculator.partial, "a slot is free while a request waits"
    if calculator.descriptions:
        assert not calculator.serving, "a description waits though it is known"
    assert not calculator.is_unused(), "a calculator is kept that nobody needs"
    helpless = not calculator.workers and calculator.manager is None
    waits_in_vain = calculator.is_waited_for() and helpless
    assert (calculator.deserted_at is not None) is waits_in_vain
