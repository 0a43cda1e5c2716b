"""Waiting for a condition, never for a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

#: How long a test waits for what should come soon, s; generous, for machines that are busy.
SOON = 20.0

_pause = threading.Event()


def wait_for(
    condition: Callable[[], T], timeout: float = SOON, what: Callable[[], object] | str = ""
) -> T:
    """Return the condition's first true value; fail after `timeout` seconds, saying `what`."""
    ends_at = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= ends_at:
            told = what() if callable(what) else what
            raise AssertionError(f"not within {timeout:g} s: {told or condition}")
        _pause.wait(0.005)


def wait_until_asleep(pid: int) -> None:
    """Wait until a process's main thread does nothing but wait.

    CPython notices a signal that comes just before its main thread waits for a lock only when that
    wait ends, or with the next signal.
    """
    status = Path(f"/proc/{pid}/status")
    looks: deque[list[str]] = deque(maxlen=5)

    def is_asleep() -> bool:
        told = ("State", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
        looks.append([line for line in status.read_text().splitlines() if line.startswith(told)])
        same = len(looks) == looks.maxlen and all(look == looks[0] for look in looks)
        return same and "(sleeping)" in looks[0][0]

    wait_for(is_asleep)


class InThread(threading.Thread, Generic[T]):
    """Calls something in a thread and keeps what comes of it."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.value: T | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """See `threading.Thread.run`."""
        try:
            self.value = self.call()
        except BaseException as error:  # noqa: BLE001 -- for the test to look at
            self.error = error

    def result(self) -> T | None:
        """Wait for the end; return or raise what came of it."""
        self.join(SOON)
        assert not self.is_alive(), "it goes on"
        if self.error is not None:
            raise self.error
        return self.value
