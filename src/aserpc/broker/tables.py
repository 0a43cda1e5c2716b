"""The states of requests and workers at the broker, and every transition between them."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """A state; its members are looked up by what they are, as their names take Python to hash."""

    __hash__ = object.__hash__


class JobState(State):
    """A request, seen by the broker."""

    #: Waits for a worker.
    QUEUED = "queued"
    #: With a worker, behind another request there.
    ASSIGNED = "assigned"
    #: Being computed; this is what counts as an attempt.
    RUNNING = "running"
    #: Too many workers died of it; their managers may tell how, and then it fails.
    CONDEMNED = "condemned"
    #: With a worker, and nobody waits for it here: its client is gone, or the broker before had it.
    ORPHANED = "orphaned"
    #: Answered by a worker.
    DONE = "done"
    #: Answered with an error of the service.
    FAILED = "failed"
    #: Its deadline, or the queue timeout, has passed.
    EXPIRED = "expired"
    #: Its client no longer wants it.
    CANCELLED = "cancelled"


class WorkerState(State):
    """A worker, seen by the broker."""

    #: Was known to the broker that served here before; not heard of yet.
    RETURNING = "returning"
    #: Makes its calculator.
    LOADING = "loading"
    #: Has no request.
    IDLE = "idle"
    #: Has at least one request.
    BUSY = "busy"
    #: Gets no more requests, and goes when it has finished what it has.
    LEAVING = "leaving"
    #: Has said goodbye.
    GONE = "gone"
    #: Its connection broke, or it did not answer.
    LOST = "lost"


J, W = JobState, WorkerState

#: (from, to): when.
JOB_TRANSITIONS: dict[tuple[JobState, JobState], str] = {
    (J.QUEUED, J.ASSIGNED): "a worker has a free slot behind another request",
    (J.QUEUED, J.RUNNING): "a worker is free",
    (J.ASSIGNED, J.RUNNING): "the request before it is answered",
    (J.ASSIGNED, J.QUEUED): "its worker is lost, hands it back, or takes long for another",
    (J.RUNNING, J.QUEUED): "its worker is lost for the first time, or hands it back",
    (J.RUNNING, J.DONE): "its worker answers",
    (J.ASSIGNED, J.DONE): "its worker answers out of order",
    (J.RUNNING, J.CONDEMNED): "too many workers died of it, and a manager may know how",
    (J.RUNNING, J.FAILED): "too many workers died of it, or the broker stops",
    (J.CONDEMNED, J.FAILED): "the managers have told, or have had the time",
    (J.CONDEMNED, J.QUEUED): "the last worker was told to end: that was no death",
    (J.CONDEMNED, J.CANCELLED): "its client cancels, or is gone",
    (J.RUNNING, J.ORPHANED): "its client is gone; the calculation goes on",
    (J.ORPHANED, J.RUNNING): "its client is back",
    (J.ORPHANED, J.ASSIGNED): "its client is back, and another request is computed before it",
    (J.ORPHANED, J.DONE): "its worker answers; the answer is kept for a while",
    (J.ORPHANED, J.CANCELLED): "its client cancels, its worker is lost, or the broker stops",
    (J.ASSIGNED, J.FAILED): "the broker stops",
    (J.QUEUED, J.FAILED): "no worker can come, or the broker stops",
    (J.QUEUED, J.EXPIRED): "its deadline or the queue timeout passes",
    (J.QUEUED, J.DONE): "a description, or a worker had it and has computed it nevertheless",
    (J.QUEUED, J.CANCELLED): "its client cancels, or is gone",
    (J.ASSIGNED, J.CANCELLED): "its client cancels, or is gone",
    (J.RUNNING, J.CANCELLED): "its client cancels; the calculation goes on, its answer is dropped",
}

#: (from, to): when.
WORKER_TRANSITIONS: dict[tuple[WorkerState, WorkerState], str] = {
    (W.RETURNING, W.LOADING): "HELLO or READY",
    (W.RETURNING, W.LEAVING): "a shutdown is asked for",
    (W.RETURNING, W.GONE): "GOODBYE",
    (W.RETURNING, W.LOST): "its connection does not come back",
    (W.LOADING, W.IDLE): "READY",
    (W.LOADING, W.GONE): "FAILED, GOODBYE or refused, also by its key",
    (W.LOADING, W.LOST): "its connection breaks",
    (W.IDLE, W.BUSY): "a request is sent to it",
    (W.IDLE, W.LEAVING): "a shutdown is asked for",
    (W.IDLE, W.GONE): "GOODBYE, a revoked key, or LEAVE with no request on its way to it",
    (W.IDLE, W.LOST): "its connection breaks, or it is silent for `worker_timeout`",
    (W.BUSY, W.IDLE): "its last request is answered",
    (W.BUSY, W.LEAVING): "a shutdown is asked for",
    (W.BUSY, W.GONE): "GOODBYE, LEAVE when it has nothing, or its key is revoked",
    (W.BUSY, W.LOST): "its connection breaks",
    (W.LOADING, W.LEAVING): "a shutdown is asked for",
    (W.LEAVING, W.GONE): "GOODBYE",
    (W.LEAVING, W.LOST): "its connection breaks, or it is silent for `worker_timeout`",
}


_ALLOWED: frozenset[tuple[State, State]] = frozenset([*JOB_TRANSITIONS, *WORKER_TRANSITIONS])


def is_allowed(before: JobState | WorkerState, after: JobState | WorkerState) -> bool:
    """Whether the tables have this transition."""
    return (before, after) in _ALLOWED
