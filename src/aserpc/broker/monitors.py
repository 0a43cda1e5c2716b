"""What libzmq tells of the connections of the broker's sockets."""

from __future__ import annotations

from collections.abc import Callable, Container

import zmq
from zmq.utils.monitor import recv_monitor_message

from aserpc import transport


class Monitors:
    """Tell of every connection that is closed, also that of a worker that computes.

    Parameters
    ----------
    accepted
        Called with the descriptor of a connection that was accepted, and the time.
    """

    def __init__(self, accepted: Callable[[int, float], None]) -> None:
        self._accepted = accepted
        #: The monitors, and what is called with the time of each end, by descriptor.
        self._monitors: dict[int, tuple[transport.Socket, Callable[[float], None]]] = {}

    def watch(self, sock: transport.Socket, closed: Callable[[float], None]) -> None:
        """Have `closed` called when a connection of a socket is closed."""
        monitor = sock.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._monitors[monitor.fileno()] = (monitor, closed)

    def descriptors(self) -> list[int]:
        """Return what to poll, which takes less time than to poll sockets.

        They tell of what comes after a look that has found nothing, such as that before the first.
        """
        return list(self._monitors)

    def look(self, ready: Container[int], now: float) -> None:
        """Pass on what is told by those that are ready."""
        for descriptor, (monitor, closed) in self._monitors.items():
            if descriptor in ready:
                _pass_on(monitor, self._accepted, closed, now)


def _pass_on(
    monitor: transport.Socket,
    accepted: Callable[[int, float], None],
    closed: Callable[[float], None],
    now: float,
) -> None:
    while True:
        try:
            event = recv_monitor_message(monitor, zmq.NOBLOCK)
        except zmq.Again:
            return
        if event["event"] == zmq.EVENT_ACCEPTED:
            accepted(event["value"], now)
        else:
            closed(now)
