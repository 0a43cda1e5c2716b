"""No more connections on this machine than the broker has descriptors for.

A process that has no descriptor left for a connection is ended by libzmq. So the paths of the
sockets are taken away before: those who are in stay in, others find no broker and try again, and
get in when somebody has left.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from aserpc import descriptors
from aserpc.socket_folder import full_path

logger = logging.getLogger(__name__)

#: Descriptors that the broker takes before anybody connects, and some to spare.
BROKER_SIZE = 32

#: Descriptors that are kept free: libzmq may accept that many before the gate is closed.
MARGIN = 512

#: How often it is looked whether the gate can be opened again, s.
LOOK_INTERVAL = 0.5


def backlog() -> int:
    """Return how many connections may wait to be accepted: the gate does not stop those."""
    return max(1, min(100, _margin() // 4))


def _margin() -> int:
    return min(MARGIN, descriptors.limit() // 2)


class Gate:
    """Opens and closes unix sockets, by their paths.

    Parameters
    ----------
    paths
        Of sockets that listen.

    Raises
    ------
    TooManyFilesError
        If there are too few descriptors for a broker.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        descriptors.check_room(BROKER_SIZE)
        self._paths = list(paths)
        self._margin = _margin()
        self._limit = descriptors.limit() - self._margin
        #: When to look whether it can be opened; None: it is open.
        self.look_at: float | None = None
        for path in self._paths:  # what a broker has left that was killed
            full_path(path).unlink(missing_ok=True)

    def accepted(self, descriptor: int, now: float) -> None:
        """Take it that a connection was accepted; the system gives the lowest free descriptor."""
        if descriptor < self._limit or self.look_at is not None:
            return
        logger.warning(
            "no more connections, with %d files and connections open of %d; others wait outside. "
            "Allow more with: ulimit -n",
            descriptor,
            descriptors.limit(),
        )
        self.look_at = now + LOOK_INTERVAL
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.rename(full_path(path))

    def look(self, now: float) -> None:
        """Open it again if enough have left."""
        if self.look_at is None or now < self.look_at:
            return
        self.look_at = now + LOOK_INTERVAL
        with contextlib.suppress(OSError):  # not even one to count them
            if descriptors.count() < self._limit - self._margin // 4:
                self._open()

    def _open(self) -> None:
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):
                full_path(path).rename(path)
        self.look_at = None
        logger.info("there is room for connections again")

    def remove(self) -> None:
        """Leave nothing behind."""
        for path in self._paths:
            full_path(path).unlink(missing_ok=True)
