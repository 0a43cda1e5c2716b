"""`Client`: many requests at once, as futures, on one socket and one thread a process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Literal, TypeVar, overload

from ase import Atoms

from aserpc import transport
from aserpc.client import blocking, io_thread
from aserpc.client.arguments import calculator_name, positive, property_names, whole_number
from aserpc.client.calculator import RemoteCalculator
from aserpc.client.gathering import gathered
from aserpc.client.guards import check_system
from aserpc.client.leftovers import warn_left_out
from aserpc.client.session import Session
from aserpc.client.submission import Results, Submission
from aserpc.client.windows import WINDOW, Window, attach, nothing, stream
from aserpc.messages import Request
from aserpc.payload import PackedAtoms, pack_atoms
from aserpc.settings import load_settings

T = TypeVar("T")
R = TypeVar("R")

#: What is asked for where nothing else is said.
PROPERTIES = ("energy", "forces")


class Client:
    """Asks calculators for many structures at once; from any thread.

    All clients of a process share one connection to a broker. Requests of different clients take
    turns at the workers.

    Parameters
    ----------
    broker : str, optional
        The broker's frontend address; from the settings by default.
    timeout : float, optional
        Milliseconds of the broker's silence after which a request is given up.
    check_broker : bool
        Look for the broker at once.
    allow_nonfinite : bool
        As for `RemoteCalculator`.

    Raises
    ------
    BrokerUnreachableError
        (a `ConnectionError`) If `check_broker` is true and no broker answers within 2 s.
    """

    def __init__(
        self,
        broker: str | None = None,
        timeout: float | None = None,
        *,
        check_broker: bool = True,
        allow_nonfinite: bool = False,
    ) -> None:
        settings = load_settings(
            {"ipc_frontend": broker, "client_timeout_ms": timeout},
            labels={"ipc_frontend": "broker", "client_timeout_ms": "timeout"},
        )
        self.broker = transport.check_address(settings.ipc_frontend)
        self.timeout = settings.client_timeout_ms
        self.allow_nonfinite = allow_nonfinite
        self._session = Session()
        self._warned: set[str] = set()
        self._waiting: set[Future[Any]] = set()
        if check_broker:
            blocking.check_broker(self.broker, blocking.CHECK_TIMEOUT)

    def calculator(self, name: str, **options: Any) -> RemoteCalculator:
        """Return an ASE calculator that is served at the same broker.

        Parameters
        ----------
        name : str
            Name of the calculator.
        **options
            Of `RemoteCalculator`.
        """
        return RemoteCalculator(name, **self._options(options))

    def submit(
        self,
        calculator: str,
        atoms: Atoms,
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
    ) -> Future[Results]:
        """Ask a calculator for properties of a structure.

        Parameters
        ----------
        calculator : str
            Name of the calculator.
        atoms : ase.Atoms
            The structure; it may be changed as soon as this returns.
        properties : sequence of str
            ASE properties that the result must have.
        priority : int
            Of this client's requests that wait, those of higher priority are computed first.
        deadline : float, optional
            Seconds after which to give up in any case.

        Returns
        -------
        concurrent.futures.Future
            Its result is the calculator's results: {property: value}. Cancelling it drops the
            request if it is still queued; a calculation that has begun goes on. Its callbacks must
            not wait for other futures: they are called by the thread that all wait for.

        Raises
        ------
        NonFiniteError
            (a `ValueError`) If positions or cell are NaN or infinite. Of results that are, it is
            the future's exception.
        """
        self._check_open()
        calculator_name(calculator)
        names = property_names(properties)
        priority = whole_number("priority", priority)
        deadline = None if deadline is None else positive("deadline", deadline)
        packed: PackedAtoms = pack_atoms(atoms).owned()
        if not self.allow_nonfinite:
            check_system(atoms)
        warn_left_out(packed.left_out, self._warned)
        transport.check_size(packed.frames())
        request = Request(
            *self._session.next_key(),
            calculator,
            "calculate",
            names,
            deadline=deadline,
            priority=priority,
        )
        request.check()  # the broker's refusal would end all that wait on the socket
        submission = Submission(
            request, packed, self.timeout / 1000, allow_nonfinite=self.allow_nonfinite
        )
        self._keep(submission.future)
        return submission.begin(self.broker)

    @overload
    def map(
        self,
        calculator: str,
        structures: Iterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        window: int = WINDOW,
        progress: bool = False,
        return_exceptions: Literal[False] = False,
    ) -> Iterator[Results]: ...

    @overload
    def map(
        self,
        calculator: str,
        structures: Iterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        window: int = WINDOW,
        progress: bool = False,
        return_exceptions: bool,
    ) -> Iterator[Results | Exception]: ...

    def map(
        self,
        calculator: str,
        structures: Iterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        window: int = WINDOW,
        progress: bool = False,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Ask for many structures; their results come in the structures' order.

        Structures are taken as results are: of an iterator of a million structures, there are never
        more than `window` in memory. What is on its way when the iteration ends early is cancelled.

        Parameters
        ----------
        calculator, properties, priority, deadline
            As for `submit`; the deadline is that of each structure.
        structures : iterable of ase.Atoms
            The structures; each may be changed when the next one is taken.
        window : int
            How many are on their way at a time; fewer if they are large.
        progress : bool
            Show a progress bar, also in notebooks.
        return_exceptions : bool
            Give the error of a structure in the place of its results, and go on. Otherwise it is
            raised there, and the structures after it are cancelled.

        Returns
        -------
        iterator of dict
            The results of each structure, see `submit`.
        """
        ask = self.asking(calculator, properties, priority, deadline)
        found = stream(
            Window(ask, window, nothing), structures, calculator, progress, return_exceptions
        )
        return (result for _, result in found)

    @overload
    def evaluate(
        self,
        calculator: str,
        structures: Iterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        progress: bool = False,
        return_exceptions: Literal[False] = False,
    ) -> list[Atoms]: ...

    @overload
    def evaluate(
        self,
        calculator: str,
        structures: Iterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        progress: bool = False,
        return_exceptions: bool,
    ) -> list[Atoms | Exception]: ...

    def evaluate(
        self,
        calculator: str,
        structures: Iterable[Atoms],
        properties: Sequence[str] = PROPERTIES,
        *,
        priority: int = 0,
        deadline: float | None = None,
        progress: bool = False,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Return copies of structures with their results, as ASE's readers return them.

        Parameters
        ----------
        calculator, structures, properties, priority, deadline, progress, return_exceptions
            As for `map`.

        Returns
        -------
        list of ase.Atoms
            In the structures' order, each with a `SinglePointCalculator` that has those results
            which ASE has a name for. `ase.io.write` writes them.
        """
        ask = self.asking(calculator, properties, priority, deadline)
        found = stream(
            Window(ask, WINDOW, Atoms.copy), structures, calculator, progress, return_exceptions
        )
        return [
            result if isinstance(result, Exception) else attach(atoms, result, calculator)
            for atoms, result in found
        ]

    @overload
    def gather(self, futures: Iterable[Future[T]]) -> Future[list[T]]: ...

    @overload
    def gather(self, futures: Iterable[Future[T]], then: Callable[[list[T]], R]) -> Future[R]: ...

    def gather(
        self, futures: Iterable[Future[T]], then: Callable[[list[T]], Any] | None = None
    ) -> Future[Any]:
        """Return one future for many: of their results in order, or of a function of these.

        Parameters
        ----------
        futures : iterable of concurrent.futures.Future
            Of this client, of others, or those that this function has returned.
        then : callable, optional
            Is called with the list of all results, in a thread of its own, so that it may submit
            and wait.

        Returns
        -------
        concurrent.futures.Future
            The first failure of any of the futures is its exception. Cancelling it cancels all.
        """
        future = gathered(futures, then)
        self._keep(future)
        return future

    def close(self) -> None:
        """Cancel what has not been answered; the client stays usable."""
        for future in list(self._waiting):
            future.cancel()
        io_thread.release(self.broker)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_waiting": set()}

    def asking(
        self, calculator: str, properties: Sequence[str], priority: int, deadline: float | None
    ) -> Callable[[Atoms], Future[Results]]:
        """Return `submit` with these arguments, which are checked at once."""
        calculator_name(calculator)
        names = property_names(properties)
        whole_number("priority", priority)
        if deadline is not None:
            positive("deadline", deadline)

        def ask(atoms: Atoms) -> Future[Results]:
            return self.submit(calculator, atoms, names, priority=priority, deadline=deadline)

        return ask

    def _check_open(self) -> None:
        """Raise an error if nothing can be asked any more."""

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return what a calculator of ours is made with."""
        ours = {"broker": self.broker, "timeout": self.timeout, "check_broker": False}
        return {**ours, "allow_nonfinite": self.allow_nonfinite, **options}

    def _keep(self, future: Future[Any]) -> None:
        """Remember a future until it is done."""
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
