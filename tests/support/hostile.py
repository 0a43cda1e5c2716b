"""Peers that send what they like, on connections of libzmq's and on bare ones."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgpack
import zmq

from aserpc import transport
from aserpc.header import pack_header
from aserpc.messages import (
    FROM_CLIENT,
    FROM_WORKER,
    PROTOCOL_VERSION,
    TO_CLIENT,
    TO_MANAGER,
    TO_WORKER,
    Buffer,
    Message,
)
from state.any_messages import any_message
from support.choices import Choices
from support.waiting import SOON

Side = tuple[type[Message], ...]
SIDES: tuple[Side, ...] = (FROM_CLIENT, TO_CLIENT, FROM_WORKER, TO_WORKER, TO_MANAGER)


def bomb(levels: int = 1000, claimed: int = 1 << 20, items: int = 100_000) -> bytes:
    """Return lists in lists that claim to be long."""
    return (b"\xdd" + struct.pack(">I", claimed)) * levels + b"\xc0" * items


def any_frames(choose: Choices, side: Side, never: Sequence[type[Message]] = ()) -> list[Buffer]:
    """Return frames of some message, or of none, to a peer that listens to a side.

    Parameters
    ----------
    never
        Messages that are not sent as they should be: their receiver rightly does what they say.
    """
    kinds: list[Callable[[], bytes]] = [
        lambda: choose.take(choose.number(60)),
        lambda: _header(choose, side, never),
        lambda: _header(choose, side, never),
        lambda: _header(choose, side, never),
        lambda: _header(choose, choose.one_of(SIDES), (*never, *side)),
        lambda: _packed(choose.number(256), choose.word(), choose.value()),
        lambda: _header(choose, side, never)[: choose.number(40)],
        lambda: _spoilt(choose, _header(choose, side, never)),
        lambda: _packed(PROTOCOL_VERSION, choose.one_of(side).KIND.lower(), choose.value()),
        lambda: b"\x93\x01\xa5HELLO" + bomb(choose.number(256), 1 << choose.number(32), 1000),
        lambda: b"",
    ]
    header = choose.one_of(kinds)()
    payloads: list[Callable[[], bytes]] = [
        lambda: choose.take(choose.number(60)),
        lambda: bytes(4) + bomb(items=1000),
        lambda: choose.number(4).to_bytes(4, "little") + _packed(choose.value()),
        lambda: b"",
    ]
    return [header, *(choose.one_of(payloads)() for _ in range(choose.number(4)))]


def _packed(*values: object) -> bytes:
    try:
        packed: bytes = msgpack.packb(list(values))
    except (ValueError, OverflowError):
        return b"\xc1"
    return packed


def _header(choose: Choices, side: Side, never: Sequence[type[Message]]) -> bytes:
    message = any_message(choose, side)
    return b"\x90" if message is None or type(message) in never else pack_header(message)


def _spoilt(choose: Choices, header: bytes) -> bytes:
    spoilt = bytearray(header)
    # Not the kind: it might become another one.
    for _ in range(1 + choose.number(3)):
        spoilt[len(spoilt) * choose.number(256) // 256] = choose.number(256)
    return bytes(spoilt)


class HostileBroker:
    """A ROUTER under a test's hand; everybody who connects is known by a routing id."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._context: transport.Context = zmq.Context()
        self.socket = transport.router(self._context, 30.0, 0, handover=True)
        self.socket.bind(address)

    def send(self, peer: bytes, *frames: Buffer) -> None:
        """Send frames to a peer."""
        self.socket.send_multipart([peer, *frames])

    def receive(self, timeout: float = SOON) -> tuple[bytes, list[bytes]]:
        """Return who sent the next message, and its frames."""
        assert self.socket.poll(int(timeout * 1000)), f"nothing came within {timeout:g} s"
        peer, *frames = self.socket.recv_multipart()
        return peer, frames

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)


class Bare:
    """A unix socket that speaks ZMTP, the protocol of libzmq, well or badly."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SOON)
        self._socket.connect(str(path))

    def send(self, data: bytes) -> None:
        """Send bytes, unless the other side has closed the connection."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def greet(self, mechanism: bytes = b"NULL", version: bytes = b"\x03\x01") -> None:
        """Send and take a greeting."""
        signature = b"\xff" + bytes(8) + b"\x7f"
        self.send(signature + version + mechanism.ljust(20, b"\0") + bytes(32))
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            self._socket.recv(64)

    def ready(self, kind: bytes = b"DEALER", identity: bytes | None = None) -> None:
        """Send the READY of a socket."""
        identity = b"\x03" + secrets.token_bytes(8) if identity is None else identity
        body = b"\x05READY"
        for name, value in ((b"Socket-Type", kind), (b"Identity", identity)):
            body += bytes([len(name)]) + name + struct.pack(">I", len(value)) + value
        self.command(body)

    def command(self, body: bytes, size: int | None = None) -> None:
        """Send a command."""
        self.send(b"\x06" + struct.pack(">Q", len(body) if size is None else size) + body)

    def frame(self, data: bytes, *, more: bool = False, size: int | None = None) -> None:
        """Send a frame, which may claim another size."""
        claimed = struct.pack(">Q", len(data) if size is None else size)
        self.send(bytes([2 | more]) + claimed + data)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def memory(pid: int, of: str = "VmHWM") -> int:
    """Return how much memory a process has, or has had at most, in bytes."""
    with Path(f"/proc/{pid}/status").open() as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(f"{of}:"))


def attacks() -> Iterator[tuple[str, Callable[[Bare], None]]]:
    """Yield what can be wrong below the messages, by name."""
    yield "noise", lambda bare: bare.send(os.urandom(5000))
    yield "http", lambda bare: bare.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    yield "half a greeting", lambda bare: bare.send(b"\xff" + bytes(5))
    yield "an old version", lambda bare: bare.send(b"\x01\x00\x02\x00x")
    yield "another mechanism", lambda bare: bare.greet(b"PLAIN")
    yield "no mechanism", lambda bare: bare.greet(b"\xff" * 20)
    for kind in (b"REQ", b"PUB", b"ROUTER", b"nonsense", b""):
        yield f"a socket of type {kind!r}", partial(_framed, kind)
    for size in (1 << 29, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, 1 << 62, 1 << 63, (1 << 64) - 1):
        yield f"a frame that claims {size}", partial(_claims, size)
        yield f"a command that claims {size}", partial(_commands, size)
    for body in (
        b"",
        b"\xff",
        b"\x04PING",
        b"\x04PING\0\1" + b"c" * 300,
        b"\x05ERROR\xff",
        b"\x05READY",
    ):
        yield f"the command {body[:12]!r}", partial(_says, body)
    for identity in (b"", b"\0", b"\0abcd", b"x" * 255, b"x" * 256, b"x" * 70_000):
        yield f"a name of {len(identity)}", partial(_named, identity)
    yield "a message without end", _endless


def _framed(kind: bytes, bare: Bare) -> None:
    bare.greet()
    bare.ready(kind)
    bare.frame(b"x")


def _claims(size: int, bare: Bare) -> None:
    bare.greet()
    bare.ready()
    bare.frame(b"x" * 100, size=size)


def _commands(size: int, bare: Bare) -> None:
    bare.greet()
    bare.command(b"\x05READY", size=size)


def _says(body: bytes, bare: Bare) -> None:
    bare.greet()
    bare.ready()
    bare.command(body)
    bare.frame(b"x")


def _named(identity: bytes, bare: Bare) -> None:
    bare.greet()
    bare.ready(identity=identity)
    bare.frame(b"x")


def _endless(bare: Bare) -> None:
    bare.greet()
    bare.ready()
    for _ in range(50):
        bare.frame(bytes(1 << 20), more=True)
    for _ in range(10_000):
        bare.frame(b"x", more=True)
