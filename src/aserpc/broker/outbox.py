"""What clients that read slowly have not taken yet."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection

import zmq

from aserpc.broker.peers import user_of
from aserpc.messages import Buffer

logger = logging.getLogger(__name__)

#: What clients that read slowly may leave with the broker, in bytes together.
OUTBOX_SIZE = 1 << 30


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
        self.waiting: dict[bytes, deque[list[Buffer]]] = {}
        self.size = 0
        #: Clients that could not be reached.
        self.lost: set[bytes] = set()

    def send(self, peer: bytes, frames: list[Buffer]) -> None:
        """Send a client's message, now or when it has room."""
        if peer not in self.waiting and self._try(peer, frames):
            return
        size = sum(map(len, frames))
        if self.size + size > OUTBOX_SIZE:
            # The client will ask for its request, hear that it is unknown, and send it again.
            logger.warning("dropped an answer to a client that does not read its answers")
            return
        self.waiting.setdefault(peer, deque()).append(frames)
        self.size += size

    def drop(self, users: Collection[bytes]) -> None:
        """Drop what keys that are not allowed any more have not taken."""
        for peer in [peer for peer in self.waiting if user_of(peer) in users]:
            self.size -= sum(len(frame) for frames in self.waiting.pop(peer) for frame in frames)

    def flush(self) -> None:
        """Send what there is room for."""
        for peer in list(self.waiting):
            queue = self.waiting[peer]
            while queue and self._try(peer, queue[0]):
                self.size -= sum(map(len, queue.popleft()))
            if not queue:
                del self.waiting[peer]

    def _try(self, peer: bytes, frames: list[Buffer]) -> bool:
        """Send; True if it is done with, also because the client is gone."""
        try:
            self._send(peer, frames)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            logger.debug("a client can't be reached: %s", error)
            self.lost.add(peer)
        return True
