"""One future for many."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def gathered(
    futures: Iterable[Future[T]], then: Callable[[list[T]], Any] | None = None
) -> Future[Any]:
    """Return a future of the results of all, or of what `then` makes of them.

    See `Client.gather`.
    """
    if isinstance(futures, Future):
        raise TypeError("futures is a list or iterator of futures, not one future")
    members = list(futures)
    for member in members:
        if not isinstance(member, Future):
            raise TypeError(f"futures are those of concurrent.futures, not {member!r}")
    if then is not None and not callable(then):
        raise TypeError(f"then is a function of the list of results, not {then!r}")
    whole: Future[Any] = Future()
    lock = threading.Lock()
    #: How many are not done; 0 also when one of them has failed.
    left = len(members)

    def finish() -> None:
        if not whole.set_running_or_notify_cancel():
            return
        try:
            results: Any = [member.result() for member in members]
            if then is not None:
                results = then(results)
        except BaseException as error:  # noqa: BLE001 -- whoever waits is to have it
            whole.set_exception(error)
        else:
            whole.set_result(results)

    def ended(member: Future[T]) -> None:
        nonlocal left
        failed = member.cancelled() or member.exception() is not None
        with lock:
            if left == 0:
                return
            left = 0 if failed else left - 1
            if left:
                return
        if failed:
            fail(member)
        else:
            conclude()

    def fail(member: Future[T]) -> None:
        if whole.set_running_or_notify_cancel():
            try:
                member.result()
            except BaseException as error:  # noqa: BLE001 -- whoever waits is to have it
                whole.set_exception(error)

    def conclude() -> None:
        if then is None:
            finish()
        else:  # it may submit and wait, which the thread that calls us must not
            threading.Thread(target=finish, name="aserpc gather", daemon=True).start()

    def cancelled(done: Future[Any]) -> None:
        if not done.cancelled():
            return
        for member in members:
            member.cancel()
        with lock:
            nonlocal left
            is_ours, left = left != 0, 0
        if is_ours:
            done.set_running_or_notify_cancel()

    if members:
        for member in members:
            member.add_done_callback(ended)
    else:
        conclude()
    whole.add_done_callback(cancelled)
    return whole
