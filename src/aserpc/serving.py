"""How a blocking loop is run: under signals in the main thread, or in a thread under asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol

from aserpc.transport import Waker


async def serve_in_thread(serve: Callable[[], None], stop: Callable[[], None], name: str) -> None:
    """Run a blocking loop in a thread of its own; cancelling stops it and waits for its end."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if ended.cancelled():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def target() -> None:
        error: BaseException | None = None
        try:
            serve()
        except BaseException as caught:  # noqa: BLE001 -- raised again in the caller
            error = caught
        with contextlib.suppress(RuntimeError):  # the event loop was closed without waiting
            loop.call_soon_threadsafe(finish, error)

    # Not asyncio.to_thread: the default executor has few threads, and loops occupy them for long.
    threading.Thread(target=target, name=name, daemon=True).start()
    try:
        await asyncio.shield(ended)
    except asyncio.CancelledError:
        stop()
        await ended
        raise


class _Server(Protocol):
    """What serves until it is stopped, as a `Broker`."""

    serving: threading.Event

    def serve(self) -> None: ...

    def stop(self) -> None: ...


@contextlib.contextmanager
def served_beside(server: _Server, name: str, failed: Callable[[], None]) -> Iterator[None]:
    """Serve in a thread of its own for the time of a block, which begins when it serves.

    If it ends by an error, `failed` is called there, to end the block; then the error is raised.
    """
    errors: list[BaseException] = []

    def target() -> None:
        try:
            server.serve()
        except BaseException as error:  # noqa: BLE001 -- raised again in the block's thread
            errors.append(error)
            failed()

    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    while not server.serving.wait(0.05):
        if errors:
            raise errors[0]
    try:
        yield
    finally:
        server.stop()
        thread.join()
    if errors:
        raise errors[0]


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None], waker: Waker) -> Iterator[None]:
    """Call `stop` on SIGTERM or SIGINT; a SIGINT that comes second interrupts at once.

    A second SIGTERM does not: ``uv run`` and the like pass on the one that their whole process
    group was sent. Works in the main thread only, as Python's signal handlers do.
    """
    received: list[int] = []

    def record(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(number)
            stop()
        elif number == signal.SIGINT:
            signal.default_int_handler(number, frame)

    before = {number: signal.signal(number, record) for number in (signal.SIGTERM, signal.SIGINT)}
    descriptor = signal.set_wakeup_fd(waker.signal_fd(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
