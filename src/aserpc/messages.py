"""The wire: every message, its fields, and their form as frames.

A message is a list of frames. The first is the header, a msgpack array
``[version, kind, field, field, ...]`` (see `aserpc.header`); what follows is the payload (see
`aserpc.payload`), which the broker passes on unopened. Kinds and fields are those of the classes
below, in their order.

The pattern is Majordomo's (https://rfc.zeromq.org/spec/18/) with its weak points closed: each
request has an identity of its own, ``(session, id)``, by which it is answered, asked about,
cancelled and recognised when it is sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import msgpack

from aserpc.errors import ProtocolError
from aserpc.nesting import check_depth

#: Version of this wire format; it stands in every message.
PROTOCOL_VERSION = 1

#: The longest calculator name, in bytes of UTF-8.
MAX_NAME_SIZE = 255

#: Length of a session's and of a broker's random identity, in bytes.
IDENTITY_SIZE = 16

#: A frame that is sent or was received.
Buffer: TypeAlias = bytes | memoryview
#: Identity of a request: the session that asks, and its number there.
RequestKey: TypeAlias = tuple[bytes, int]


@dataclass(slots=True)
class Message:
    """Base of the messages; never changed once it is made."""

    KIND: ClassVar[str] = ""

    def check(self) -> None:
        """Check what the fields' types do not say; raise `ProtocolError`."""


def _check_name(name: str) -> None:
    if not name or not name.isprintable() or len(name.encode()) > MAX_NAME_SIZE:
        msg = f"{name[:80]!r} is no calculator name: 1 to {MAX_NAME_SIZE} printable characters"
        raise ProtocolError(msg)


def _check_key(session: object, number: object) -> None:
    if not isinstance(session, bytes) or len(session) != IDENTITY_SIZE:
        msg = f"a session is {IDENTITY_SIZE} bytes"
        raise ProtocolError(msg)
    if type(number) is not int or not 0 <= number < 1 << 63:
        msg = "a request id is a number from 0"
        raise ProtocolError(msg)


def _check_keys(pairs: Sequence[object]) -> None:
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            msg = "a list of requests holds [session, id]"
            raise ProtocolError(msg)
        _check_key(pair[0], pair[1])


# ---- requests and their answers: client <-> broker <-> worker ------------------------------------


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

    @property
    def key(self) -> RequestKey:
        """Identity of the request."""
        return self.session, self.id

    def check(self) -> None:
        """See `Message.check`."""
        _check_key(self.session, self.id)
        _check_name(self.calculator)
        if self.op not in ("calculate", "describe"):
            msg = f"unknown op {self.op[:40]!r}"
            raise ProtocolError(msg)
        if self.target != "any":
            msg = f"unknown target {self.target[:40]!r}"
            raise ProtocolError(msg)
        if not all(isinstance(name, str) for name in self.properties):
            msg = "properties are names"
            raise ProtocolError(msg)


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

    @property
    def key(self) -> RequestKey:
        """Identity of the request."""
        return self.session, self.id

    def check(self) -> None:
        """See `Message.check`."""
        _check_key(self.session, self.id)
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
        _check_keys(self.keys)


#: What an answer's ``error["kind"]`` may say, and what it means.
FAILURES = {
    "calculation": "the calculator raised an exception",
    "no_workers": "no worker serves the name and none is starting",
    "queue_timeout": "no worker came within the queue timeout",
    "worker_lost": "the workers that computed the request died",
    "worker_failed": "the worker could not make its calculator",
    "deadline": "the request's deadline passed while it was queued",
    "broker_stopped": "the broker stops",
    "cancelled": "the client no longer wants the request, and it was not started",
    "too_large": "the answer is over the size limit",
    "protocol": "the request could not be read",
}


# ---- client <-> broker ---------------------------------------------------------------------------


@dataclass(slots=True)
class Ping(Message):
    """A client asks whether the broker is there and knows these requests."""

    KIND = "PING"
    keys: list[Any] = field(default_factory=list)

    def check(self) -> None:
        """See `Message.check`."""
        _check_keys(self.keys)


@dataclass(slots=True)
class Pong(Message):
    """The answer to a `Ping`."""

    KIND = "PONG"
    #: Random identity of this start of the broker.
    incarnation: bytes
    #: ``[session, id, state, text]`` for each request that the broker has.
    known: list[Any] = field(default_factory=list)
    #: ``[session, id]`` for each that it has not: the client sends it again.
    unknown: list[Any] = field(default_factory=list)

    def check(self) -> None:
        """See `Message.check`."""
        for entry in self.known:
            if not isinstance(entry, list) or len(entry) != 4:
                msg = "known requests are [session, id, state, text]"
                raise ProtocolError(msg)
            _check_key(entry[0], entry[1])
            if not isinstance(entry[2], str) or not isinstance(entry[3], str):
                msg = "a request's state and text are strings"
                raise ProtocolError(msg)
        _check_keys(self.unknown)


@dataclass(slots=True)
class StatusRequest(Message):
    """Someone asks for the broker's `Status`."""

    KIND = "STATUS_REQUEST"
    id: int


@dataclass(slots=True)
class ShutdownRequest(Message):
    """Someone asks that the workers of a calculator, or all, shut down."""

    KIND = "SHUTDOWN_REQUEST"
    id: int
    #: Name of the calculator; None for all.
    calculator: str | None = None


@dataclass(slots=True)
class Status(Message):
    """The answer to a `StatusRequest` or `ShutdownRequest`."""

    KIND = "STATUS"
    id: int
    status: dict[str, Any]


# ---- worker <-> broker ---------------------------------------------------------------------------


@dataclass(slots=True)
class Hello(Message):
    """A worker is there and loads its calculator."""

    KIND = "HELLO"
    calculator: str
    #: ``pid``, ``host``, ``spawn_id``.
    identity: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """See `Message.check`."""
        _check_name(self.calculator)


@dataclass(slots=True)
class Ready(Message):
    """A worker serves its calculator."""

    KIND = "READY"
    calculator: str
    identity: dict[str, Any]
    #: A msgpack map: ``factory``, ``args``, ``kwargs``, ``versions``, ``implemented_properties``,
    #: ``python``, ``host``, ``pid``. It goes with every answer, packed once.
    about: bytes
    #: How many requests the worker takes at a time.
    capacity: int = 1
    #: Requests that it has, when it registers again; those that it lacks were lost on the way.
    running: list[Any] = field(default_factory=list)

    def check(self) -> None:
        """See `Message.check`."""
        _check_name(self.calculator)
        _check_keys(self.running)
        if not 1 <= self.capacity <= 1 << 16:
            msg = f"a capacity of {self.capacity}"
            raise ProtocolError(msg)
        unpack_about(self.about)


@dataclass(slots=True)
class Failed(Message):
    """A worker could not make its calculator, and ends."""

    KIND = "FAILED"
    calculator: str
    #: As `Answer.error`.
    error: dict[str, Any]

    def check(self) -> None:
        """See `Message.check`."""
        _check_name(self.calculator)


@dataclass(slots=True)
class Heartbeat(Message):
    """A worker is alive; on its own or in answer to a `Probe`."""

    KIND = "HEARTBEAT"


@dataclass(slots=True)
class Leave(Message):
    """An idle worker asks to go; the broker answers `Dismiss`, or with a request."""

    KIND = "LEAVE"


@dataclass(slots=True)
class Goodbye(Message):
    """A worker goes and hands back the requests that it had not started."""

    KIND = "GOODBYE"
    returned: list[Any] = field(default_factory=list)

    def check(self) -> None:
        """See `Message.check`."""
        _check_keys(self.returned)


@dataclass(slots=True)
class Welcome(Message):
    """The broker knows the worker; the answer to `Hello`, `Ready` and `Heartbeat`."""

    KIND = "WELCOME"


@dataclass(slots=True)
class Unknown(Message):
    """The broker does not know the worker, or no longer; the worker registers again."""

    KIND = "UNKNOWN"


@dataclass(slots=True)
class Probe(Message):
    """The broker asks whether a worker is there; the answer is a `Heartbeat`."""

    KIND = "PROBE"


@dataclass(slots=True)
class Refuse(Message):
    """The broker does not take the worker, which ends."""

    KIND = "REFUSE"
    reason: str


@dataclass(slots=True)
class Shutdown(Message):
    """The broker asks a worker to finish what it computes and go."""

    KIND = "SHUTDOWN"


@dataclass(slots=True)
class Dismiss(Message):
    """The broker lets a worker go; the answer to `Leave` and `Goodbye`."""

    KIND = "DISMISS"


@dataclass(slots=True)
class Stopping(Message):
    """The broker stops; workers wait for the next one."""

    KIND = "STOPPING"


@dataclass(slots=True)
class Stay(Message):
    """The broker does not let an idle worker go: its calculator keeps that many."""

    KIND = "STAY"


# ---- manager <-> broker --------------------------------------------------------------------------


@dataclass(slots=True)
class Offer(Message):
    """A manager can start workers of these calculators."""

    KIND = "OFFER"
    #: ``[name, min_workers]`` for each; the broker lets no idle worker go below the minimum.
    calculators: list[Any]
    #: ``pid``, ``host``.
    identity: dict[str, Any]

    def check(self) -> None:
        """See `Message.check`."""
        for entry in self.calculators:
            if (
                not isinstance(entry, list)
                or len(entry) != 2
                or not isinstance(entry[0], str)
                or type(entry[1]) is not int
            ):
                msg = "an offer is a list of [name, min_workers]"
                raise ProtocolError(msg)
            _check_name(entry[0])


@dataclass(slots=True)
class Accept(Message):
    """The answer to an `Offer`."""

    KIND = "ACCEPT"
    #: ``[name, who]`` for each calculator that another manager offers already.
    refused: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Demand(Message):
    """The broker tells how much a calculator is asked for, and who serves it."""

    KIND = "DEMAND"
    calculator: str
    #: Requests that wait, and that are with workers.
    queued: int
    running: int
    #: Mean time of a calculation, s; 0 where there was none yet.
    seconds: float
    #: ``[spawn_id, state, idle seconds]`` of each worker; the id is None for one that nobody
    #: spawned.
    workers: list[Any]

    def check(self) -> None:
        """See `Message.check`."""
        _check_name(self.calculator)
        for entry in self.workers:
            if not isinstance(entry, list) or len(entry) != 3:
                msg = "workers are [spawn_id, state, idle seconds]"
                raise ProtocolError(msg)


@dataclass(slots=True)
class Spawning(Message):
    """A manager tells what it does for a calculator."""

    KIND = "SPAWNING"
    calculator: str
    #: Spawn ids of the processes that it has started and that have not ended.
    spawn_ids: list[str]
    #: For those who wait, in words.
    text: str
    #: Why no worker will be started until the configuration is loaded again; empty: it may be.
    fatal: str = ""

    def check(self) -> None:
        """See `Message.check`."""
        _check_name(self.calculator)
        if not all(isinstance(spawn_id, str) for spawn_id in self.spawn_ids):
            msg = "spawn ids are strings"
            raise ProtocolError(msg)


@dataclass(slots=True)
class SpawnFailed(Message):
    """A manager tells those who wait that a start failed, and why."""

    KIND = "SPAWN_FAILED"
    calculator: str
    reason: str

    def check(self) -> None:
        """See `Message.check`."""
        _check_name(self.calculator)


@dataclass(slots=True)
class Reload(Message):
    """Someone asks that the managers load their configurations again."""

    KIND = "RELOAD"
    id: int


# ---- both sides ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Reject(Message):
    """The broker could not read what a peer sent. The one message that all versions share."""

    KIND = "REJECT"
    reason: str


# ---- which side sends what -----------------------------------------------------------------------

FROM_CLIENT: tuple[type[Message], ...] = (
    Request, Cancel, Ping, StatusRequest, ShutdownRequest, Reload,
)  # fmt: skip
TO_CLIENT: tuple[type[Message], ...] = (Answer, Pong, Status, Reject)
#: Workers and managers come in by the same socket.
FROM_WORKER: tuple[type[Message], ...] = (
    Hello, Ready, Failed, Answer, Heartbeat, Leave, Goodbye, Offer, Spawning, SpawnFailed,
)  # fmt: skip
TO_MANAGER: tuple[type[Message], ...] = (
    Accept, Demand, Probe, Unknown, Welcome, Dismiss, Stopping, Reload, Reject,
)  # fmt: skip
TO_WORKER: tuple[type[Message], ...] = (
    Welcome, Unknown, Probe, Refuse, Request, Cancel, Shutdown, Dismiss, Stay, Stopping, Reject,
)  # fmt: skip


def failure(kind: str, message: str) -> dict[str, Any]:
    """Return an `Answer.error` of ours."""
    assert kind in FAILURES, kind
    return {"kind": kind, "message": message}


def unpack_about(about: bytes) -> dict[str, Any]:
    """Read a worker's description of itself (see `Ready.about`); raise `ProtocolError`."""
    try:
        value = msgpack.unpackb(about, strict_map_key=False) if about else {}
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, MemoryError):
        value = None
    if not isinstance(value, dict):
        msg = "a worker's description is a msgpack map"
        raise ProtocolError(msg)
    check_depth(value)
    return value
