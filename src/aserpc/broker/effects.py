"""What the broker's state asks its loop to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from aserpc.messages import Buffer, Message


@dataclass(slots=True)
class ToClient:
    """Send to a client."""

    peer: bytes
    message: Message
    payload: list[Buffer]


@dataclass(slots=True)
class ToWorker:
    """Send to a worker; what its connection does not take comes back by `unreachable`."""

    peer: bytes
    message: Message
    payload: list[Buffer]


Effect: TypeAlias = ToClient | ToWorker
