from __future__ import annotations

import weakref
from typing import Any

from aserpc.timers import Timers


def collect() -> tuple[list[Any], Timers]:
    return [], Timers()


def test_calls_are_made_in_order_when_they_are_due() -> None:
    made, timers = collect()
    for when in (3.0, 1.0, 2.0):
        timers.at(when, lambda what, now: made.append((what, now)), when)
    assert timers.next() == 1.0
    timers.run(2.5)
    assert made == [(1.0, 2.5), (2.0, 2.5)]
    assert timers.next() == 3.0


def test_a_cancelled_call_is_not_made_and_asks_for_no_tick() -> None:
    made, timers = collect()
    first = timers.at(1.0, lambda what, _: made.append(what), "first")
    timers.at(2.0, lambda what, _: made.append(what), "second")
    timers.cancel(first)
    timers.cancel(first)
    timers.cancel(None)
    assert timers.next() == 2.0
    timers.run(5.0)
    assert made == ["second"]
    assert timers.next() is None


def test_a_call_may_cancel_another_that_is_due() -> None:
    made, timers = collect()
    timers.at(1.0, lambda *_: timers.cancel(second))
    second = timers.at(1.0, lambda *_: made.append("second"))
    timers.run(1.0)
    assert made == []
    assert len(timers) == 0


def test_cancelling_a_call_that_was_made_changes_nothing() -> None:
    made, timers = collect()
    timer = timers.at(1.0, lambda *_: made.append(1))
    timers.at(9.0, lambda *_: made.append(9))
    timers.run(1.0)
    timers.cancel(timer)
    assert len(timers) == 1


def test_a_call_that_puts_itself_off_to_now_does_not_hold_up_the_run() -> None:
    made, timers = collect()

    def again(_: Any, now: float) -> None:
        made.append(now)
        timers.at(now, again)

    timers.at(1.0, again)
    timers.run(1.0)
    assert made == [1.0]
    assert timers.next() == 1.0


def test_what_was_cancelled_is_not_kept() -> None:
    class Large:
        pass

    _, timers = collect()
    large = Large()
    alive = weakref.ref(large)
    timer = timers.at(3600.0, lambda *_: None, large)
    del large
    timers.cancel(timer)
    assert alive() is None


def test_the_heap_does_not_grow_with_cancelled_calls() -> None:
    _, timers = collect()
    for number in range(10_000):
        timers.cancel(timers.at(3600.0 + number, lambda *_: None))
    assert len(timers) == 0
    assert len(timers._heap) < 200
