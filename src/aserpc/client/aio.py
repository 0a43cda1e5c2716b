"""`AsyncClient`: the verbs of `Client` for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from concurrent.futures import Future
from typing import Any, Literal, TypeVar, overload

from ase import Atoms

from aserpc.client import blocking
from aserpc.client.calculator import RemoteCalculator
from aserpc.client.futures import PROPERTIES, Client
from aserpc.client.progress import length, progress_bar
from aserpc.client.submission import Results
from aserpc.client.windows import WINDOW, Window, attach, nothing, outcome, several

T = TypeVar("T")


class AsyncClient:
    """Asks calculators for many structures at once, in asyncio.

    As an ``async with`` block it looks for the broker at its begin, and cancels what has not been
    answered at its end. Everything else is as for `Client`.

    Parameters
    ----------
    broker : str, optional
        The broker's frontend address; from the settings by default.
    timeout : float, optional
        Milliseconds of the broker's silence after which a request is given up.
    allow_nonfinite : bool
        As for `RemoteCalculator`.
    """

    def __init__(
        self,
        broker: str | None = None,
        timeout: float | None = None,
        *,
        allow_nonfinite: bool = False,
    ) -> None:
        self._client = Client(broker, timeout, check_broker=False, allow_nonfinite=allow_nonfinite)
        self.broker = self._client.broker

    def calculator(self, name: str, **options: Any) -> RemoteCalculator:
        """Return an ASE calculator; it waits in the calling thread. See `Client.calculator`."""
        return self._client.calculator(name, **options)

    def submit(
        self,
        calculator: str,
        atoms: Atoms,
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
    ) -> asyncio.Future[Results]:
        """Ask a calculator for properties of a structure; see `Client.submit`.

        Returns
        -------
        asyncio.Future
            Of the calculator's results. Cancelling it, or the task that awaits it, drops the
            request if it is still queued.
        """
        loop = asyncio.get_running_loop()
        future = self._client.submit(
            calculator, atoms, properties, priority=priority, deadline=deadline
        )
        return _chained(future, loop)

    @overload
    def map(
        self,
        calculator: str,
        structures: Iterable[Atoms] | AsyncIterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        window: int = WINDOW,
        progress: bool = False,
        return_exceptions: Literal[False] = False,
    ) -> AsyncIterator[Results]: ...

    @overload
    def map(
        self,
        calculator: str,
        structures: Iterable[Atoms] | AsyncIterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        window: int = WINDOW,
        progress: bool = False,
        return_exceptions: bool,
    ) -> AsyncIterator[Results | Exception]: ...

    def map(
        self,
        calculator: str,
        structures: Iterable[Atoms] | AsyncIterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        window: int = WINDOW,
        progress: bool = False,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Any]:
        """Ask for many structures, of an iterable or async iterable; see `Client.map`.

        Returns
        -------
        async iterator of dict
            The results of each structure, in order.
        """
        ask = self._client.asking(calculator, properties, priority, deadline)
        found = _stream(
            Window(ask, window, nothing),
            _source(structures),
            progress_bar(calculator, length(structures), shown=progress),
            return_exceptions,
        )
        return _second(found)

    @overload
    async def evaluate(
        self,
        calculator: str,
        structures: Iterable[Atoms] | AsyncIterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        progress: bool = False,
        return_exceptions: Literal[False] = False,
    ) -> list[Atoms]: ...

    @overload
    async def evaluate(
        self,
        calculator: str,
        structures: Iterable[Atoms] | AsyncIterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        progress: bool = False,
        return_exceptions: bool,
    ) -> list[Atoms | Exception]: ...

    async def evaluate(
        self,
        calculator: str,
        structures: Iterable[Atoms] | AsyncIterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        progress: bool = False,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Return copies of structures with their results; see `Client.evaluate`."""
        ask = self._client.asking(calculator, properties, priority, deadline)
        found = _stream(
            Window(ask, WINDOW, Atoms.copy),
            _source(structures),
            progress_bar(calculator, length(structures), shown=progress),
            return_exceptions,
        )
        async with contextlib.aclosing(found):
            return [
                result if isinstance(result, Exception) else attach(atoms, result, calculator)
                async for atoms, result in found
            ]

    def gather(
        self,
        futures: Iterable[Awaitable[T]],
        then: Callable[[list[T]], Any] | None = None,
    ) -> asyncio.Future[Any]:
        """Return one future for many: of their results in order, or of a function of these.

        Parameters
        ----------
        futures : iterable of awaitables
            Of `submit`, say, or those that this function has returned.
        then : callable, optional
            A function or coroutine function, which is called with the list of all results.

        Returns
        -------
        asyncio.Future
            The first failure of any of the futures is its exception. Cancelling it cancels all.
        """
        if inspect.isawaitable(futures):
            raise TypeError("futures is a list or iterator of awaitables, not one")
        if then is not None and not callable(then):
            raise TypeError(f"then is a function of the list of results, not {then!r}")
        whole = asyncio.gather(*futures)
        if then is None:
            return whole

        async def concluded() -> Any:
            results = then(await whole)
            return await results if inspect.isawaitable(results) else results

        def cancel(done: asyncio.Future[Any]) -> None:
            if done.cancelled():
                whole.cancel()  # a task that had not begun has not done so

        conclusion = asyncio.ensure_future(concluded())
        conclusion.add_done_callback(cancel)
        return conclusion

    async def close(self) -> None:
        """Cancel what has not been answered; the client stays usable."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> AsyncClient:
        await asyncio.to_thread(blocking.check_broker, self.broker, blocking.CHECK_TIMEOUT)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


async def _stream(
    window: Window[T],
    source: AsyncIterator[Atoms],
    bar: contextlib.AbstractContextManager[Callable[[], None]],
    return_exceptions: bool,
) -> AsyncGenerator[tuple[Any, Any], None]:
    """As `windows.stream`."""
    loop = asyncio.get_running_loop()
    try:
        with bar as advance:
            while await _fill(window, source):
                await _done(window.first(), loop)
                kept, future = window.take()
                result = outcome(future, return_exceptions=return_exceptions)
                advance()
                yield kept, result
    finally:
        window.cancel()
    if window.broken is not None:
        raise window.broken


async def _fill(window: Window[T], source: AsyncIterator[Atoms]) -> bool:
    """As `Window.fill`."""
    while not window.ended and not window.is_full:
        await _send_next(window, source)
    return window.is_under_way


async def _send_next(window: Window[T], source: AsyncIterator[Atoms]) -> None:
    try:
        atoms = await anext(source)
    except StopAsyncIteration:
        window.ended = True
    except Exception as error:  # noqa: BLE001 -- raised after the results of those before
        window.ended, window.broken = True, error
    else:
        window.put(atoms)


async def _second(pairs: AsyncGenerator[tuple[Any, T], None]) -> AsyncIterator[T]:
    async with contextlib.aclosing(pairs):
        async for _, second in pairs:
            yield second


def _source(structures: Iterable[Atoms] | AsyncIterable[Atoms]) -> AsyncIterator[Atoms]:
    if isinstance(structures, AsyncIterable):
        return aiter(structures)
    several(structures)
    return _each(structures)


async def _each(structures: Iterable[Atoms]) -> AsyncIterator[Atoms]:
    for atoms in structures:
        yield atoms


async def _done(future: Future[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Wait until a future of another thread is done, however it ends."""
    if future.done():
        return
    event = asyncio.Event()

    def tell(_: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(event.set)

    future.add_done_callback(tell)
    await event.wait()


def _chained(future: Future[T], loop: asyncio.AbstractEventLoop) -> asyncio.Future[T]:
    """Return an asyncio future with the end of a future; cancelling one cancels the other."""
    chained: asyncio.Future[T] = loop.create_future()

    def finish() -> None:
        if chained.done():
            return
        if future.cancelled():
            chained.cancel()
        elif (error := future.exception()) is not None:
            chained.set_exception(error)
        else:
            chained.set_result(future.result())

    def tell(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(finish)

    def cancel(done: asyncio.Future[T]) -> None:
        if done.cancelled():
            future.cancel()

    future.add_done_callback(tell)
    chained.add_done_callback(cancel)
    return chained
