"""The states of a spawned process, and every transition between them."""

from __future__ import annotations

from enum import Enum


class ProcessState(Enum):
    """A process that was started for a calculator, seen by its manager."""

    #: Held by a scheduler; it does not run yet.
    PENDING = "pending"
    #: Runs, and makes its calculator.
    STARTING = "starting"
    #: Serves.
    RUNNING = "running"
    #: Was told to end.
    STOPPING = "stopping"
    #: Has ended.
    EXITED = "exited"


class Health(Enum):
    """A calculator, seen by its manager."""

    #: Its workers are started when they are wanted.
    ACTIVE = "active"
    #: A start failed; the next one waits a while.
    BACKOFF = "backoff"
    #: Too many starts failed; no further one until its configuration is loaded again.
    FATAL = "fatal"


P, H = ProcessState, Health

#: (from, to): when.
PROCESS_TRANSITIONS: dict[tuple[ProcessState, ProcessState], str] = {
    (P.PENDING, P.STARTING): "its scheduler lets it run",
    (P.PENDING, P.STOPPING): "nobody wants it any more",
    (P.PENDING, P.EXITED): "its scheduler gives it up",
    (P.STARTING, P.RUNNING): "its worker is ready",
    (P.STARTING, P.STOPPING): "`start_timeout`, or the manager ends",
    (P.STARTING, P.EXITED): "it ends before its worker is ready: the start failed",
    (P.RUNNING, P.STOPPING): "it is surplus, or the manager ends",
    (P.RUNNING, P.EXITED): "it ends, idle or by a crash",
    (P.STOPPING, P.EXITED): "it ends, by TERM or by KILL",
}

#: (from, to): when.
HEALTH_TRANSITIONS: dict[tuple[Health, Health], str] = {
    (H.ACTIVE, H.BACKOFF): "a start fails",
    (
        H.BACKOFF,
        H.ACTIVE,
    ): "the pause is over, a worker is ready, or its configuration is loaded again",
    (H.ACTIVE, H.FATAL): "a start fails after `max_restarts` others",
    (H.FATAL, H.ACTIVE): "its configuration is loaded again, or a worker is ready after all",
}
