"""Peers that speak to a broker by hand, also what no aserpc of ours would say."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

import msgpack
import zmq

from aserpc import transport
from aserpc.header import pack_header, unpack_header
from aserpc.messages import (
    FROM_CLIENT,
    IDENTITY_SIZE,
    TO_CLIENT,
    TO_WORKER,
    Answer,
    Buffer,
    Message,
    Ping,
    Pong,
    Ready,
    Request,
    Welcome,
)
from support.waiting import SOON

M = TypeVar("M", bound=Message)

#: How `Ready.about` is, at the least.
ABOUT: bytes = msgpack.packb({"factory": "by hand", "implemented_properties": ["energy"]})


class Peer:
    """A DEALER socket under a test's hand."""

    EXPECTED: tuple[type[Message], ...] = ()

    def __init__(
        self,
        address: str,
        receive_limit: int | None = None,
        *,
        curve: transport.Curve | None = None,
        routing_id: bytes | None = None,
    ) -> None:
        self._context: transport.Context = zmq.Context()
        self.socket = transport.dealer(self._context, curve=curve)
        self.socket.set(zmq.ROUTING_ID, routing_id or b"\x02" + secrets.token_bytes(8))
        if receive_limit is not None:
            self.socket.set(zmq.RCVHWM, receive_limit)
            self.socket.set(zmq.RCVBUF, 4096)
        self.socket.connect(address)

    def send(self, message: Message, payload: Sequence[Buffer] = ()) -> None:
        """Send a message."""
        self.send_frames([pack_header(message), *payload])

    def send_frames(self, frames: Sequence[Buffer]) -> None:
        """Send any frames."""
        self.socket.set(zmq.SNDTIMEO, int(SOON * 1000))
        self.socket.send_multipart(frames)

    def receive_frames(self, timeout: float = SOON) -> list[bytes]:
        """Return the frames of the next message."""
        assert self.socket.poll(int(timeout * 1000)), f"nothing came within {timeout:g} s"
        return self.socket.recv_multipart()

    def receive(self, kind: type[M], timeout: float = SOON) -> M:
        """Return the next message of a kind; others are left out."""
        while True:
            message = unpack_header(self.receive_frames(timeout)[0], self.EXPECTED)
            if isinstance(message, kind):
                return message

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


P = TypeVar("P", bound=Peer)


class FakeClient(Peer):
    """A client by hand."""

    EXPECTED = TO_CLIENT

    def __init__(
        self,
        address: str,
        receive_limit: int | None = None,
        *,
        curve: transport.Curve | None = None,
        routing_id: bytes | None = None,
    ) -> None:
        super().__init__(address, receive_limit, curve=curve, routing_id=routing_id)
        self.session = secrets.token_bytes(IDENTITY_SIZE)
        self._number = 0

    def ask(self, calculator: str, payload: Sequence[Buffer] = (), op: str = "calculate") -> int:
        """Send a request and return its number."""
        self._number += 1
        self.send(Request(self.session, self._number, calculator, op, ["energy"]), payload)
        return self._number

    def ping(self, timeout: float = SOON) -> Pong:
        """Ask whether the broker is there."""
        self.send(Ping())
        return self.receive(Pong, timeout)


class FakeWorker(Peer):
    """A worker by hand."""

    EXPECTED = TO_WORKER

    def ready(self, calculator: str, capacity: int = 1) -> None:
        """Register, and wait until the broker knows."""
        self.send(Ready(calculator, {"pid": 1, "host": "nowhere"}, ABOUT, capacity))
        self.receive(Welcome)

    def answer(self, request: Request, payload: Sequence[Buffer] = ()) -> None:
        """Answer a request."""
        self.send(Answer(request.session, request.id, about=ABOUT), payload)


class FakeBroker:
    """A broker by hand, in a thread: answers each message as a function says.

    Parameters
    ----------
    address
        Where it serves clients.
    reply
        Called with each message; returns those to send back.
    """

    def __init__(self, address: str, reply: Callable[[Message], list[Message]]) -> None:
        self.address = address
        self.reply = reply
        #: What clients have sent.
        self.received: list[Message] = []
        self._stop = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fake broker", daemon=True)
        self._thread.start()
        assert self._bound.wait(SOON)

    def requests(self) -> list[Request]:
        """Return the requests that have come."""
        return [message for message in self.received if isinstance(message, Request)]

    def close(self) -> None:
        """Vanish without a word."""
        self._stop.set()
        self._thread.join(SOON)

    def _serve(self) -> None:
        context: transport.Context = zmq.Context()
        sock = transport.router(context, 30.0, 1000)
        sock.bind(self.address)
        self._bound.set()
        while not self._stop.is_set():
            if not sock.poll(10):
                continue
            peer, header, *_ = sock.recv_multipart()
            message = unpack_header(header, FROM_CLIENT)
            self.received.append(message)
            for answer in self.reply(message):
                sock.send_multipart([peer, pack_header(answer)])
        context.destroy(linger=1000)
