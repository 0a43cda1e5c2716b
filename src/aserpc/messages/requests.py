"""Requests and their answers: client <-> broker <-> worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aserpc.errors import ProtocolError
from aserpc.messages.base import (
    Message,
    RequestKey,
    check_key,
    check_keys,
    check_name,
    check_received,
    check_seconds,
)


@dataclass(slots=True)
class Request(Message):
    """A client asks a calculator; the broker passes it to a worker. Payload: the atoms."""

    KIND = "REQUEST"
    #: Who asks: one `RemoteCalculator` or `Client`. Affinity and fairness go by it.
    session: bytes
    #: Number of the request in its session.
    id: int
    #: Name of the calculator.
    calculator: str
    #: ``calculate``; ``describe`` asks what the calculator is and can do, and computes nothing.
    op: str = "calculate"
    #: ASE properties that are asked for.
    properties: list[str] = field(default_factory=list)
    #: Which worker: ``any`` (others may come).
    target: str = "any"
    #: Requests with different options never share a batch.
    options: dict[str, Any] = field(default_factory=dict)
    #: What a result cache keys on; empty where the client did not compute it.
    digest: bytes = b""
    #: Seconds left until the client stops waiting; None: it waits.
    deadline: float | None = None
    #: Answers that have arrived, ``[session, first id, last id]`` each: the broker keeps them no
    #: longer.
    received: list[Any] = field(default_factory=list)
    #: Of the requests of its session that wait, those of higher priority are served first.
    priority: int = 0

    @property
    def key(self) -> RequestKey:
        """Identity of the request."""
        return self.session, self.id

    def check(self) -> None:
        """See `Message.check`."""
        check_key(self.session, self.id)
        check_name(self.calculator)
        if self.op not in ("calculate", "describe"):
            msg = f"unknown op {self.op[:40]!r}"
            raise ProtocolError(msg)
        if self.target != "any":
            msg = f"unknown target {self.target[:40]!r}"
            raise ProtocolError(msg)
        if self.deadline != self.deadline:
            msg = "a deadline that is no number"
            raise ProtocolError(msg)
        for name in self.properties:
            if not isinstance(name, str):
                msg = "properties are names"
                raise ProtocolError(msg)
        if self.received:
            check_received(self.received)


@dataclass(slots=True)
class Answer(Message):
    """The answer to a request, from its worker or from the broker. Payload: the results."""

    KIND = "ANSWER"
    session: bytes
    id: int
    #: None for the final answer, of which there is exactly one; else the number of a part.
    part: int | None = None
    #: None, or what went wrong: ``kind`` (see `FAILURES`), ``message`` and, from a calculator,
    #: ``types`` and ``traceback``.
    error: dict[str, Any] | None = None
    #: Wall time of the calculation, s.
    seconds: float = 0.0
    #: The worker's description of itself and its calculator, as in its `Ready`.
    about: bytes = b""
    #: How many requests were computed together, in those `seconds`.
    batch: int = 1

    @property
    def key(self) -> RequestKey:
        """Identity of the request."""
        return self.session, self.id

    @property
    def is_refusal(self) -> bool:
        """Whether a worker says that it was cancelled before it was begun: it may be computed."""
        return self.error is not None and self.error["kind"] == "cancelled"

    def check(self) -> None:
        """See `Message.check`."""
        check_key(self.session, self.id)
        check_seconds(self.seconds)
        if self.batch < 1:
            msg = f"a batch of {self.batch}"
            raise ProtocolError(msg)
        if self.error is not None and not isinstance(self.error.get("kind"), str):
            msg = "an error has a kind"
            raise ProtocolError(msg)


@dataclass(slots=True)
class Cancel(Message):
    """A client no longer wants these requests: what is queued is dropped, what runs is left."""

    KIND = "CANCEL"
    keys: list[Any]

    def check(self) -> None:
        """See `Message.check`."""
        check_keys(self.keys)


#: What an answer's ``error["kind"]`` may say, and what it means.
FAILURES = {
    "calculation": "the calculator raised an exception",
    "busy": "more requests wait than may (`max_queue`, `max_queue_bytes`)",
    "no_workers": "no worker serves the name and none is starting",
    "queue_timeout": "no worker came within the queue timeout",
    "worker_lost": "the workers that had the request were lost",
    "poison": "the workers that computed the request died of it",
    "calculation_timeout": "the calculation took too long and was ended with its worker",
    "worker_failed": "the worker could not make its calculator",
    "deadline": "the request's deadline passed while it was queued",
    "broker_stopped": "the broker stops",
    "cancelled": "the client no longer wants the request, and it was not started",
    "too_large": "the answer is over the size limit",
    "protocol": "the request could not be read",
    "not_allowed": "the request is somebody else's",
}


def failure(kind: str, message: str) -> dict[str, Any]:
    """Return an `Answer.error` of ours."""
    assert kind in FAILURES, kind
    return {"kind": kind, "message": message}
