"""Calls that wait in the calling thread, on sockets of one pool a process."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TypeVar

import zmq

from aserpc import socket_folder, transport
from aserpc.client.state import ClientState, Effect, News, Resolve, Send
from aserpc.connection import Connection
from aserpc.errors import (
    BrokerSilentError,
    BrokerUnreachableError,
    NotAllowedError,
    ProtocolError,
    SettingsError,
)
from aserpc.header import pack_header, unpack_header
from aserpc.messages import (
    TO_CLIENT,
    Buffer,
    Message,
    Ping,
    Pong,
    Refuse,
    Reject,
    Request,
    RequestKey,
)
from aserpc.security.credentials import find_credentials
from aserpc.settings import Settings, load_settings

logger = logging.getLogger(__name__)

#: How long a new calculator or client looks for its broker, s.
CHECK_TIMEOUT = 2.0

#: How often it is logged how a request that waits gets on, s.
NEWS_INTERVAL = 10.0

#: How long the last word of a socket may take to leave, ms: no time where a broker is there.
LINGER = 100

#: Sockets to one broker that are kept for the next call.
MAX_IDLE = 3

M = TypeVar("M", bound=Message)

#: Of the pings whose answers are told from those of others.
_numbers = itertools.count(1)


class Channel:
    """A socket to a broker with the requests that wait on it; one thread's at a time.

    Its routing id is the broker's choice, so that nobody else can claim it: a client whose
    connection was made anew is found again by the requests that it asks about.
    """

    def __init__(self, context: transport.Context, address: str, role: str = "client") -> None:
        self.address = address
        self.role = role
        self.state = ClientState(address, _numbers)
        self._context = context
        self._news: dict[RequestKey, tuple[str, float]] = {}
        self._connect()

    def _connect(self) -> None:
        credentials = find_credentials(self.address, self.role)
        self._connection = Connection(
            self._context, self.address, self.role, credentials, _silence(), named=False
        )
        self.socket = self._connection.socket
        self._poller = zmq.Poller()
        for readable in self.readable():
            self._poller.register(readable, zmq.POLLIN)
        #: Whether room to send is polled for.
        self._wants_room = False
        self._unsent: deque[list[Buffer]] = deque()
        #: True from the first to the last frame of a message, also if it was interrupted there.
        self._sending = False
        #: Whether what nobody has taken may still wait in the socket for the next broker.
        self._stale = False

    def renew(self) -> bool:
        """Make the socket anew if what nobody waits for any more may lie in it; say if it was."""
        if not self._stale or self.state.pending:
            return False
        self._connection.close()
        self._connect()
        return True

    def close(self) -> None:
        """Close the socket, after a last word if the broker keeps answers that have arrived."""
        last = self.state.close() if self.is_clean() else []
        self.perform(last)
        self._connection.close(LINGER if last else 0)

    def readable(self) -> list[transport.Socket]:
        """Return what to poll; `receive` takes what has come."""
        return [self.socket, *self._connection.readable()]

    def call(
        self, request: Request, payload: list[Buffer], timeout: float, deadline: float | None
    ) -> Resolve:
        """Send a request and wait for its end; an exception in between cancels it."""
        state, clock = self.state, time.monotonic
        try:
            resolved = self.perform(state.submit(request, payload, clock(), timeout, deadline))
            while not resolved:
                due = state.next_tick()
                self.wait(None if due is None else due - clock())
                resolved = self.receive() or self.perform(state.tick(clock()))
        except BaseException:
            if not self._sending:
                self.perform(state.cancel(request.key))
            raise
        finally:
            self._news.clear()
        (end,) = resolved
        return end

    def exchange(self, message: Message, expected: type[M], timeout: float) -> M:
        """Send a question and wait for the broker's own answer.

        Raises
        ------
        BrokerUnreachableError
            If none comes in `timeout` seconds.
        NotAllowedError
            If the broker refuses it.
        """
        ends_at = time.monotonic() + timeout
        number = getattr(message, "id", None)
        self._push([pack_header(message)])
        while (left := ends_at - time.monotonic()) > 0:
            self.wait(left)
            if (refused := self._connection.refused()) is not None:
                self._stale = True
                raise refused
            for reply, _ in self._messages():
                if isinstance(reply, Refuse):
                    msg = f"the broker at {self.address} refuses it: {reply.reason}"
                    raise NotAllowedError(msg)
                if isinstance(reply, Reject):
                    msg = f"the broker at {self.address} answered: {reply.reason}"
                    raise ProtocolError(msg)
                if isinstance(reply, expected) and number == getattr(reply, "id", None):
                    return reply
        self._stale = True
        msg = (
            f"Broker not reachable at {socket_folder.where(self.address)}: no answer within "
            f"{timeout:g} s. {self._connection.trouble() or 'Start one with: aserpc broker'}"
        )
        raise BrokerUnreachableError(msg)

    def wait(self, seconds: float | None) -> None:
        """Wait until there is something to receive, or room for what is unsent."""
        if self._wants_room != bool(self._unsent):
            self._wants_room = not self._wants_room
            self._poller.modify(self.socket, self.events())
        self._poller.poll(None if seconds is None else transport.milliseconds(seconds))
        if self._unsent:
            self.flush()

    def events(self) -> int:
        """Return the events to poll the socket for."""
        return zmq.POLLIN | zmq.POLLOUT if self._unsent else zmq.POLLIN

    def receive(self) -> list[Resolve]:
        """Take what has come, as long as a request waits for something."""
        resolved: list[Resolve] = []
        if (refused := self._connection.refused()) is not None:
            resolved += self.perform(self.state.refuse(refused))
        for message, payload in self._messages():
            resolved += self.perform(self.state.receive(message, payload, time.monotonic()))
            if not self.state.pending:
                break
        return resolved

    def perform(self, effects: list[Effect]) -> list[Resolve]:
        """Do what the state decided, and return which requests have come to their end."""
        resolved = []
        for effect in effects:
            if isinstance(effect, Send):
                self._connection.renew()
                self._push([pack_header(effect.message), *effect.payload])
            elif isinstance(effect, News):
                self._tell(effect)
            else:
                if isinstance(effect.error, BrokerSilentError):
                    self._stale = True
                    trouble = self._connection.trouble()
                    if trouble:
                        effect.error = BrokerSilentError(f"{effect.error}. {trouble}")
                resolved.append(effect)
        return resolved

    def _tell(self, news: News) -> None:
        state, told_at = self._news.get(news.key, ("", 0.0))
        now = time.monotonic()
        if news.state != state or now >= told_at + NEWS_INTERVAL:
            self._news[news.key] = news.state, now
            # What a request in the queue waits for says more than that it is there.
            state = "" if news.state == "queued" and news.text else f"{news.state}, "
            logger.info("%s: %s%s", news.calculator, state, news.text)

    def _messages(self) -> Iterator[tuple[Message, list[Buffer]]]:
        while True:
            try:
                frames = transport.receive(self.socket)
            except zmq.Again:
                return
            try:
                yield unpack_header(frames[0], TO_CLIENT), frames[1:]
            except ProtocolError as error:
                logger.warning("the broker at %s sent what is no message: %s", self.address, error)

    def _push(self, frames: list[Buffer]) -> None:
        self._unsent.append(frames)
        self.flush()

    def flush(self) -> None:
        """Send what is unsent, as far as there is room."""
        while self._unsent:
            self._sending = True
            try:
                transport.send(self.socket, self._unsent[0])
            except zmq.Again:
                self._sending = False
                return
            self._sending = False
            self._unsent.popleft()

    def is_clean(self) -> bool:
        """Whether nothing of the last call is left that would disturb the next."""
        return not (self._stale or self._unsent or self._sending or self.state.pending)


def _silence() -> float:
    """Return after how long a silence a connection is made anew, s."""
    try:
        return load_settings().worker_timeout
    except SettingsError:
        # They were right when the calculator was made; the folder may have been removed since.
        return Settings.worker_timeout


class Pool:
    """The process's ZeroMQ context and its idle sockets, by address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: transport.Context | None = None
        self._idle: dict[tuple[str, str], list[Channel]] = {}
        self._lent = 0

    def channel(self, address: str, role: str = "client") -> Channel:
        """Take an idle socket, or make one; `role` says whose key it takes."""
        with self._lock:
            idle = self._idle.get((address, role))
            if not idle and self._context is None:
                self._context = transport.make_context()
            self._lent += 1
            if idle:
                return idle.pop()
            context = self._context
            assert context is not None
        try:
            return Channel(context, address, role)  # not with the lock: a name may be looked up
        except BaseException:
            with self._lock:
                self._lent -= 1
            raise

    def put_back(self, channel: Channel) -> None:
        """Keep a socket for the next call, or close it if there are enough."""
        with self._lock:
            self._lent -= 1
            idle = self._idle.setdefault((channel.address, channel.role), [])
            if len(idle) < MAX_IDLE and channel.is_clean():
                idle.append(channel)
                return
        channel.close()

    def close(self) -> None:
        """Close the idle sockets, and end the context unless a thread still waits on one."""
        with self._lock:
            context = None if self._lent else self._context
            self._context = self._context if self._lent else None
            idle, self._idle = self._idle, {}
        for channels in idle.values():
            for channel in channels:
                channel.close()
        if context is not None:
            context.destroy(linger=0)


_pool = Pool()
#: Pools of parent processes: libzmq's sockets don't survive a fork, and must not be closed there.
_inherited: list[Pool] = []


def pool() -> Pool:
    """Return this process's pool."""
    return _pool


def _renew() -> None:
    global _pool
    _inherited.append(_pool)
    _pool = Pool()


os.register_at_fork(after_in_child=_renew)


class borrowed:  # noqa: N801 -- a context manager, which a generator would make a slow one
    """Borrow a socket to a broker for the time of the block."""

    __slots__ = ("_channel", "_pool")

    def __init__(self, address: str, role: str = "client") -> None:
        self._pool = _pool
        self._channel = _pool.channel(address, role)

    def __enter__(self) -> Channel:
        return self._channel

    def __exit__(self, *exc_info: object) -> None:
        self._pool.put_back(self._channel)


def check_broker(address: str, timeout: float) -> None:
    """Raise `BrokerUnreachableError` if no broker answers within `timeout` seconds."""
    with borrowed(address) as channel:
        channel.exchange(Ping(id=next(_numbers)), Pong, timeout)


@atexit.register
def _close() -> None:
    _pool.close()
