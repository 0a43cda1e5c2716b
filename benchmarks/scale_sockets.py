"""What a message costs a broker's process that has many workers and a long queue."""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from functools import partial
from typing import Any

import zmq

from aserpc import transport
from aserpc.header import pack_header, unpack_header
from aserpc.messages import (
    TO_CLIENT,
    TO_WORKER,
    Answer,
    Buffer,
    Message,
    Request,
    Status,
    StatusRequest,
    Welcome,
)
from benchmarks import contenders
from benchmarks.processes import Bench, BenchmarkError
from benchmarks.report import Report
from benchmarks.scale import made_payload, made_request, ready, sizes
from benchmarks.timing import interleave, measure, memory_of, seconds_of

#: How long a message may take, ms.
PATIENCE = 60_000


class Crowd:
    """A broker's process with made-up workers, all busy, and a client whose requests wait."""

    def __init__(self, bench: Bench, ends: ExitStack, workers: int, queued: int) -> None:
        service = contenders.ours(bench, {})
        self.roles = {"broker": service.roles["broker"]}
        self._context = transport.make_context()
        ends.callback(self._context.destroy, linger=0)
        self._payload = made_payload()
        self._number = 0
        self._client = self._connect(service.address)
        self._workers: deque[tuple[transport.Socket, Request]] = deque()
        sockets = [self._connect(service.backend) for _ in range(workers)]
        for sock in sockets:
            transport.send(sock, [pack_header(ready())])
        for sock in sockets:
            _receive(sock, TO_WORKER, Welcome)
        for _ in range(workers):
            self._ask()
        for sock in sockets:
            self._workers.append((sock, _receive(sock, TO_WORKER, Request)))
        before = memory_of(self.roles["broker"][0])
        for _ in range(queued):
            self._ask()
        self._send([pack_header(StatusRequest(1))])
        _receive(self._client, TO_CLIENT, Status)
        #: Bytes of a queued request.
        self.memory = (memory_of(self.roles["broker"][0]) - before) / queued

    def measure(self, cycles: int) -> dict[str, Any]:
        """Measure cycles: an answer, the next request to its worker, another request."""
        return measure(self._cycle, cycles, 5, self.roles)

    def _cycle(self) -> None:
        sock, request = self._workers.popleft()
        answer = Answer(request.session, request.id)
        transport.send(sock, [pack_header(answer)])
        _receive(self._client, TO_CLIENT, Answer)
        self._workers.append((sock, _receive(sock, TO_WORKER, Request)))
        self._ask()

    def _ask(self) -> None:
        self._number += 1
        self._send([pack_header(made_request(self._number)), *self._payload])

    def _send(self, frames: list[Buffer]) -> None:
        """Send as the client, when there is room."""
        if not self._client.poll(PATIENCE, zmq.POLLOUT):
            raise BenchmarkError("the broker does not read")
        transport.send(self._client, frames)

    def _connect(self, address: str) -> transport.Socket:
        sock = self._context.socket(zmq.DEALER)
        sock.connect(address)
        return sock


def _receive(sock: transport.Socket, expected: tuple[type[Message], ...], wanted: Any) -> Any:
    """Return the next message of a kind."""
    while sock.poll(PATIENCE):
        message = unpack_header(transport.receive(sock)[0], expected)
        if isinstance(message, wanted):
            return message
    raise BenchmarkError("the broker does not answer")


def run(bench: Bench, report: Report) -> None:
    """Measure a cycle's time and processor time, and a queued request's memory."""
    with ExitStack() as ends:
        crowds = {size: Crowd(bench, ends, *size) for size in sizes(bench)}
        cycles = 200 if bench.quick else 1000
        rounds = interleave(
            bench.rounds,
            {str(size): partial(crowd.measure, cycles) for size, crowd in crowds.items()},
        )
    names = {size: f"{size[0]} workers, {size[1]} queued" for size in crowds}
    seconds = seconds_of(rounds)
    busy = {
        key: [each["cpu"].get("broker", float("nan")) for each in found]
        for key, found in rounds.items()
    }
    for size, name in names.items():
        cpu = [each["cpu"] for each in rounds[str(size)]]
        report.figure("an answer and a request, by sockets", name, seconds[str(size)], cpu=cpu)
    first, *others = names
    for size in others:
        what = f"{names[size]}, by sockets: %s over {names[first]}"
        limit = 1.2 if size > first else None
        report.ratio(what % "time", seconds[str(size)], seconds[str(first)], at_most=limit)
        report.ratio(
            what % "the broker's processor time", busy[str(size)], busy[str(first)], at_most=limit
        )
    large = max(crowds)
    report.figure(
        "memory of a queued request, broker", names[large], [crowds[large].memory], "bytes"
    )
