"""What is to be done when: a heap of calls, without a clock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

Call: TypeAlias = Callable[[Any, float], None]

#: Cancelled timers are swept out when they are the larger part of the heap, and this many.
SWEEP_SIZE = 64


class Timer:
    """A call to come; spent once it was made or cancelled."""

    __slots__ = ("argument", "call")

    def __init__(self, call: Call, argument: Any) -> None:
        self.call: Call | None = call
        self.argument = argument

    def spend(self) -> None:
        """Let go of the call and of what it would be given."""
        self.call = self.argument = None


class Timers:
    """Calls that fall due at instants (monotonic seconds)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = itertools.count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def at(self, when: float, call: Call, argument: Any = None) -> Timer:
        """Have ``call(argument, now)`` called at `when`."""
        timer = Timer(call, argument)
        heapq.heappush(self._heap, (when, next(self._number), timer))
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Don't make a call after all; None and a spent timer are no mistake."""
        if timer is None or timer.call is None:
            return
        timer.spend()
        self._cancelled += 1
        if self._cancelled > max(SWEEP_SIZE, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2].call is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """When the next call falls due."""
        while self._heap and self._heap[0][2].call is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Make the calls that are due.

        What they put off to `now` or before waits for the next run, so that a run ends.
        """
        before = next(self._number)
        while (when := self.next()) is not None and when <= now and self._heap[0][1] < before:
            _, _, timer = heapq.heappop(self._heap)
            call, argument = timer.call, timer.argument
            timer.spend()
            assert call is not None
            call(argument, now)
