"""Which exception the caller sees for an answer's error."""

from __future__ import annotations

import pytest

from aserpc import errors
from aserpc.client.failures import to_exception
from aserpc.messages import FAILURES, failure

EXPECTED: dict[str, tuple[type[Exception], ...]] = {
    "calculation": (errors.CalculationError,),
    "busy": (errors.BusyError, errors.ServiceError),
    "no_workers": (errors.NoWorkersError, errors.ServiceError),
    "queue_timeout": (errors.QueueTimeoutError, TimeoutError, errors.ServiceError),
    "worker_lost": (errors.WorkerLostError, ConnectionError, errors.ServiceError),
    "poison": (errors.PoisonError,),
    "calculation_timeout": (errors.CalculationTimeoutError, TimeoutError),
    "worker_failed": (errors.WorkerFailedError, errors.ServiceError),
    "deadline": (errors.DeadlineError, TimeoutError),
    "broker_stopped": (errors.BrokerStoppedError, ConnectionError, errors.ServiceError),
    "cancelled": (errors.CancelledRequestError,),
    "too_large": (errors.MessageTooLargeError, ValueError),
    "protocol": (errors.ProtocolError, ValueError),
    "not_allowed": (errors.NotAllowedError, PermissionError),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_each_failure_has_its_exception(kind: str) -> None:
    error = to_exception(failure(kind, "because"), "lj")
    assert isinstance(error, (RuntimeError, *EXPECTED[kind]))
    assert all(isinstance(error, expected) for expected in EXPECTED[kind])
    assert "because" in str(error)


@pytest.mark.parametrize(
    "kind",
    [
        "deadline",
        "cancelled",
        "too_large",
        "protocol",
        "not_allowed",
        "calculation",
        "poison",
        "calculation_timeout",
    ],
)
def test_what_another_attempt_would_not_change_is_no_failure_of_the_service(kind: str) -> None:
    assert not isinstance(to_exception(failure(kind, "x"), "lj"), errors.ServiceError)


def test_the_calculator_is_named_once() -> None:
    assert str(to_exception(failure("deadline", "too late"), "lj")) == "'lj': too late"
    text = "No workers available for 'lj'"
    assert str(to_exception(failure("no_workers", text), "lj")) == text


def test_an_unknown_kind_is_a_failure_of_the_service() -> None:
    error = to_exception({"kind": "from_the_future", "message": "x"}, "lj")
    assert type(error) is errors.ServiceError
    assert "x" in str(error)


@pytest.mark.parametrize("message", [None, 5, [1, 2], b"\xff", {}])
def test_a_message_of_any_type_does_no_harm(message: object) -> None:
    assert str(to_exception({"kind": "no_workers", "message": message}, "lj"))
