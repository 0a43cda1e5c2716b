"""Sockets: the only place that makes ZeroMQ contexts and sockets, and knows addresses."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import secrets
import select
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import zmq

from aserpc.errors import AddressError, MessageTooLargeError
from aserpc.messages import Buffer

#: The longest path of a unix socket, in bytes (108 in ``sockaddr_un`` with the closing NUL).
MAX_IPC_PATH = 107

#: The default limit of a message's size, in bytes.
MAX_MESSAGE_SIZE = 2 << 30

#: Frames from this size on are passed to and from ZeroMQ without a copy. Below it the bookkeeping
#: of a zero-copy frame costs more than copying.
ZERO_COPY_SIZE = 16384

#: How often libzmq's own thread asks a silent connection for a sign of life, ms. It answers
#: without Python, so a calculator that holds the GIL stays connected.
ZMTP_HEARTBEAT_INTERVAL = 1000

#: How long an attempt to connect may take, ms. In a cut network TCP waits twice as long before each
#: next packet, and would go on to for a minute or more once the network is back.
CONNECT_TIMEOUT = 5000

#: Name of the folder that is made for the sockets.
DEFAULT_FOLDER = ".aserpc"

#: Name of the file beside the sockets that says who serves them.
OWNER_FILE = "broker.json"

Socket: TypeAlias = "zmq.Socket[bytes]"
Context: TypeAlias = "zmq.Context[Socket]"


def ipc_path(address: str) -> Path | None:
    """Return the path of an ``ipc://`` address, None for another kind."""
    return Path(address.removeprefix("ipc://")) if address.startswith("ipc://") else None


def check_address(address: str, variable: str = "ASERPC_IPC_DIR") -> str:
    """Return `address` if a socket can use it.

    Parameters
    ----------
    address
        Of a socket.
    variable
        What says where the sockets are.

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
    if address.startswith("tcp://"):
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        if host and port.isdigit() and 0 < int(port) < 65536:
            return address
        msg = f"{address!r} is no tcp address; write tcp://HOST:PORT"
        raise AddressError(msg)
    msg = f"{address!r} is no address; write ipc:///path/to/socket or tcp://HOST:PORT"
    raise AddressError(msg)


def make_context(io_threads: int = 1) -> Context:
    """Make a ZeroMQ context."""
    context: Context = zmq.Context(io_threads)
    context.set(zmq.MAX_SOCKETS, min(65535, context.get(zmq.SOCKET_LIMIT)))
    return context


def _heartbeat(sock: Socket, timeout: float) -> None:
    # TTL is the peer's view of us; libzmq caps it at 6553.5 s.
    milliseconds = max(1, int(min(timeout * 1000, 6_553_000)))
    sock.set(zmq.HEARTBEAT_IVL, min(ZMTP_HEARTBEAT_INTERVAL, max(1, milliseconds // 2)))
    sock.set(zmq.HEARTBEAT_TIMEOUT, milliseconds)
    sock.set(zmq.HEARTBEAT_TTL, milliseconds)


def router(context: Context, timeout: float, high_water_mark: int) -> Socket:
    """Make a broker's ROUTER socket.

    Parameters
    ----------
    timeout
        Seconds after which a silent connection is closed.
    high_water_mark
        Messages that wait for one peer before a send says EAGAIN; 0: no limit.
    """
    sock = context.socket(zmq.ROUTER)
    # Without MANDATORY libzmq drops silently what a peer has no room for. HANDOVER lets a peer
    # that comes back take its routing id over from its dead connection.
    sock.set(zmq.ROUTER_MANDATORY, 1)
    sock.set(zmq.ROUTER_HANDOVER, 1)
    sock.set(zmq.SNDHWM, high_water_mark)
    sock.set(zmq.MAXMSGSIZE, MAX_MESSAGE_SIZE)
    _heartbeat(sock, timeout)
    return sock


def dealer(context: Context, address: str, timeout: float = 30.0) -> Socket:
    """Make a DEALER socket, with a random routing id of its own, connected to `address`.

    What is sent while there is no connection waits for the next broker. (libzmq's IMMEDIATE would
    refuse it, but also forget what a broker that goes has sent last and nobody has read yet.)

    Parameters
    ----------
    timeout
        Seconds after which a silent connection is closed and made anew.
    """
    check_address(address)
    sock = context.socket(zmq.DEALER)
    sock.set(zmq.ROUTING_ID, b"\x01" + secrets.token_bytes(16))  # a leading 0 is libzmq's own
    sock.set(zmq.LINGER, 0)
    sock.set(zmq.RECONNECT_IVL, 50)
    sock.set(zmq.RECONNECT_IVL_MAX, 1000)
    sock.set(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT)
    sock.set(zmq.MAXMSGSIZE, MAX_MESSAGE_SIZE)
    _heartbeat(sock, timeout)
    try:
        sock.connect(address)
    except zmq.ZMQError as error:
        sock.close()
        msg = f"cannot connect to {address}: {error.strerror}"
        raise AddressError(msg) from None
    return sock


def send(sock: Socket, frames: Sequence[Buffer]) -> None:
    """Send a message without waiting; ``zmq.Again`` and ``zmq.ZMQError`` as libzmq says."""
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        flags = zmq.NOBLOCK if index == last else zmq.NOBLOCK | zmq.SNDMORE
        sock.send(frame, flags, copy=len(frame) < ZERO_COPY_SIZE)


def receive(sock: Socket) -> list[Buffer]:
    """Return the frames of the next message; ``zmq.Again`` if there is none.

    A large frame is a view of the memory in which ZeroMQ received it.
    """
    frames: list[Buffer] = []
    while True:
        frame = sock.recv(zmq.NOBLOCK, copy=False)
        data = frame.buffer
        frames.append(data if len(data) >= ZERO_COPY_SIZE else bytes(data))
        if not frame.more:
            return frames


def milliseconds(seconds: float) -> int:
    """Return a time to poll: not less than `seconds`, which would poll again and again."""
    return math.ceil(max(0.0, min(seconds, 1e6)) * 1000)


def check_size(frames: Sequence[Buffer], limit: int = MAX_MESSAGE_SIZE) -> None:
    """Raise `MessageTooLargeError` if a message's frames pass the limit together.

    libzmq's own limit counts single frames, and drops what passes it without an error.
    """
    size = sum(len(frame) for frame in frames)
    if size > limit:
        msg = f"the message has {size / 2**20:.0f} MiB; the limit is {limit / 2**20:.0f} MiB"
        raise MessageTooLargeError(msg)


class Waker:
    """Wakes a thread that polls: from another thread, or from a signal handler."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reader.fileno()

    def signal_fd(self) -> int:
        """Return the descriptor for `signal.set_wakeup_fd`."""
        return self._writer.fileno()

    def wake(self) -> None:
        """Wake the thread; any number of times, from any thread, also after `close`."""
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until woken, or for so long."""
        select.select([self._reader], [], [], seconds)

    def clear(self) -> None:
        """Forget what has woken the thread."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def close(self) -> None:
        """Free the descriptors."""
        self._reader.close()
        self._writer.close()

    __del__ = close


@contextlib.contextmanager
def reserved(address: str) -> Iterator[None]:
    """Have an address for oneself for the time of the block; an ipc socket's folder is made.

    libzmq lets a second process bind an ipc path and steals it from the first, so a lock beside
    the socket decides who has it. The lock falls with its process: a dead broker's socket file is
    no obstacle. The block must outlive the socket, which removes its file when it is closed.

    Raises
    ------
    AddressError
        If the address is in use or cannot be used.
    """
    check_address(address)
    path = ipc_path(address)
    if path is None:
        yield
        return
    make_private_folder(path.parent)
    with _locked(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def bind(sock: Socket, address: str) -> str:
    """Bind a socket and return its address; raise `AddressError` where that can't be."""
    try:
        sock.bind(address)
    except zmq.ZMQError as error:
        hint = "another broker serves it" if error.errno == zmq.EADDRINUSE else error.strerror
        msg = f"cannot bind {address}: {hint}"
        raise AddressError(msg) from None
    return sock.get(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()


def make_private_folder(folder: Path) -> None:
    """Make the folder of the sockets if it is not there, and see that it is private."""
    try:
        if not folder.exists():
            folder.mkdir(parents=True, mode=0o700)
            folder.chmod(0o700)  # whatever the umask
        status = folder.stat()
    except OSError as error:
        msg = f"cannot make the folder of the sockets, {folder}: {error.strerror}"
        raise AddressError(msg) from None
    if not stat.S_ISDIR(status.st_mode):
        msg = f"the folder of the sockets, {folder}, is no folder"
        raise AddressError(msg)
    if folder.name == DEFAULT_FOLDER and status.st_uid == os.getuid():
        folder.chmod(0o700)  # one that aserpc 0.1 left, open to read
    elif status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        msg = (
            f"others can write to the folder of the sockets, {folder}; "
            f"make it private with: chmod 700 {folder}"
        )
        raise AddressError(msg)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock_path = path.with_name(path.name + ".lock")
    descriptor = _open_lock(lock_path)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                owner = read_owner(path.parent)
                by = f" (process {owner['pid']} on {owner['host']})" if owner else ""
                msg = (
                    f"another broker{by} already serves ipc://{path}. Use that one, stop it, or "
                    "give this one a folder of its own with ASERPC_IPC_DIR"
                )
                raise AddressError(msg) from None
            # A broker that ends removes the file; then the lock must be had on the new one.
            if lock_path.exists() and lock_path.stat().st_ino == os.fstat(descriptor).st_ino:
                break
            os.close(descriptor)
            descriptor = _open_lock(lock_path)
        yield
        lock_path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"cannot write to the folder of the sockets, {path.parent}: {error.strerror}"
        raise AddressError(msg) from None


def write_owner(folder: Path) -> None:
    """Note beside the sockets which process serves them, on which host."""
    owner = {"host": socket.gethostname(), "pid": os.getpid()}
    write_private(folder / OWNER_FILE, json.dumps(owner).encode())


def read_owner(folder: Path) -> dict[str, Any] | None:
    """Return the ``host`` and ``pid`` of the broker that serves, or served, from a folder."""
    try:
        owner = json.loads((folder / OWNER_FILE).read_bytes())
        return {"host": str(owner["host"]), "pid": int(owner["pid"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_private(path: Path, data: bytes) -> None:
    """Replace a file as a whole by one that only its owner can read."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


def where(address: str) -> str:
    """Say where a broker was looked for, with what its folder tells of it."""
    path = ipc_path(address)
    if path is None:
        return address
    owner = read_owner(path.parent)
    here = socket.gethostname()
    if owner and owner["host"] != here:
        return (
            f"{address} (its broker runs, or ran, on host {owner['host']}; this is {here}, and "
            "ipc sockets do not reach across hosts)"
        )
    return address
