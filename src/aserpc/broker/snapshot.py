"""What the broker tells of itself: for `aserpc status`, and for those who wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aserpc.broker.records import Calculator, Job
from aserpc.broker.tables import JobState, WorkerState
from aserpc.messages import unpack_about

if TYPE_CHECKING:
    from aserpc.broker.requests import Requests


def snapshot(state: Requests, now: float) -> dict[str, Any]:
    """Return the broker's workers and requests, as plain values.

    ``workers``, ``pending_requests`` and ``manager`` are as in aserpc 0.1.
    """
    calculators = sorted(state.calculators.items())
    return {
        "workers": {name: _counts(c) for name, c in calculators if c.workers},
        "pending_requests": {
            name: len(c.waiting()) for name, c in calculators if c.is_waited_for()
        },
        "manager": {"connected": False, "spawnable": []},
        "running_requests": {name: _running(c) for name, c in calculators if c.members},
        "processes": [
            {
                "calculator": worker.calculator.name,
                "state": worker.state.value,
                "pid": worker.identity.get("pid"),
                "host": worker.identity.get("host"),
                "answered": worker.answered,
                "seconds": round(now - worker.since, 3),
                "factory": unpack_about(worker.about).get("factory"),
            }
            for worker in state.workers.values()
        ],
    }


def _counts(calculator: Calculator) -> dict[str, int]:
    states = [worker.state for worker in calculator.workers.values()]
    return {
        "total": len(states),
        "idle": states.count(WorkerState.IDLE),
        "busy": states.count(WorkerState.BUSY),
        "loading": states.count(WorkerState.LOADING) + states.count(WorkerState.RETURNING),
    }


def _running(calculator: Calculator) -> int:
    return sum(len(worker.jobs) for worker in calculator.workers.values())


def progress(job: Job, now: float) -> str:
    """Say in words what a request waits for."""
    calculator = job.calculator
    if job.state is not JobState.QUEUED:
        return f"with {job.worker.label}" if job.worker else ""
    waited = f"{now - job.queued_at:.0f} s"
    if calculator.deserted_at is not None:
        return f"waits for a worker, {waited}; {calculator.deserted_by}"
    if len(calculator.starting) == len(calculator.workers):
        return f"a worker is loading, {waited}"
    return f"{calculator.queued} wait for {len(calculator.workers)} workers, {waited}"
