"""Sockets: the only place that makes ZeroMQ contexts and sockets, and knows addresses."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import secrets
import select
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import zmq
from zmq.utils import z85

from aserpc import descriptors, tcp
from aserpc.errors import AddressError, MessageTooLargeError, TooManyFilesError
from aserpc.messages import Buffer

#: The longest path of a unix socket, in bytes (108 in ``sockaddr_un`` with the closing NUL).
MAX_IPC_PATH = 107

#: The default limit of a message's size, in bytes.
MAX_MESSAGE_SIZE = 2 << 30

#: Frames from these sizes on are received and sent without a copy. Below them its bookkeeping costs
#: more than copying: pyzmq wakes a thread of its own for each frame that was sent so.
RECEIVED_SIZE, SENT_SIZE = 1 << 14, 1 << 18

#: How often libzmq's own thread asks a worker's silent connection for a sign of life, ms. It
#: answers without Python, so a calculator that holds the GIL stays connected.
ZMTP_HEARTBEAT_INTERVAL = 1000

#: Messages of one client that libzmq reads for the broker before it takes them: no limit on what
#: all requests may take counts those. More make nothing faster.
READ_AHEAD = 100

#: The same of a worker's or manager's connection, at either end: more than they ever have to say.
#: libzmq 4.3 ends the process when a sign of life is due on a connection whose other end has gone
#: while messages of it wait beyond this (its issue 4841).
WORKER_READ_AHEAD = 100_000

#: How long an attempt to connect may take, ms. In a cut network TCP waits twice as long before each
#: next packet, and would go on to for a minute or more once the network is back.
CONNECT_TIMEOUT = 5000

#: As numbers: what zmq makes of its own flags takes longer than a small frame.
_LAST, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)

Socket: TypeAlias = "zmq.Socket[bytes]"
Context: TypeAlias = "zmq.Context[Socket]"


def ipc_path(address: str) -> Path | None:
    """Return the path of an ``ipc://`` address, None for another kind."""
    return Path(address.removeprefix("ipc://")) if address.startswith("ipc://") else None


class Guard(NamedTuple):
    """The broker's secret key, and what its authenticator calls the socket."""

    secret: bytes
    domain: str


class Curve(NamedTuple):
    """The keys by which a socket connects to a broker."""

    broker: bytes
    public: bytes
    secret: bytes


def check_address(address: str, variable: str = "ASERPC_IPC_DIR", *, binds: bool = False) -> str:
    """Return `address` if a socket can use it.

    Parameters
    ----------
    address
        Of a socket.
    variable
        What says where the sockets are.
    binds
        Whether a broker is to listen there; else one connects to it.

    Raises
    ------
    AddressError
        With what is wrong and what to do.
    """
    path = ipc_path(address)
    if path is not None:
        size = len(os.fsencode(path))
        if size > MAX_IPC_PATH:
            msg = (
                f"the path of the socket {path} has {size} bytes; unix sockets allow "
                f"{MAX_IPC_PATH}. Set {variable} to a folder with a shorter path"
            )
            raise AddressError(msg)
        if not str(path) or str(path) == ".":
            msg = f"{address!r} names no socket; write ipc:///path/to/socket"
            raise AddressError(msg)
        return address
    if address.startswith(tcp.SCHEME):
        tcp.check_tcp(address, binds=binds)
        return address
    msg = f"{address!r} is no address; write ipc:///path/to/socket or tcp://HOST:PORT"
    raise AddressError(msg)


def make_context(io_threads: int = 1) -> Context:
    """Make a ZeroMQ context; raise `TooManyFilesError` if there are no descriptors left for it."""
    descriptors.check_room()
    context: Context = zmq.Context(io_threads)
    context.set(zmq.MAX_SOCKETS, min(65535, context.get(zmq.SOCKET_LIMIT)))
    return context


@contextlib.contextmanager
def taking_descriptors() -> Iterator[None]:
    """Raise `TooManyFilesError` where libzmq says that there are no descriptors left."""
    try:
        yield
    except zmq.ZMQError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise TooManyFilesError(descriptors.too_many(error.errno)) from None


def _make_socket(context: Context, kind: int) -> Socket:
    with taking_descriptors():
        return context.socket(kind)


def seed_routing_ids() -> None:
    """Make the routing ids unpredictable that sockets made from now on give to peers.

    libzmq counts them up from ``rand()``, which it does not seed: every process would begin with
    the same number. Whoever foresees a routing id can claim it, and make libzmq abort.
    """
    make_context().destroy()  # in case that a later libzmq seeds, which it would do with its first
    ctypes.CDLL(None).srand(ctypes.c_uint(secrets.randbits(32)))


def _heartbeat(sock: Socket, timeout: float) -> None:
    # TTL is the peer's view of us; libzmq caps it at 6553.5 s.
    milliseconds = max(1, int(min(timeout * 1000, 6_553_000)))
    sock.set(zmq.HEARTBEAT_IVL, min(ZMTP_HEARTBEAT_INTERVAL, max(1, milliseconds // 2)))
    sock.set(zmq.HEARTBEAT_TIMEOUT, milliseconds)
    sock.set(zmq.HEARTBEAT_TTL, milliseconds)


def _keep_alive(sock: Socket, timeout: float) -> None:
    """Have the kernel close connections by tcp whose other host has gone."""
    seconds = max(1, min(int(timeout / 3), 3600))
    sock.set(zmq.TCP_KEEPALIVE, 1)
    sock.set(zmq.TCP_KEEPALIVE_IDLE, seconds)
    sock.set(zmq.TCP_KEEPALIVE_INTVL, seconds)
    sock.set(zmq.TCP_KEEPALIVE_CNT, 3)
    sock.set(zmq.TCP_MAXRT, max(1, int(min(timeout, 86400) * 1000)))


def router(
    context: Context,
    timeout: float,
    high_water_mark: int,
    *,
    handover: bool = False,
    guard: Guard | None = None,
) -> Socket:
    """Make a broker's ROUTER socket.

    Parameters
    ----------
    timeout
        Seconds after which a connection is closed whose other host, or with handover process, is
        silent.
    high_water_mark
        Messages that wait for one peer before a send says EAGAIN; 0: no limit.
    handover
        Whether a peer that comes back takes its routing id over from its dead connection: for those
        that choose one, workers and managers. Anybody who knows it can do so. They are also asked
        for signs of life.
    guard
        The socket's key; only those whom an authenticator admits can connect.
    """
    sock = _make_socket(context, zmq.ROUTER)
    # Without MANDATORY libzmq drops silently what a peer has no room for.
    sock.set(zmq.ROUTER_MANDATORY, 1)
    sock.set(zmq.ROUTER_HANDOVER, int(handover))
    if guard is not None:
        sock.set(zmq.CURVE_SERVER, 1)
        sock.set(zmq.CURVE_SECRETKEY, z85.encode(guard.secret))
        # With an enforced domain nobody gets in while no authenticator runs; without, everybody.
        sock.set(zmq.ZAP_DOMAIN, guard.domain.encode())
        sock.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
    sock.set(zmq.SNDHWM, high_water_mark)
    sock.set(zmq.MAXMSGSIZE, MAX_MESSAGE_SIZE)
    _keep_alive(sock, timeout)
    sock.set(zmq.RCVHWM, WORKER_READ_AHEAD if handover else READ_AHEAD)
    if handover:
        _heartbeat(sock, timeout)
    return sock


def dealer(
    context: Context, timeout: float = 30.0, curve: Curve | None = None, *, named: bool = True
) -> Socket:
    """Make a DEALER socket, to be connected by `connect`.

    What is sent while there is no connection waits for the next broker. (libzmq's IMMEDIATE would
    refuse it, but also forget what a broker that goes has sent last and nobody has read yet.)

    Parameters
    ----------
    timeout
        Seconds after which a connection is closed, and made anew, whose other host is silent.
    curve
        The keys, for a broker that demands them.
    named
        Whether the socket has a random routing id, by which the broker can speak first after a
        reconnection. Else each connection gets one from the broker's socket.
    """
    sock = _make_socket(context, zmq.DEALER)
    if named:
        sock.set(zmq.ROUTING_ID, b"\x01" + secrets.token_bytes(16))  # a leading 0 is libzmq's own
        sock.set(zmq.RCVHWM, WORKER_READ_AHEAD)
    if curve is not None:
        sock.set(zmq.CURVE_SERVERKEY, z85.encode(curve.broker))
        sock.set(zmq.CURVE_PUBLICKEY, z85.encode(curve.public))
        sock.set(zmq.CURVE_SECRETKEY, z85.encode(curve.secret))
    sock.set(zmq.LINGER, 0)
    sock.set(zmq.RECONNECT_IVL, 50)
    sock.set(zmq.RECONNECT_IVL_MAX, 1000)
    sock.set(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT)
    sock.set(zmq.MAXMSGSIZE, MAX_MESSAGE_SIZE)
    _keep_alive(sock, timeout)
    return sock


def connect(sock: Socket, address: str) -> None:
    """Connect a socket, anew if it was; raise `AddressError` if that can't be.

    The broker may come later.
    """
    check_address(address)
    endpoint = address
    if address.startswith(tcp.SCHEME):
        endpoint, ipv6 = tcp.to_connect(address)
        sock.set(zmq.IPV6, int(ipv6))
    with contextlib.suppress(zmq.ZMQError):  # a second connection to one address is none
        sock.disconnect(endpoint)
    try:
        sock.connect(endpoint)
    except zmq.ZMQError as error:
        msg = f"cannot connect to {address}: {error.strerror}"
        raise AddressError(msg) from None


def send(sock: Socket, frames: Sequence[Buffer]) -> None:
    """Send a message without waiting; ``zmq.Again`` and ``zmq.ZMQError`` as libzmq says."""
    for frame in frames[:-1]:
        sock.send(frame, _MORE, copy=len(frame) < SENT_SIZE)
    sock.send(frames[-1], _LAST, copy=len(frames[-1]) < SENT_SIZE)


def has_message(sock: Socket) -> bool:
    """Whether a message has come: faster than `receive` where none has."""
    events = sock.get(zmq.EVENTS)
    assert isinstance(events, int)
    return bool(events & _READABLE)


def receive(sock: Socket) -> list[Buffer]:
    """Return the frames of the next message; ``zmq.Again`` if there is none.

    A large frame is a view of the memory in which ZeroMQ received it.
    """
    return _receive(sock)[0]


def receive_with_user(sock: Socket) -> tuple[bytes, list[Buffer]]:
    """Return the public key of the peer that sent the next message, and its frames.

    The key is empty where the socket has none itself.
    """
    frames, last = _receive(sock)
    try:
        return z85.decode(str(last.get("User-Id"))), frames
    except (zmq.ZMQError, ValueError):  # it has none
        return b"", frames


def _receive(sock: Socket) -> tuple[list[Buffer], zmq.Frame]:
    frames: list[Buffer] = []
    while True:
        frame = sock.recv(_LAST, copy=False)
        frames.append(frame.bytes if len(frame) < RECEIVED_SIZE else frame.buffer)
        if not frame.more:
            return frames, frame


def milliseconds(seconds: float) -> int:
    """Return a time to poll: not less than `seconds`, which would poll again and again."""
    if seconds <= 0:
        return 0
    return math.ceil(min(seconds, 1e6) * 1000)


def check_size(frames: Sequence[Buffer], limit: int = MAX_MESSAGE_SIZE) -> None:
    """Raise `MessageTooLargeError` if a message's frames pass the limit together.

    libzmq's own limit counts single frames, and drops what passes it without an error.
    """
    size = sum(map(len, frames))
    if size > limit:
        msg = f"the message has {size / 2**20:.0f} MiB; the limit is {limit / 2**20:.0f} MiB"
        raise MessageTooLargeError(msg)


class Waker:
    """Wakes a thread that polls: from another thread, or from a signal handler."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._is_woken = False

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reader.fileno()

    def signal_fd(self) -> int:
        """Return the descriptor for `signal.set_wakeup_fd`."""
        return self._writer.fileno()

    def wake(self) -> None:
        """Wake the thread; any number of times, from any thread, also after `close`.

        What it is woken for must be there before: it looks after `clear`.
        """
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(OSError):
                self._writer.send(b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until woken, or for so long."""
        # Not select.select, which takes no descriptor beyond 1,023.
        waiting = select.poll()
        waiting.register(self._reader, select.POLLIN)
        waiting.poll(milliseconds(seconds))

    def clear(self) -> None:
        """Forget what has woken the thread."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        self._is_woken = False  # last: what was sent meanwhile is gone, too

    def close(self) -> None:
        """Free the descriptors."""
        self._reader.close()
        self._writer.close()

    __del__ = close


def bind(sock: Socket, address: str) -> str:
    """Bind a socket and return its address; raise `AddressError` where that can't be."""
    endpoint = address
    if address.startswith(tcp.SCHEME):
        endpoint, ipv6 = tcp.to_bind(address)
        sock.set(zmq.IPV6, int(ipv6))
    try:
        sock.bind(endpoint)
    except zmq.ZMQError as error:
        hint = error.strerror
        if address.startswith(tcp.SCHEME):
            hint = tcp.why_not_bound(address, error.errno or 0, hint)
        msg = f"cannot bind {address}: {hint}"
        raise AddressError(msg) from None
    bound = sock.get(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return bound.rstrip(b"\0").decode()
