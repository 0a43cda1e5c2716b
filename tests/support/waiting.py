"""Waiting for a condition, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

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
