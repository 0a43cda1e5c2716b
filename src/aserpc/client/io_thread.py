"""The process's thread for a broker: one socket, and all futures that wait on it."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable

import zmq

from aserpc import transport
from aserpc.client import blocking
from aserpc.client.locks import Lock
from aserpc.client.state import Effect, Resolve
from aserpc.errors import CancelledRequestError
from aserpc.messages import RequestKey

#: Requests that one thread may submit before the client's thread has sent them.
MAX_UNSENT = 64

#: How long it waits for that, s.
PATIENCE = 0.1


class IOThread:
    """A thread that owns one socket to a broker and everything that waits on it."""

    def __init__(self, address: str) -> None:
        self._pool = blocking.pool()
        self._channel = self._pool.channel(address)
        self._waker = transport.Waker()
        self._calls: deque[Callable[[blocking.Channel], list[Effect]]] = deque()
        self._ends: dict[RequestKey, Callable[[Resolve], None]] = {}
        #: Whether what was submitted is sent, as far as somebody waits for that.
        self._sent = threading.Event()
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

    def give_way(self) -> None:
        """Let the client's thread send if much is unsent.

        Each frame that it sends costs it Python's lock, which a thread that is busy gives up every
        5 ms only: until all is submitted, nearly nothing would be sent.
        """
        if len(self._calls) >= MAX_UNSENT and self._thread is not threading.current_thread():
            self._sent.clear()
            if len(self._calls) >= MAX_UNSENT:
                self._sent.wait(PATIENCE)

    def cancel(self, key: RequestKey) -> bool:
        """Stop waiting for a request; return False if its end has come already."""
        if self._ends.pop(key, None) is None:
            return False
        self._do(lambda channel: channel.state.cancel(key))
        return True

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
        if not self._sent.is_set():
            self._sent.set()
        resolved += channel.perform(channel.state.tick(time.monotonic()))
        self._resolve(resolved)

    def _resolve(self, resolved: list[Resolve]) -> None:
        for end in resolved:
            ended = self._ends.pop(end.key, None)
            if ended is not None:
                ended(end)


_threads: dict[str, IOThread] = {}
#: Threads of parent processes, which don't exist here; what they own must not be closed here.
_inherited: list[dict[str, IOThread]] = []
_lock = Lock()


def submit(
    address: str,
    key: RequestKey,
    send: Callable[[blocking.Channel], list[Effect]],
    ended: Callable[[Resolve], None],
) -> IOThread:
    """Have the process's thread for a broker send a request; return the thread."""
    with _lock:
        thread = _threads.get(address)
        if thread is None:
            thread = _threads[address] = IOThread(address)
        thread.submit(key, send, ended)
    thread.give_way()
    return thread


def release(address: str) -> None:
    """End the thread for a broker if nothing waits on it; the next request starts another."""
    with _lock:
        thread = _threads.get(address)
        if thread is None or not thread.is_idle:
            return
        del _threads[address]
    thread.close()


def _forget(thread: IOThread) -> None:
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
