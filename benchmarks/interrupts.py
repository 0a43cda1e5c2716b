"""Ctrl-C and its kin: an exception where something is measured, and none where it ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

#: Signals that end a run with the report of what is done.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_held = 0
_waiting: list[int] = []


class Interrupted(BaseException):
    """Somebody wants it to end; with the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def raise_on_signals() -> None:
    """Raise `Interrupted` for each signal that whoever began this did not have ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def ignore_signals() -> None:
    """Let nothing stop what little is left to do."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 -- Python's form
    if _held:
        _waiting.append(number)
    else:
        raise Interrupted(number)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Have signals wait: for what must not stop between a process's start and its being known."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        if _waiting and not _held:
            number = _waiting[0]
            _waiting.clear()
            raise Interrupted(number)
