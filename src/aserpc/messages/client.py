"""Client <-> broker, besides requests; who asks for the status is a client too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aserpc.errors import ProtocolError
from aserpc.messages.base import Message, check_key, check_keys, check_received


@dataclass(slots=True)
class Ping(Message):
    """A client asks whether the broker is there and knows these requests."""

    KIND = "PING"
    keys: list[Any] = field(default_factory=list)
    #: Comes back in the `Pong`: an old answer is so no sign of life.
    id: int = 0
    #: As `Request.received`.
    received: list[Any] = field(default_factory=list)

    def check(self) -> None:
        """See `Message.check`."""
        check_keys(self.keys)
        check_received(self.received)


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
    #: That of the `Ping`.
    id: int = 0

    def check(self) -> None:
        """See `Message.check`."""
        for entry in self.known:
            if not isinstance(entry, list) or len(entry) != 4:
                msg = "known requests are [session, id, state, text]"
                raise ProtocolError(msg)
            check_key(entry[0], entry[1])
            if not isinstance(entry[2], str) or not isinstance(entry[3], str):
                msg = "a request's state and text are strings"
                raise ProtocolError(msg)
        check_keys(self.unknown)


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
class Reload(Message):
    """Someone asks that the managers load their configurations again."""

    KIND = "RELOAD"
    id: int


@dataclass(slots=True)
class Status(Message):
    """The answer to a `StatusRequest` or `ShutdownRequest`."""

    KIND = "STATUS"
    id: int
    status: dict[str, Any]
