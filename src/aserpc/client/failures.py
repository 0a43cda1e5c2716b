"""An answer's error as the exception that the caller sees."""

from __future__ import annotations

from typing import Any

from aserpc.errors import (
    AserpcError,
    BrokerStoppedError,
    BusyError,
    CalculationTimeoutError,
    CancelledRequestError,
    DeadlineError,
    MessageTooLargeError,
    NotAllowedError,
    NoWorkersError,
    PoisonError,
    ProtocolError,
    QueueTimeoutError,
    ServiceError,
    WorkerFailedError,
    WorkerLostError,
)
from aserpc.messages import FAILURES
from aserpc.remote_error import rebuild

_ERRORS: dict[str, type[AserpcError]] = {
    "busy": BusyError,
    "no_workers": NoWorkersError,
    "queue_timeout": QueueTimeoutError,
    "worker_lost": WorkerLostError,
    "poison": PoisonError,
    "calculation_timeout": CalculationTimeoutError,
    "worker_failed": WorkerFailedError,
    "deadline": DeadlineError,
    "broker_stopped": BrokerStoppedError,
    "cancelled": CancelledRequestError,
    "too_large": MessageTooLargeError,
    "protocol": ProtocolError,
    "not_allowed": NotAllowedError,
}
assert {*_ERRORS, "calculation"} == {*FAILURES}


#: The pause before the first further attempt, and the longest before any, s.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


def retry_pause(attempt: int, error: AserpcError) -> float:
    """Return how long to wait after an attempt, counted from 0, that failed, s.

    Each is twice as long as the one before: what is restarted needs its time, and many clients
    that lost the same broker or worker would keep it from coming back. A broker that has too much
    to do is left alone for the longest at once.
    """
    if isinstance(error, BusyError):
        return LONGEST_PAUSE
    return min(FIRST_PAUSE * 2.0 ** min(attempt, 100), LONGEST_PAUSE)


def to_exception(error: dict[str, Any], calculator: str) -> AserpcError:
    """Return the exception for an `Answer.error`."""
    kind = error["kind"]
    if kind == "calculation":
        raised = rebuild(error)
        raised.calculator = calculator
        return raised
    text = str(error.get("message") or FAILURES.get(kind, kind))
    return _ERRORS.get(kind, ServiceError)(
        text if repr(calculator) in text else f"{calculator!r}: {text}"
    )
