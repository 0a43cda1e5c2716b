"""The file in which a broker leaves its workers and managers to the next.

``[[peer, calculator], ...]`` with a name for a worker, a list of names for a manager.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack

from aserpc import socket_folder
from aserpc.broker.records import RosterEntry
from aserpc.errors import ProtocolError
from aserpc.messages.base import check_name
from aserpc.nesting import check_lengths

logger = logging.getLogger(__name__)

#: Name of the file, beside the backend's socket.
ROSTER_FILE = "workers.msgpack"

#: The file is written when something has changed, and at most so often, s; after a failure later.
ROSTER_INTERVAL, RETRY_INTERVAL = 0.2, 2.0


class RosterFile:
    """The file, kept up to date.

    Parameters
    ----------
    folder
        Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ROSTER_FILE
        #: When it is to be written; None: it is as it should be.
        self.due: float | None = None
        self._next = float("-inf")
        self._failed = False

    def read(self) -> list[RosterEntry]:
        """Return what the broker before has left."""
        try:
            return unpack_roster(self.path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ProtocolError):
            text = "the list of workers in %s can't be read; they will register again"
            logger.warning(text, self.path)
            return []

    def changed(self) -> None:
        """Take it that the file is to be written."""
        if self.due is None:
            self.due = self._next

    def save(self, roster: Callable[[], Sequence[RosterEntry]], now: float) -> None:
        """Write it if it is due."""
        if self.due is None or now < self.due:
            return
        try:
            socket_folder.write_private(self.path, pack_roster(roster()))
        except OSError as error:
            if not self._failed:
                text = "cannot save the list of workers in %s: %s; trying again"
                logger.warning(text, self.path, error.strerror)
            self._failed, self.due = True, now + RETRY_INTERVAL
        else:
            self._failed, self.due, self._next = False, None, now + ROSTER_INTERVAL


def pack_roster(roster: Sequence[RosterEntry]) -> bytes:
    """Return the contents of the file."""
    packed: bytes = msgpack.packb(roster)
    return packed


def unpack_roster(data: bytes) -> list[RosterEntry]:
    """Read the contents of the file; raise `ProtocolError` where they are none."""
    try:
        check_lengths(data)
        entries = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError, MemoryError):
        entries = None
    if not isinstance(entries, list):
        msg = "a list of workers is a list"
        raise ProtocolError(msg)
    roster: dict[bytes, str | list[str]] = {}
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or type(entry[0]) is not bytes:
            msg = "a worker is [peer, calculator]"
            raise ProtocolError(msg)
        for name in entry[1] if isinstance(entry[1], list) else [entry[1]]:
            _check(name)
        roster[entry[0]] = entry[1]
    return list(roster.items())


def _check(name: Any) -> None:
    if type(name) is not str:
        msg = "a calculator's name is a text"
        raise ProtocolError(msg)
    check_name(name)
