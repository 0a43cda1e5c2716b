"""An answer's error as the exception that the caller sees."""

from __future__ import annotations

from typing import Any

from aserpc.errors import (
    AserpcError,
    BrokerStoppedError,
    CancelledRequestError,
    DeadlineError,
    MessageTooLargeError,
    NoWorkersError,
    ProtocolError,
    QueueTimeoutError,
    ServiceError,
    WorkerFailedError,
    WorkerLostError,
)
from aserpc.messages import FAILURES
from aserpc.remote_error import rebuild

_ERRORS: dict[str, type[AserpcError]] = {
    "no_workers": NoWorkersError,
    "queue_timeout": QueueTimeoutError,
    "worker_lost": WorkerLostError,
    "worker_failed": WorkerFailedError,
    "deadline": DeadlineError,
    "broker_stopped": BrokerStoppedError,
    "cancelled": CancelledRequestError,
    "too_large": MessageTooLargeError,
    "protocol": ProtocolError,
}
assert {*_ERRORS, "calculation"} == {*FAILURES}


def to_exception(error: dict[str, Any], calculator: str) -> AserpcError:
    """Return the exception for an `Answer.error`."""
    kind = error["kind"]
    if kind == "calculation":
        return rebuild(error)
    text = str(error.get("message") or FAILURES.get(kind, kind))
    return _ERRORS.get(kind, ServiceError)(
        text if repr(calculator) in text else f"{calculator!r}: {text}"
    )
