"""The floor: sockets that move the same bytes as a request and its answer, and do nothing else.

``python -m benchmarks.floor broker FRONTEND BACKEND`` and ``... worker BACKEND`` are its other
processes. Small messages are copied and large ones are not, which is the fastest for each. With
``share`` and ``sleeper`` in their places, there are several workers, which sleep.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import zmq

from aserpc.header import pack_header
from aserpc.messages import Answer, Request
from aserpc.payload import pack_atoms, pack_results
from benchmarks.calculators import SLEEP
from benchmarks.tasks import count_calls, structure
from benchmarks.timing import Roles, measure

#: First frame of what a worker shall answer from now on.
ANSWER = b"answer"
#: Messages above this many bytes are not copied.
COPIED = 1 << 18

#: What a worker's description of itself holds.
ABOUT = {
    "factory": "benchmarks.calculators:Null",
    "args": [],
    "kwargs": {},
    "versions": {"aserpc": "0.2.0", "ase": "3.29.0", "numpy": "2.4.6", "benchmarks": ""},
    "implemented_properties": ["energy", "forces", "stress"],
    "python": "3.11.7",
    "host": "some-host",
    "pid": 12345,
}


def broker(frontend: str, backend: str) -> None:
    """Pass messages on, to the worker that said hello and to the client that asked."""
    front, back, poller = _doors(frontend, backend)
    worker = b""
    copy = True
    while True:
        ready = dict(poller.poll())
        if back in ready:
            if copy:
                frames: list[Any] = back.recv_multipart()
                peer = frames.pop(0)
                if frames == [b"hello"]:
                    worker = peer
                    continue
            else:
                frames = back.recv_multipart(copy=False)[1:]
            front.send_multipart(frames, copy=copy)
        if front in ready:
            frames = front.recv_multipart(copy=copy)
            if copy and frames[1] == ANSWER:
                size = sum(map(len, frames))
            elif not copy and frames[1].bytes == ANSWER:
                size = sum(len(frame) for frame in frames)
            else:
                size = -1
            back.send_multipart([worker, *frames], copy=copy)
            if size >= 0:
                copy = size < COPIED


def worker(backend: str) -> None:
    """Answer whatever comes, with what was said to be the answer."""
    context: zmq.Context[Any] = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.connect(backend)
    sock.send(b"hello")
    answer: list[bytes] = []
    copy = True
    while True:
        if copy:
            frames: list[Any] = sock.recv_multipart()
            peer, what = frames[0], frames[1]
        else:
            frames = sock.recv_multipart(copy=False)
            peer, what = frames[0].bytes, frames[1].bytes
        if what == ANSWER:
            answer = [bytes(frame) for frame in frames[2:]]
            copy = sum(map(len, answer)) < COPIED
            sock.send_multipart([peer, b"taken"])
        else:
            sock.send_multipart([peer, *answer], copy=copy)


def share(frontend: str, backend: str) -> None:
    """Pass messages on, to the worker that waits longest and to the client that asked."""
    front, back, poller = _doors(frontend, backend)
    workers: deque[bytes] = deque()
    requests: deque[list[bytes]] = deque()
    while True:
        ready = dict(poller.poll())
        if back in ready:
            worker, *answer = back.recv_multipart()
            workers.append(worker)
            if answer != [b"hello"]:
                front.send_multipart(answer)
        if front in ready:
            requests.append(front.recv_multipart())
        while workers and requests:
            back.send_multipart([workers.popleft(), *requests.popleft()])


def sleeper(backend: str) -> None:
    """Answer whatever comes after a while."""
    context: zmq.Context[Any] = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.connect(backend)
    sock.send(b"hello")
    _, answer = _messages("sleep", 8)
    while True:
        peer = sock.recv_multipart()[0]
        time.sleep(SLEEP)
        sock.send_multipart([peer, *answer])


def _doors(frontend: str, backend: str) -> tuple[Any, Any, zmq.Poller]:
    """Return sockets for clients and workers, and what polls both."""
    context: zmq.Context[Any] = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    front.bind(frontend)
    back.bind(backend)
    poller = zmq.Poller()
    poller.register(front, zmq.POLLIN)
    poller.register(back, zmq.POLLIN)
    return front, back, poller


class FloorTasks:
    """The client of bare sockets."""

    def __init__(self, address: str) -> None:
        context: zmq.Context[Any] = zmq.Context()
        self._socket = context.socket(zmq.DEALER)
        self._socket.connect(address)

    def ready(self) -> dict[str, Any]:
        """Wait until broker and worker are there."""
        for _ in range(40):
            self._socket.send_multipart([ANSWER, b""])
            if self._socket.poll(500):
                break
        while self._socket.poll(500):  # the broker drops what comes before the worker, or not
            self._socket.recv_multipart()
        return {}

    def forces(self, name: str, atoms: int, calls: int, roles: Roles) -> dict[str, Any]:
        """Measure messages of the sizes that ours have."""
        request, answer = _messages(name, atoms)
        self._set_answer(answer)
        sock, copy = self._socket, sum(map(len, answer)) < COPIED

        def call() -> None:
            sock.send_multipart(request, copy=copy)
            sock.recv_multipart(copy=copy)

        return measure(call, calls, 5, roles)

    def window(self, name: str, atoms: int, start_at: float, seconds: float) -> dict[str, Any]:
        """Count calls as `Tasks.window` does."""
        request, _ = _messages(name, atoms)

        def call() -> None:
            self._socket.send_multipart(request)
            self._socket.recv_multipart()

        return {"count": count_calls(call, start_at, seconds)}

    def _set_answer(self, answer: list[bytes]) -> None:
        self._socket.send_multipart([ANSWER, *answer])
        if not self._socket.poll(20_000) or self._socket.recv_multipart() != [b"taken"]:
            raise TimeoutError("the floor's broker or worker is not there")


def _messages(name: str, atoms: int) -> tuple[list[bytes], list[bytes]]:
    """Return the frames of a request and of its answer, as ours are."""
    session = bytes(range(16))
    request = Request(session, 1000, name, properties=["forces"])
    results, _ = pack_results(
        {"energy": 0.0, "forces": np.zeros((atoms, 3)), "stress": np.zeros(6)}
    )
    answer = Answer(session, 1000, seconds=1e-5, about=msgpack.packb(ABOUT))
    frames = pack_atoms(structure(atoms)).owned().frames()
    return (
        [pack_header(request), *map(bytes, frames)],
        [pack_header(answer), *map(bytes, results)],
    )


if __name__ == "__main__":
    roles: dict[str, Callable[..., None]] = {
        "broker": broker,
        "worker": worker,
        "share": share,
        "sleeper": sleeper,
    }
    roles[sys.argv[1]](*sys.argv[2:])
