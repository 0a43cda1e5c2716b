"""Short ways to make messages, and a house of a broker's state with peers that keep their mail."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any, TypeVar

import msgpack

from aserpc.broker.effects import Effect, ToClient
from aserpc.broker.records import Calculator, Job, Worker
from aserpc.broker.roster import pack_roster, unpack_roster
from aserpc.broker.state import BrokerState
from aserpc.broker.tables import JobState, WorkerState
from aserpc.messages import (
    Answer,
    Cancel,
    Dismiss,
    Failed,
    Goodbye,
    Heartbeat,
    Hello,
    Leave,
    Message,
    Ping,
    Pong,
    Ready,
    Request,
    RequestKey,
    ShutdownRequest,
    Status,
    StatusRequest,
    failure,
)

from .consistency import check_consistency

M = TypeVar("M", bound=Message)

#: How often the clients of a house speak, as long as they wait, s.
CLIENT_INTERVAL = 5.0

#: For how long a network's broker keeps answers, s; long for a client's pings.
ORPHAN_TTL = 30.0

#: Timeouts of the house's broker, s; unlike each other and unlike the defaults.
WORKER_TIMEOUT, QUEUE_TIMEOUT = 20.0, 50.0


def session(name: str) -> bytes:
    return name.encode().ljust(16, b".")


def about(**changes: Any) -> bytes:
    what = {"factory": "lj:LJ", "args": [], "kwargs": {}, "versions": {"ase": "3.29"}, **changes}
    packed: bytes = msgpack.packb(what)
    return packed


def request(number: int = 0, who: str = "s", name: str = "lj", **fields: Any) -> Request:
    return Request(session(who), number, name, **fields)


def ready(
    name: str = "lj",
    capacity: int = 1,
    running: Iterable[RequestKey] = (),
    description: bytes | None = None,
    sent: int = 1 << 30,
    max_batch: int = 1,
) -> Ready:
    pairs = [list(key) for key in running]
    description = about() if description is None else description
    return Ready(name, {}, description, capacity, pairs, sent, max_batch=max_batch)


class WatchedState(BrokerState):
    """A broker's state that remembers its transitions."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.moves: set[tuple[JobState | WorkerState, JobState | WorkerState]] = set()

    def _move_job(self, job: Job, state: JobState) -> None:
        self.moves.add((job.state, state))
        super()._move_job(job, state)

    def _dispatch(self, calculator: Calculator, now: float) -> None:
        before = len(self._effects)
        super()._dispatch(calculator, now)
        for effect in self._effects[before:]:
            if isinstance(effect.message, Request):
                loads = [len(worker.jobs) for worker in calculator.serving.values()]
                load = len(self.workers[effect.peer].jobs)
                has_room = [len(calculator.serving[peer].jobs) for peer in calculator.partial]
                assert not calculator.idle or load == 1, "a second slot, and a worker is idle"
                assert load <= min(has_room, default=load) + 1, f"uneven slots: {loads}"

    def _move_worker(self, worker: Worker, state: WorkerState) -> None:
        if worker.state is not state:
            self.moves.add((worker.state, state))
        super()._move_worker(worker, state)


class House:
    """A broker's state, its clock and its peers, which keep what they are sent.

    The state's indexes are checked after every event.
    """

    def __init__(self, now: float = 1000.0, **settings: Any) -> None:
        timeouts = {"worker_timeout": WORKER_TIMEOUT, "request_queue_timeout": QUEUE_TIMEOUT}
        self.settings = {**timeouts, **settings}
        self.state = WatchedState(b"i" * 16, **self.settings)
        self.now = now
        #: Workers without a connection.
        self.cut: set[bytes] = set()
        #: Clients that are not there any more.
        self.silent: set[bytes] = set()
        #: What each peer was sent and has not taken.
        self.mail: defaultdict[bytes, list[Message]] = defaultdict(list)

    # ---- events ----------------------------------------------------------------------------------

    def client(self, message: Message, peer: bytes = b"client") -> None:
        self.perform(self.state.from_client(peer, message, [], self.now))

    def worker(self, peer: bytes, message: Message) -> None:
        self.perform(self.state.from_worker(peer, message, [], self.now))

    def wait(self, seconds: float) -> None:
        """Let time pass, ticking whenever the state asks for it."""
        ends_at, pause_ends_at = self.now + seconds, float("-inf")
        while pause_ends_at < ends_at:
            somebody = any(client.jobs for client in self.state.clients.values())
            pause_ends_at = min(ends_at, self.now + CLIENT_INTERVAL) if somebody else ends_at
            while (due := self.state.next_tick()) is not None and due <= pause_ends_at:
                self.now = max(self.now, due)
                self.perform(self.state.tick(self.now))
            self.now = pause_ends_at
            for client in list(self.state.clients.values()):
                if client.jobs and client.peer not in self.silent:
                    self.state.from_client(client.peer, Ping(), [], self.now)

    def restart(self) -> None:
        """Kill the broker, and start another that finds what it left."""
        roster = unpack_roster(pack_roster(self.state.roster(self.now)))
        self.state = WatchedState(b"j" * 16, **self.settings)
        self.state.expect(roster, self.now)
        self.mail.clear()
        check_consistency(self.state)

    def perform(self, effects: list[Effect]) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            if not isinstance(effect, ToClient) and effect.peer in self.cut:
                todo += self.state.unreachable(effect.peer, effect.message, self.now)
            else:
                self.mail[effect.peer].append(effect.message)
        check_consistency(self.state)

    # ---- shorthands ------------------------------------------------------------------------------

    def ask(
        self,
        number: int = 0,
        who: str = "s",
        name: str = "lj",
        peer: bytes = b"client",
        **fields: Any,
    ) -> RequestKey:
        """Send a request."""
        message = request(number, who, name, **fields)
        self.client(message, peer)
        return message.key

    def describe(self, number: int = 0, peer: bytes = b"client") -> RequestKey:
        return self.ask(number, peer=peer, op="describe")

    def cancel(self, *keys: RequestKey, peer: bytes = b"client") -> None:
        self.client(Cancel([list(key) for key in keys]), peer)

    def ping(self, *keys: RequestKey, peer: bytes = b"client") -> Pong:
        self.client(Ping([list(key) for key in keys]), peer)
        (pong,) = self.take(peer, Pong)
        return pong

    def status(self) -> dict[str, Any]:
        self.client(StatusRequest(1), b"status")
        (status,) = self.take(b"status", Status)
        return status.status

    def shut_down(self, name: str | None = "lj") -> int:
        self.client(ShutdownRequest(1, name), b"admin")
        (status,) = self.take(b"admin", Status)
        return int(status.status["workers"])

    def load(self, *peers: bytes, name: str = "lj") -> None:
        for peer in peers:
            self.worker(peer, Hello(name, {}))

    def serve(self, *peers: bytes, name: str = "lj", capacity: int = 1, max_batch: int = 1) -> None:
        """Have workers register and get ready."""
        for peer in peers:
            self.load(peer, name=name)
            self.worker(peer, ready(name, capacity, max_batch=max_batch))

    def answer(self, peer: bytes, key: RequestKey, **fields: Any) -> None:
        self.worker(peer, Answer(*key, **fields))

    def fail(self, peer: bytes, message: str = "no licence", name: str = "lj") -> None:
        self.worker(peer, Failed(name, failure("worker_failed", message)))

    def leave(self, peer: bytes) -> bool:
        """Ask to leave; whether it may."""
        self.worker(peer, Leave())
        return bool(self.take(peer, Dismiss))

    def goodbye(
        self, peer: bytes, *returned: RequestKey, together: Iterable[RequestKey] = ()
    ) -> None:
        pairs = [list(key) for key in together]
        self.worker(peer, Goodbye([list(key) for key in returned], pairs))

    def beat(self, peer: bytes) -> None:
        self.worker(peer, Heartbeat())

    def vanish(self, peer: bytes) -> None:
        """Break a worker's connection, and have the broker notice."""
        self.cut.add(peer)
        self.state.connection_closed(self.now)
        self.wait(1.0)

    # ---- what came of it -------------------------------------------------------------------------

    def take(self, peer: bytes, kind: type[M]) -> list[M]:
        """Take the messages of a kind that a peer was sent."""
        taken = [message for message in self.mail[peer] if isinstance(message, kind)]
        self.mail[peer] = [m for m in self.mail[peer] if not isinstance(m, kind)]
        return taken

    def given(self, peer: bytes) -> list[RequestKey]:
        """Take the requests that a worker was sent."""
        return [message.key for message in self.take(peer, Request)]

    def answers(self, peer: bytes = b"client") -> dict[RequestKey, str | None]:
        """Take a client's final answers: the kind of error of each, None for results."""
        answers: dict[RequestKey, str | None] = {}
        for answer in self.take(peer, Answer):
            if answer.part is None:
                assert answer.key not in answers, "two final answers"
                answers[answer.key] = None if answer.error is None else answer.error["kind"]
        return answers

    def reason(self, peer: bytes = b"client") -> str:
        """Take a client's one answer: the text of its error."""
        (answer,) = self.take(peer, Answer)
        assert answer.error is not None
        return str(answer.error["message"])

    def job(self, key: RequestKey) -> Job:
        return self.state.jobs[key]

    def is_empty(self) -> bool:
        """Whether the state keeps nothing more."""
        state = self.state
        timers = len(state._timers) - state.routine_timers
        return not any((state.jobs, state.held, state.workers, state.calculators, timers))
