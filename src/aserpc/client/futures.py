"""`Client`: many requests at once, as futures, on one socket and one thread a process."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import zmq

from aserpc import transport
from aserpc.client import blocking
from aserpc.client.arguments import calculator_name, positive, property_names
from aserpc.client.failures import to_exception
from aserpc.client.guards import check_complete, check_results, check_system
from aserpc.client.leftovers import warn_left_out
from aserpc.client.locks import Lock
from aserpc.client.provenance import provenance
from aserpc.client.session import Session
from aserpc.client.state import Effect, Resolve
from aserpc.errors import CancelledRequestError
from aserpc.messages import Request, RequestKey
from aserpc.payload import PackedAtoms, pack_atoms, unpack_results
from aserpc.settings import load_settings

logger = logging.getLogger(__name__)


class Results(dict[str, Any]):
    """A calculator's results: {property: value}.

    Attributes
    ----------
    provenance : dict
        Where they come from, see `RemoteCalculator.provenance`.
    """

    provenance: dict[str, Any]


class Client:
    """Asks calculators for many structures at once.

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
        self._waiting: set[Future[Results]] = set()
        if check_broker:
            blocking.check_broker(self.broker, blocking.CHECK_TIMEOUT)

    def submit(
        self,
        calculator: str,
        atoms: Any,
        properties: Sequence[str] = ("energy", "forces"),
        *,
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
        deadline : float, optional
            Seconds after which to give up in any case.

        Returns
        -------
        concurrent.futures.Future
            Its result is the calculator's results: {property: value}. Cancelling it drops the
            request if it is still queued.

        Raises
        ------
        NonFiniteError
            (a `ValueError`) If positions or cell are NaN or infinite. Of results that are, it is
            the future's exception.
        """
        calculator_name(calculator)
        names = property_names(properties)
        deadline = None if deadline is None else positive("deadline", deadline)
        packed: PackedAtoms = pack_atoms(atoms).owned()
        if not self.allow_nonfinite:
            check_system(atoms)
        warn_left_out(packed.left_out, self._warned)
        payload = packed.frames()
        transport.check_size(payload)
        request = Request(
            *self._session.next_key(), calculator, "calculate", names, deadline=deadline
        )
        request.check()  # the broker's refusal would end all that wait on the socket
        future: Future[Results] = Future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)

        def ended(end: Resolve) -> None:
            # A cancelled future is left as it is.
            if not future.set_running_or_notify_cancel():
                return
            try:
                results = _results(end, calculator)
                check_complete(results, calculator, names)
                if not self.allow_nonfinite:
                    check_results(results, calculator, names, packed)
            except Exception as error:  # noqa: BLE001 -- it is this request's, not the thread's
                future.set_exception(error)
            else:
                future.set_result(results)

        def cancelled(done: Future[Results]) -> None:
            if done.cancelled():
                thread.cancel(request.key)

        def send(channel: blocking.Channel) -> list[Effect]:
            now = time.monotonic()
            return channel.state.submit(request, payload, now, self.timeout / 1000, deadline)

        thread = _submit(self.broker, request.key, send, ended)
        future.add_done_callback(cancelled)
        return future

    def close(self) -> None:
        """Cancel what has not been answered; the client stays usable."""
        for future in list(self._waiting):
            future.cancel()
        _release(self.broker)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_waiting": set()}


def _results(end: Resolve, calculator: str) -> Results:
    """Return the results that a request has ended with, or raise its error."""
    if end.error is not None:
        raise end.error
    assert end.answer is not None
    if end.answer.error is not None:
        raise to_exception(end.answer.error, calculator)
    results = Results(unpack_results(end.payload))
    results.provenance = provenance(end.answer)
    return results


class _IOThread:
    """A thread that owns one socket to a broker and everything that waits on it."""

    def __init__(self, address: str) -> None:
        self._pool = blocking.pool()
        self._channel = self._pool.channel(address)
        self._waker = transport.Waker()
        self._calls: deque[Callable[[blocking.Channel], list[Effect]]] = deque()
        self._ends: dict[RequestKey, Callable[[Resolve], None]] = {}
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="aserpc client", daemon=True)
        self._thread.start()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits on it."""
        return not self._ends

    def submit(
        self,
        key: RequestKey,
        send: Callable[[blocking.Channel], list[Effect]],
        ended: Callable[[Resolve], None],
    ) -> None:
        """Send a request from the thread; `ended` is called there with its end."""
        self._ends[key] = ended
        self._do(send)

    def cancel(self, key: RequestKey) -> None:
        """Stop waiting for a request."""
        if self._ends.pop(key, None) is not None:
            self._do(lambda channel: channel.state.cancel(key))

    def close(self) -> None:
        """End the thread; what still waits is resolved with an error."""
        self._stop = True
        self._waker.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def _do(self, call: Callable[[blocking.Channel], list[Effect]]) -> None:
        self._calls.append(call)
        self._waker.wake()

    def _run(self) -> None:
        channel = self._channel
        poller = self._poller()
        try:
            while not self._stop or self._calls:
                self._turn(channel, poller)
                if channel.renew():
                    poller = self._poller()
        finally:
            _forget(self)
            for key in list(self._ends):
                error = CancelledRequestError("the client's thread has ended")
                self._resolve([Resolve(key, None, [], error)])
            self._pool.put_back(channel)

    def _poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        for readable in (self._waker.fileno(), *self._channel.readable()):
            poller.register(readable, zmq.POLLIN)
        return poller

    def _turn(self, channel: blocking.Channel, poller: zmq.Poller) -> None:
        poller.register(channel.socket, channel.events())
        due = channel.state.next_tick()
        wait = None if due is None else transport.milliseconds(due - time.monotonic())
        if self._waker.fileno() in dict(poller.poll(wait)):
            self._waker.clear()
        channel.flush()
        resolved = channel.receive()
        while self._calls:
            resolved += channel.perform(self._calls.popleft()(channel))
        resolved += channel.perform(channel.state.tick(time.monotonic()))
        self._resolve(resolved)

    def _resolve(self, resolved: list[Resolve]) -> None:
        for end in resolved:
            ended = self._ends.pop(end.key, None)
            if ended is not None:
                ended(end)


_threads: dict[str, _IOThread] = {}
#: Threads of parent processes, which don't exist here; what they own must not be closed here.
_inherited: list[dict[str, _IOThread]] = []
_lock = Lock()


def _submit(
    address: str,
    key: RequestKey,
    send: Callable[[blocking.Channel], list[Effect]],
    ended: Callable[[Resolve], None],
) -> _IOThread:
    """Have the process's thread for a broker send a request; return the thread."""
    with _lock:
        thread = _threads.get(address)
        if thread is None:
            thread = _threads[address] = _IOThread(address)
        thread.submit(key, send, ended)
        return thread


def _release(address: str) -> None:
    """End the thread for a broker if nothing waits on it; the next request starts another."""
    with _lock:
        thread = _threads.get(address)
        if thread is None or not thread.is_idle:
            return
        del _threads[address]
    thread.close()


def _forget(thread: _IOThread) -> None:
    """Give nothing more to a thread that ends."""
    with _lock:
        for address in [address for address, other in _threads.items() if other is thread]:
            del _threads[address]


def _renew() -> None:
    global _threads
    _inherited.append(_threads)
    _threads = {}


os.register_at_fork(after_in_child=_renew)


@atexit.register
def _close() -> None:
    for thread in list(_threads.values()):
        thread.close()
