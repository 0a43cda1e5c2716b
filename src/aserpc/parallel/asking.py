"""Asking a calculator for many structures, from one thread or many, until somebody says stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from typing import Any, Generic, TypeVar

from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    all_properties,
)
from ase.calculators.singlepoint import SinglePointCalculator

from aserpc import blas_threads
from aserpc.client import Client, RemoteCalculator, Results
from aserpc.client.arguments import calculator_name, number_from

#: How many requests one function has on their way: what more there are would only fill memory.
WINDOW = 500

#: Optimizers or trajectories that one function runs at a time.
AT_ONCE = 32

K = TypeVar("K")
I = TypeVar("I")  # noqa: E741 -- an item
R = TypeVar("R")


class Asking:
    """A calculator of a service, asked by one call of a function of ours.

    Parameters
    ----------
    client
        Asks the service.
    name
        The calculator's name.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.client, self.name = client, name
        self._futures: set[Future[Results]] = set()
        self._stopped = False

    def submit(self, atoms: Atoms, properties: Sequence[str]) -> Future[Results]:
        """Ask; the structure may be changed as soon as this returns."""
        if self._stopped:
            raise CancelledError
        future = self.client.submit(self.name, atoms, properties)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        if self._stopped:  # meanwhile, by another thread
            future.cancel()
        return future

    def stop(self) -> None:
        """Cancel what is asked, and refuse what will be: threads that ask end."""
        self._stopped = True
        for future in list(self._futures):
            future.cancel()


@contextlib.contextmanager
def asking(
    structures: Sequence[Atoms], calculator: str | None, client: Client | None
) -> Iterator[Asking]:
    """Find out whom to ask; at the block's end nothing of it is on its way any more.

    Raises
    ------
    TypeError
        If a structure or the client is none.
    ValueError
        If no name is given and the structures' calculators don't tell one.
    """
    for atoms in structures:
        if not isinstance(atoms, Atoms):
            raise TypeError(f"a structure is an ase.Atoms, not {atoms!r}")
    if client is not None and not isinstance(client, Client):
        raise TypeError(f"client is an aserpc.Client, not {client!r}")
    own = None if calculator is not None else _common(structures)
    name = calculator_name(calculator) if own is None else own.calc_name
    with contextlib.ExitStack() as stack:
        if client is None and own is not None:
            client = Client(own.broker, own.timeout, allow_nonfinite=own.allow_nonfinite)
            stack.enter_context(client)
        elif client is None:
            client = stack.enter_context(Client())
        asked = Asking(client, name)
        stack.callback(asked.stop)
        yield asked


def _common(structures: Sequence[Atoms]) -> RemoteCalculator:
    """Return what all structures have as their calculator."""
    calculators = [atoms.calc for atoms in structures]
    first = calculators[0] if calculators else None
    if isinstance(first, RemoteCalculator) and all(
        isinstance(other, RemoteCalculator)
        and (other.calc_name, other.broker) == (first.calc_name, first.broker)
        for other in calculators
    ):
        return first
    raise ValueError(
        "whom to ask? Give calculator='NAME', or each structure a RemoteCalculator of one name"
    )


class Window(Generic[K]):
    """Requests on their way, a bounded number at a time.

    Parameters
    ----------
    asked
        Whom to ask.
    properties
        What for.
    done
        Called with a request's key and results, in the thread that uses the window.
    """

    def __init__(
        self, asked: Asking, properties: Sequence[str], done: Callable[[K, Results], None]
    ) -> None:
        self._asked, self._properties, self._done = asked, properties, done
        self._waiting: dict[Future[Results], K] = {}

    def put(self, key: K, atoms: Atoms) -> None:
        """Ask for a structure, when there is room."""
        if len(self._waiting) >= WINDOW:
            self._reap()
        self._waiting[self._asked.submit(atoms, self._properties)] = key

    def finish(self) -> None:
        """Wait for the rest."""
        while self._waiting:
            self._reap()

    def _reap(self) -> None:
        finished, _ = wait(self._waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            self._done(self._waiting.pop(future), future.result())


def ask_all(asked: Asking, structures: Iterable[Atoms], properties: Sequence[str]) -> list[Results]:
    """Return the results of structures, in their order."""
    found: dict[int, Results] = {}
    window = Window[int](asked, properties, found.__setitem__)
    for number, atoms in enumerate(structures):
        window.put(number, atoms)
    window.finish()
    return [found[number] for number in range(len(found))]


@contextlib.contextmanager
def threads(asked: Asking, at_once: int) -> Iterator[ThreadPoolExecutor]:
    """Have threads that ask, until all have ended.

    An exception, also that of Ctrl-C, ends them at their next question or in the one they wait for:
    they see a `CancelledError`.
    """
    with blas_threads.one_each(), ThreadPoolExecutor(at_once, "aserpc parallel") as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            asked.stop()
            raise


def in_threads(
    asked: Asking,
    function: Callable[[I], R],
    items: Sequence[I],
    at_once: int,
    *,
    return_exceptions: bool = False,
) -> list[R | Exception]:
    """Return a function's values for items, in their order.

    The first exception ends all, see `threads`.
    """
    at_once = number_from(1, "at_once", at_once)
    with threads(asked, min(at_once, len(items))) as executor:
        futures = [executor.submit(function, item) for item in items]
        for future in as_completed(futures):
            error = future.exception()
            if error is not None and not (return_exceptions and isinstance(error, Exception)):
                raise error
    ends: list[R | Exception] = []
    for future in futures:
        error = future.exception()
        ends.append(error if isinstance(error, Exception) else future.result())
    return ends


class FutureCalculator(Calculator):
    """Asks by a client's futures: any number of threads on one socket, and all can be stopped.

    Belongs to one structure.
    """

    #: The service knows which.
    implemented_properties: list[str] = list(all_properties)  # noqa: RUF012 -- as in ASE

    def __init__(self, asked: Asking) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked = asked
        #: What to ask for of each geometry.
        self.needed = ["energy", "forces"]
        #: Properties that it has been told are not there; of other structures they may be.
        self._lacking: set[str] = set()

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """See `Calculator.get_property`."""
        if name in self._lacking:
            raise PropertyNotImplementedError(f"{name} property not implemented")
        return super().get_property(name, atoms, allow_calculation)  # type: ignore[no-untyped-call]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),  # noqa: ARG002 -- the worker finds them
    ) -> None:
        """See `Calculator.calculate`."""
        assert atoms is not None
        try:
            results = self.submit(atoms, properties).result()
        except PropertyNotImplementedError:
            try:
                results = self.asked.submit(atoms, properties).result()
            except PropertyNotImplementedError:
                # ASE asks for some, such as the free energy, to see whether they are there.
                self._lacking.update(properties)
                raise
            self.needed = []
        self.take(atoms, results)
        self.needed = list(dict.fromkeys((*self.needed, *properties)))

    def submit(self, atoms: Atoms, properties: Sequence[str] = ()) -> Future[Results]:
        """Ask for properties, and for what was needed before, in one request."""
        names = dict.fromkeys((*properties, *self.needed))
        return self.asked.submit(atoms, [name for name in names if name not in self.results])

    def take(self, atoms: Atoms, results: Results) -> None:
        """Have the results of a structure."""
        self.atoms = atoms.copy()
        self.results.update(results)


def with_results(atoms: Atoms, name: str, results: dict[str, Any]) -> Atoms:
    """Return a structure with its results, as ASE's readers of files do; it is not copied."""
    known = {key: value for key, value in results.items() if key in all_properties}
    atoms.calc = SinglePointCalculator(atoms, **known)
    atoms.calc.name = name
    return atoms
