"""Waiting for a condition, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
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
