"""What a message costs a broker that has many workers and a long queue, without its sockets."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Iterable
from functools import partial

import msgpack

from aserpc.broker.effects import Effect, ToWorker
from aserpc.broker.garbage import collect_rarely
from aserpc.broker.peers import local_peer
from aserpc.broker.state import BrokerState
from aserpc.messages import Answer, Buffer, Ready, Request
from aserpc.payload import pack_atoms
from benchmarks.floor import ABOUT
from benchmarks.processes import Bench
from benchmarks.report import Report
from benchmarks.tasks import structure
from benchmarks.timing import interleave, memory_of

CLIENT = local_peer(b"client")

#: How many sessions ask.
SESSIONS = 100


def sizes(bench: Bench) -> list[tuple[int, int]]:
    """Return the workers and queued requests to measure: the first is what others compare with."""
    return [(10, 10), (1, 1), (100, 2000)] if bench.quick else [(10, 10), (1, 1), (1000, 100_000)]


def made_request(number: int) -> Request:
    """Return a request of one of the sessions."""
    return Request(b"%16d" % (number % SESSIONS), number, "null", properties=["forces"])


def made_payload() -> list[Buffer]:
    """Return what a structure of 8 atoms is on the wire."""
    return pack_atoms(structure(8)).owned().frames()


def ready() -> Ready:
    """Return the registration of a made-up worker."""
    return Ready("null", {"pid": 1, "host": "nowhere"}, msgpack.packb(ABOUT))


class House:
    """A broker's state whose workers are all busy, and so many requests wait."""

    def __init__(self, workers: int, queued: int) -> None:
        self.now = 0.0
        self.state = BrokerState(bytes(16))
        #: Who computes what, in the order in which it was given out.
        self.running: deque[tuple[bytes, Request]] = deque()
        self.number = 0
        for number in range(workers):
            peer = local_peer(b"worker%d" % number)
            self._take(self.state.from_worker(peer, ready(), [], self.now))
        for _ in range(workers):
            self.ask()
        gc.collect()
        before = memory_of()
        for _ in range(queued):
            self.ask()
        gc.collect()
        #: Bytes of a queued request.
        self.memory = (memory_of() - before) / queued

    def ask(self) -> None:
        """Let a request come, in bytes of its own."""
        self.number += 1
        payload: list[Buffer] = [bytes(bytearray(frame)) for frame in self._payload]
        request = made_request(self.number)
        self._take(self.state.from_client(CLIENT, request, payload, self.now))

    _payload = made_payload()

    def answer(self) -> None:
        """Let the answer of the worker come that has computed for longest."""
        peer, request = self.running.popleft()
        answer = Answer(request.session, request.id)
        self._take(self.state.from_worker(peer, answer, [], self.now))

    def cost(self, messages: int) -> float:
        """Return the time of a message, s: requests and answers by turns."""
        start = time.perf_counter()
        for _ in range(messages // 2):
            self.answer()
            self.ask()
        return (time.perf_counter() - start) / messages

    def _take(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ToWorker) and isinstance(effect.message, Request):
                self.running.append((effect.peer, effect.message))


def run(bench: Bench, report: Report) -> None:
    """Measure a message's cost and a queued request's memory."""
    houses = {size: House(*size) for size in sizes(bench)}
    before = gc.get_threshold()
    collect_rarely()  # as in a broker's process
    try:
        messages = 1000 if bench.quick else 10_000
        rounds = interleave(
            bench.rounds,
            {str(size): partial(house.cost, messages) for size, house in houses.items()},
        )
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
    names = {size: f"{size[0]} workers, {size[1]} queued" for size in houses}
    for size, name in names.items():
        report.figure("a message, without sockets", name, rounds[str(size)])
    first, *others = names
    for size in others:
        limit = 1.2 if size > first else None
        what = f"a message without sockets, {names[size]}: over {names[first]}"
        report.ratio(what, rounds[str(size)], rounds[str(first)], at_most=limit)
    large = max(houses)
    report.figure("memory of a queued request", names[large], [houses[large].memory], "bytes")
