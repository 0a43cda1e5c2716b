"""The file beside the backend's socket in which a broker leaves its roster to the next."""

from __future__ import annotations

import logging
from pathlib import Path

from aserpc import socket_folder
from aserpc.broker.roster import ROSTER_FILE, Roster, pack_roster, unpack_roster
from aserpc.errors import ProtocolError

logger = logging.getLogger(__name__)

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
        #: When it is to be looked at whether it is as it should be; None: it is.
        self.due: float | None = None
        self._next = float("-inf")
        self._failed = False
        self._saved = b""

    def read(self) -> Roster:
        """Return what the broker before has left."""
        try:
            return unpack_roster(self.path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ProtocolError):
            text = "the list of workers in %s can't be read; they will register again"
            logger.warning(text, self.path)
        return Roster(stopped=True)

    def changed(self) -> None:
        """Take it that the file is perhaps to be written."""
        if self.due is None:
            self.due = self._next

    def is_due(self, now: float) -> bool:
        """Whether it is to be looked at now."""
        return self.due is not None and now >= self.due

    def save(self, roster: Roster, now: float) -> None:
        """Write it if it is not so already."""
        packed = pack_roster(roster)
        try:
            if packed != self._saved:
                socket_folder.write_private(self.path, packed)
        except OSError as error:
            if not self._failed:
                text = "cannot save the list of workers in %s: %s; trying again"
                logger.warning(text, self.path, error.strerror)
            self._failed, self.due = True, now + RETRY_INTERVAL
        else:
            self._saved = packed
            self._failed, self.due, self._next = False, None, now + ROSTER_INTERVAL
