"""The broker's sockets: for each side one on this machine and, where it is asked for, one on tcp.

CURVE belongs to a socket, so that those who come by the private folder need no keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from aserpc import transport
from aserpc.broker.gate import backlog
from aserpc.broker.peers import NOBODY, is_remote, local_peer, remote_peer, routing_id
from aserpc.messages import Buffer


class Door:
    """A side's sockets; peers are named by `aserpc.broker.peers`.

    Parameters
    ----------
    local
        An ipc address.
    remote
        A tcp address, or None.
    timeout
        Seconds after which a silent connection is closed.
    high_water_mark
        Messages that wait for one peer before a send says EAGAIN; 0: no limit.
    handover
        Whether its peers choose their routing ids and keep them; see `transport.router`.
    guard
        Of the socket on tcp; None: it takes no keys.
    """

    def __init__(
        self,
        context: transport.Context,
        local: str,
        remote: str | None,
        timeout: float,
        high_water_mark: int,
        *,
        handover: bool,
        guard: transport.Guard | None = None,
    ) -> None:
        self._local = transport.router(context, timeout, high_water_mark, handover=handover)
        self._local.set(zmq.BACKLOG, backlog())
        self._remote: transport.Socket | None = None
        if remote is not None:
            transport.seed_routing_ids()
            self._remote = transport.router(
                context, timeout, high_water_mark, handover=handover, guard=guard
            )
        self._addresses = (local, remote)
        #: Those that peers connect to.
        self.sockets = [sock for sock in (self._local, self._remote) if sock is not None]

    def open(self) -> str:
        """Bind the sockets; return where peers from elsewhere connect, or else those from here."""
        local, remote = self._addresses
        transport.bind(self._local, local)
        if self._remote is None or remote is None:
            return local
        return transport.bind(self._remote, remote)

    def receive(self, sock: transport.Socket) -> tuple[bytes, list[Buffer]]:
        """Return who sent the next message to one of the sockets, and its frames."""
        if sock is self._remote:
            user, frames = transport.receive_with_user(sock)
            return remote_peer(user or NOBODY, bytes(frames.pop(0))), frames
        frames = transport.receive(sock)
        return local_peer(bytes(frames.pop(0))), frames

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> None:
        """Send without waiting; ``zmq.Again`` and ``zmq.ZMQError`` as libzmq says."""
        sock = self._remote if is_remote(peer) else self._local
        if sock is None:  # a peer of the broker before, which served elsewhere too
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        transport.send(sock, [routing_id(peer), *frames])
