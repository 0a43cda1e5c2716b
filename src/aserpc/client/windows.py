"""A stream of structures, of which only a window is on its way, and what comes of each."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator

from aserpc.client.arguments import number_from
from aserpc.client.progress import length, progress_bar

T = TypeVar("T")

#: How many structures are on their way at a time, and how many bytes of them.
WINDOW, WINDOW_BYTES = 1000, 256 << 20


class Window(Generic[T]):
    """Requests that are on their way, in order.

    Parameters
    ----------
    submit
        Sends a structure's request.
    most
        How many may be on their way.
    keep
        What is kept of a structure until its results are there.
    """

    def __init__(
        self, submit: Callable[[Atoms], Future[T]], most: int, keep: Callable[[Atoms], Any]
    ) -> None:
        self._submit = submit
        self._most = number_from(1, "window", most, "a number of structures")
        self._keep = keep
        self._entries: deque[tuple[Any, Future[T], int]] = deque()
        self._bytes = 0
        #: Whether there are no more structures, and why, if their iterator failed.
        self.ended = False
        self.broken: Exception | None = None

    @property
    def is_full(self) -> bool:
        """Whether something must come back before the next is sent."""
        count = len(self._entries)
        return count >= self._most or (count > 0 and self._bytes >= WINDOW_BYTES)

    @property
    def is_under_way(self) -> bool:
        """Whether any request is on its way."""
        return bool(self._entries)

    def fill(self, structures: Iterator[Atoms]) -> bool:
        """Send structures as long as there is room for them; whether any is on its way."""
        while not self.ended and not self.is_full:
            self._send_next(structures)
        return self.is_under_way

    def _send_next(self, structures: Iterator[Atoms]) -> None:
        try:
            atoms = next(structures)
        except StopIteration:
            self.ended = True
        except Exception as error:  # noqa: BLE001 -- raised after the results of those before
            self.ended, self.broken = True, error
        else:
            self.put(atoms)

    def put(self, atoms: Atoms) -> None:
        """Send a structure; what is wrong with it is its future's exception."""
        kept: Any = None
        future: Future[T]
        try:
            future = self._submit(atoms)  # first: it says best what is no structure
            kept, size = self._keep(atoms), size_of(atoms)
        except Exception as error:  # noqa: BLE001 -- it is told in this structure's place
            size, future = 0, Future()
            future.set_exception(error)
        self._entries.append((kept, future, size))
        self._bytes += size

    def first(self) -> Future[T]:
        """Return the future whose turn it is; there must be one."""
        return self._entries[0][1]

    def take(self) -> tuple[Any, Future[T]]:
        """Take what was kept of the first structure, and its future; there must be one."""
        kept, future, size = self._entries.popleft()
        self._bytes -= size
        return kept, future

    def cancel(self) -> None:
        """Cancel what is on its way."""
        while self._entries:
            self.take()[1].cancel()


def size_of(atoms: Atoms) -> int:
    """Return how many bytes the arrays of a structure have."""
    return sum(array.nbytes for array in atoms.arrays.values())


def nothing(atoms: Atoms) -> None:
    """Keep nothing of a structure."""


def several(structures: Any) -> None:
    """Raise `TypeError` for what is one structure, or none."""
    if isinstance(structures, Atoms):
        raise TypeError("structures is a list or iterator of Atoms, not one Atoms; write [atoms]")
    if isinstance(structures, str | os.PathLike):
        raise TypeError(
            f"structures is a list or iterator of Atoms, not {str(structures)!r}; "
            "ase.io.iread reads those of a file"
        )
    iter(structures)


def stream(
    window: Window[T],
    structures: Iterable[Atoms],
    text: str,
    progress: bool,
    return_exceptions: bool,
) -> Iterator[tuple[Any, Any]]:
    """Return what was kept of each structure, and its results or what went wrong, in order.

    What went wrong is raised unless `return_exceptions`.
    """
    several(structures)
    return _stream(window, structures, text, progress, return_exceptions)


def _stream(
    window: Window[T],
    structures: Iterable[Atoms],
    text: str,
    progress: bool,
    return_exceptions: bool,
) -> Iterator[tuple[Any, Any]]:
    source = iter(structures)
    try:
        with progress_bar(text, length(structures), shown=progress) as advance:
            while window.fill(source):
                window.first().exception()  # waits; that it was cancelled is raised here
                kept, future = window.take()
                result = outcome(future, return_exceptions=return_exceptions)
                advance()
                yield kept, result
    finally:
        window.cancel()
    if window.broken is not None:
        raise window.broken


def outcome(future: Future[T], *, return_exceptions: bool) -> T | Exception:
    """Return the result of a future that is done, or its exception instead of raising it."""
    error = future.exception()
    if return_exceptions and isinstance(error, Exception):
        return error
    return future.result()


def attach(atoms: Atoms, results: dict[str, Any], calculator: str) -> Atoms:
    """Attach results to a structure, as far as ASE has names for them, and return it."""
    standard = {k: v for k, v in results.items() if k in all_properties and v is not None}
    atoms.calc = SinglePointCalculator(atoms, **standard)
    atoms.calc.name = calculator
    return atoms
