"""Ends a calculation that takes too long, together with its process."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

#: How much later a process ends that could not even tell, because Python is held up in it, s.
GRACE = 1.0

#: The exit code of a process that ended itself.
EXIT_CODE = 1


class Watchdog:
    """Watches the block that it is the context of, in any thread; one block at a time.

    A block over its time ends the process: nothing else ends a calculation in foreign code. While
    Python runs, `expired` is told the stack before. Where a calculator holds the GIL,
    `faulthandler`, which needs none, writes the stack to stderr and ends the process.

    Parameters
    ----------
    limit
        Time for a block, s.
    expired
        Called with the stack of the thread in the block, which does not leave it any more.
    """

    def __init__(self, limit: float, expired: Callable[[str], None]) -> None:
        self._limit = limit
        self._expired = expired
        self._condition = threading.Condition()
        self._deadline = float("inf")
        self._watched = 0
        threading.Thread(target=self._watch, name="aserpc watchdog", daemon=True).start()

    def __enter__(self) -> None:
        """Begin to watch."""
        # The thread wakes before this deadline by itself.
        with self._condition:
            self._watched = threading.get_ident()
            self._deadline = time.monotonic() + self._limit
        faulthandler.dump_traceback_later(self._limit + GRACE, exit=True, file=2)

    def __exit__(self, *_: object) -> None:
        """Watch no more; never returns once the time was over."""
        with self._condition:
            self._deadline = float("inf")
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        with self._condition:
            while (left := self._deadline - time.monotonic()) > 0:
                self._condition.wait(min(left, self._limit))
            frame = sys._current_frames().get(self._watched)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
            try:
                self._expired(stack)
            finally:
                os._exit(EXIT_CODE)
