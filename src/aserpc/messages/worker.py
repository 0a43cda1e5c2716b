"""Worker <-> broker, besides requests; some of it is a manager's too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aserpc.errors import ProtocolError
from aserpc.messages.base import Message, check_keys, check_name, check_seconds, unpack_about

#: How many requests a worker may be sent beyond `Ready.capacity`, if its calculations are short.
MAX_AHEAD = 8


@dataclass(slots=True)
class Hello(Message):
    """A worker is there and loads its calculator."""

    KIND = "HELLO"
    calculator: str
    #: ``pid``, ``host``, ``spawn_id``.
    identity: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """See `Message.check`."""
        check_name(self.calculator)


@dataclass(slots=True)
class Ready(Message):
    """A worker serves its calculator."""

    KIND = "READY"
    calculator: str
    identity: dict[str, Any]
    #: A msgpack map: ``factory``, ``args``, ``kwargs``, ``versions``, ``implemented_properties``,
    #: ``python``, ``host``, ``pid``. It goes with every answer, packed once.
    about: bytes
    #: How many requests the worker takes at a time; see `MAX_AHEAD`.
    capacity: int = 1
    #: Requests that it has, when it registers again; those that it lacks were lost on the way.
    running: list[Any] = field(default_factory=list)
    #: What the `Unknown` that this answers said: what was sent later may be on its way yet.
    sent: int = 0
    #: Time after which it ends a calculation together with itself, s; None: never.
    calculation_timeout: float | None = None
    #: How many requests it may compute together: if it dies, any of them may be to blame.
    max_batch: int = 1

    def check(self) -> None:
        """See `Message.check`."""
        check_name(self.calculator)
        check_keys(self.running)
        for name, value in (("capacity", self.capacity), ("max_batch", self.max_batch)):
            if not 1 <= value <= 1 << 16:
                msg = f"a {name} of {value}"
                raise ProtocolError(msg)
        if self.calculation_timeout is not None:
            check_seconds(self.calculation_timeout)
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
        check_name(self.calculator)


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
    #: Those that it computed together for too long: each is to be computed alone.
    together: list[Any] = field(default_factory=list)

    def check(self) -> None:
        """See `Message.check`."""
        check_keys(self.returned)
        check_keys(self.together)


@dataclass(slots=True)
class Welcome(Message):
    """The broker knows the worker; the answer to `Hello`, `Ready` and `Heartbeat`."""

    KIND = "WELCOME"


@dataclass(slots=True)
class Unknown(Message):
    """The broker does not know a worker, or not what it has; the worker registers again."""

    KIND = "UNKNOWN"
    #: How many requests the broker has sent to it: those before this message.
    sent: int = 0
    #: ``[session, id]`` of the last answer that the broker has of it, if it has one: later ones
    #: were lost.
    answered: list[Any] = field(default_factory=list)

    def check(self) -> None:
        """See `Message.check`."""
        if self.answered:
            check_keys([self.answered])


@dataclass(slots=True)
class Probe(Message):
    """The broker asks whether a worker is there; the answer is a `Heartbeat`."""

    KIND = "PROBE"


@dataclass(slots=True)
class Refuse(Message):
    """The broker does not take the worker, or what somebody may not say; the peer ends."""

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
