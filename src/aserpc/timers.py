"""What is to be done when: a heap of calls, without a clock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any


class Timers:
    """Calls that fall due at instants (monotonic seconds)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[Any, float], None], Any]] = []
        self._number = itertools.count()

    def at(self, when: float, call: Callable[[Any, float], None], argument: Any = None) -> None:
        """Have ``call(argument, now)`` called at `when`."""
        heapq.heappush(self._heap, (when, next(self._number), call, argument))

    def next(self) -> float | None:
        """When the next call falls due."""
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Make the calls that are due."""
        while self._heap and self._heap[0][0] <= now:
            _, _, call, argument = heapq.heappop(self._heap)
            call(argument, now)
