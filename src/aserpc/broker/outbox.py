"""What clients that read slowly have not taken yet."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

from aserpc.broker.peers import user_of
from aserpc.messages import Buffer, RequestKey
from aserpc.transport import MAX_MESSAGE_SIZE

logger = logging.getLogger(__name__)

#: What all clients together may leave with the broker, in bytes: the largest answer, twice.
OUTBOX_SIZE = 2 * MAX_MESSAGE_SIZE

#: Answers from this size on, in bytes, are on their way until the client has told that it has them.
#: libzmq counts messages only: a thousand of these may wait in it for one client.
LARGE = 1 << 16

#: How much may be on its way to one client, and to all together, in bytes. One answer always may.
PEER_WINDOW, WINDOW = 256 << 20, 2 << 30

#: After so long an answer counts as no longer on its way: its client may have been killed, s.
MAX_AGE = 60.0


@dataclass(slots=True)
class _Message:
    frames: list[Buffer]
    #: Of the request, if this is its large answer.
    key: RequestKey | None
    size: int


@dataclass(slots=True)
class _Queue:
    messages: deque[_Message] = field(default_factory=deque)
    size: int = 0


@dataclass(slots=True)
class _Flight:
    peer: bytes
    size: int
    since: float


class Outbox:
    """What clients that read slowly have not taken yet, in order and bounded.

    Parameters
    ----------
    send
        Sends a message to a peer without waiting, as `Door.send` does.
    """

    def __init__(self, send: Callable[[bytes, list[Buffer]], None]) -> None:
        self._send = send
        #: Messages by client.
        self.waiting: dict[bytes, _Queue] = {}
        #: What waits here, and what is on its way, in bytes.
        self.size = 0
        self.flying = 0
        #: Clients that could not be reached.
        self.lost: set[bytes] = set()
        #: Large answers that are on their way, the oldest first, and their sizes by client.
        self._flights: OrderedDict[RequestKey, _Flight] = OrderedDict()
        self._flying: dict[bytes, int] = {}

    def send(
        self, peer: bytes, frames: list[Buffer], now: float, key: RequestKey | None = None
    ) -> None:
        """Send a client's message, now or when it has room; `key` is that of an answer."""
        size = sum(map(len, frames))
        message = _Message(frames, key if size >= LARGE else None, size)
        if peer not in self.waiting and self._try(peer, message, now):
            return
        queue = self.waiting.setdefault(peer, _Queue())
        queue.messages.append(message)
        queue.size += size
        self.size += size
        while self.size > OUTBOX_SIZE and self._drop_one():
            # The client will ask for its request, and get it again or hear that it is unknown.
            logger.warning("dropped an answer to a client that does not read its answers")

    def acknowledge(self, ranges: Iterable[Sequence[Any]]) -> None:
        """Take it that answers have arrived; the ranges are those of `Request.received`."""
        if not self._flights:
            return
        for session, first, last in ranges:
            for number in range(first, last + 1):
                self._land((session, number))

    def drop(self, users: Collection[bytes]) -> None:
        """Drop what keys that are not allowed any more have not taken."""
        for peer in [peer for peer in self.waiting if user_of(peer) in users]:
            self.size -= self.waiting.pop(peer).size

    def flush(self, now: float) -> None:
        """Send what there is room for."""
        while self._flights:
            key, oldest = next(iter(self._flights.items()))
            if now < oldest.since + MAX_AGE:
                break
            self._land(key)
        for peer, queue in list(self.waiting.items()):
            while queue.messages and self._try(peer, queue.messages[0], now):
                sent = queue.messages.popleft()
                queue.size -= sent.size
                self.size -= sent.size
            if not queue.messages:
                del self.waiting[peer]

    def _drop_one(self) -> bool:
        """Drop the newest message of the client that has the most; never the only one."""
        peer, queue = max(self.waiting.items(), key=lambda item: item[1].size)
        if len(self.waiting) == len(queue.messages) == 1:
            return False
        dropped = queue.messages.pop()
        queue.size -= dropped.size
        self.size -= dropped.size
        if not queue.messages:
            del self.waiting[peer]
        return True

    def _try(self, peer: bytes, message: _Message, now: float) -> bool:
        """Send; True if it is done with, also because the client is gone."""
        key, size = message.key, message.size
        if key is not None and not self._may_fly(peer, size):
            return False
        try:
            self._send(peer, message.frames)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            logger.debug("a client can't be reached: %s", error)
            self.lost.add(peer)
            if peer in self._flying:
                for other in [k for k, flight in self._flights.items() if flight.peer == peer]:
                    self._land(other)
            return True
        if key is not None:
            self._land(key)  # it was sent before, perhaps to another connection
            self._flights[key] = _Flight(peer, size, now)
            self._flying[peer] = self._flying.get(peer, 0) + size
            self.flying += size
        return True

    def _may_fly(self, peer: bytes, size: int) -> bool:
        flying = self._flying.get(peer, 0)
        fits = flying + size <= PEER_WINDOW and self.flying + size <= WINDOW
        return not flying or fits

    def _land(self, key: RequestKey) -> None:
        flight = self._flights.pop(key, None)
        if flight is None:
            return
        self.flying -= flight.size
        left = self._flying[flight.peer] - flight.size
        if left:
            self._flying[flight.peer] = left
        else:
            del self._flying[flight.peer]
