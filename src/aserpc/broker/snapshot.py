"""What the broker tells of itself: for `aserpc status`, and for those who wait."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from aserpc.broker.records import Calculator, Job, Manager, Worker
from aserpc.broker.tables import JobState, WorkerState
from aserpc.messages import unpack_about

#: The longest text that is told for each of many, in characters: there may be the last lines of a
#: worker in it.
MAX_TEXT = 500

#: How many of the names that are served an error lists.
MAX_NAMES = 50


def snapshot(
    by_name: Mapping[str, Calculator],
    workers: Collection[Worker],
    managers: Collection[Manager],
    now: float,
) -> dict[str, Any]:
    """Return the broker's workers and requests, as plain values.

    ``workers``, ``pending_requests`` and ``manager`` are as in aserpc 0.1.
    """
    calculators = sorted(by_name.items())
    managers = [manager for manager in managers if not manager.returning]
    gpus: dict[str | None, list[str]] = {}
    for manager in managers:
        for gpu, _, holders in manager.gpus:
            for spawn_id, _ in holders:
                gpus.setdefault(spawn_id, []).append(gpu)
    return {
        "workers": {name: _counts(c) for name, c in calculators if c.workers},
        "pending_requests": {
            name: len(c.waiting()) for name, c in calculators if c.is_waited_for()
        },
        "manager": {
            "connected": len(managers) > 0,
            "spawnable": [name for name, c in calculators if c.manager is not None],
        },
        "spawning": {
            name: {"processes": len(c.spawn_ids), "text": c.spawn_text, "fatal": c.fatal}
            for name, c in calculators
            if c.manager is not None
        },
        "running_requests": _running(calculators, workers),
        "processes": [
            {
                "calculator": worker.calculator.name,
                "state": worker.state.value,
                "pid": worker.process[0],
                "host": worker.process[1],
                "gpus": gpus.get(worker.spawn_id, []),
                "answered": worker.answered,
                "seconds": round(now - worker.since, 3),
                "factory": _shown(unpack_about(worker.about).get("factory")),
            }
            for worker in workers
        ],
        "managers": [_manager(manager, workers) for manager in managers],
    }


def _manager(manager: Manager, workers: Iterable[Worker]) -> dict[str, Any]:
    by_spawn_id = {worker.spawn_id: worker for worker in workers}
    return {
        "pid": manager.process[0],
        "host": manager.process[1],
        "calculators": sorted(manager.names),
        "gpus": [
            {
                "id": gpu,
                "free": free,
                "workers": [
                    {
                        "calculator": name,
                        # None: its worker is not there yet, or no longer.
                        "pid": worker.process[0] if worker else None,
                        "state": worker.state.value if worker else None,
                    }
                    for spawn_id, name in holders
                    for worker in [by_spawn_id.get(spawn_id)]
                ],
            }
            for gpu, free, holders in manager.gpus
        ],
    }


def _shown(value: Any) -> str | None:
    """Return a text that fits into a status with thousands of them."""
    return value[:MAX_TEXT] if isinstance(value, str) else None


def _counts(calculator: Calculator) -> dict[str, int]:
    states = [worker.state for worker in calculator.workers.values()]
    return {
        "total": len(states),
        "idle": states.count(WorkerState.IDLE),
        "busy": states.count(WorkerState.BUSY),
        "loading": states.count(WorkerState.LOADING) + states.count(WorkerState.RETURNING),
    }


def _running(
    calculators: Iterable[tuple[str, Calculator]], workers: Iterable[Worker]
) -> dict[str, int]:
    counts = {name: 0 for name, calculator in calculators if calculator.members}
    for worker in workers:
        counts[worker.calculator.name] += len(worker.jobs)
    return counts


def nobody(by_name: Mapping[str, Calculator], name: str) -> tuple[str, str]:
    """Return the error for a calculator that nobody serves, and why."""
    calculator = by_name.get(name)
    if calculator is not None and calculator.fatal:
        reason = f"No worker of {name!r} is started any more: {calculator.fatal}"
        return "worker_failed", reason
    names = sorted(n for n, c in by_name.items() if c.is_served() and n != name)
    served = ", ".join(map(repr, names[:MAX_NAMES])) or "nothing"
    if len(names) > MAX_NAMES:
        served += f" and {len(names) - MAX_NAMES} more"
    reason = (
        f"No workers available for {name!r}: none serves it and none is starting. "
        f"Served now: {served}. Start a worker with: aserpc worker {name}, or a manager that "
        "starts workers on demand: aserpc manager"
    )
    return "no_workers", reason


def progress(job: Job, now: float) -> str:
    """Say in words what a request waits for."""
    return _progress(job, now)[:MAX_TEXT]


def _progress(job: Job, now: float) -> str:
    calculator = job.calculator
    if job.state is not JobState.QUEUED:
        return f"with {job.worker.label}" if job.worker else ""
    waited = f"{now - job.queued_at:.0f} s"
    if calculator.deserted_at is not None:
        return f"waits for a worker, {waited}; {calculator.deserted_by}"
    if not calculator.serving and calculator.spawn_text:
        # A start tells its own time.
        text = calculator.spawn_text
        return text if calculator.spawn_ids else f"{text} ({waited})"
    if not calculator.serving:
        return f"a worker is loading, {waited}"
    return f"{calculator.queued} wait for {len(calculator.workers)} workers, {waited}"
