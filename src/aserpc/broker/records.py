"""What the broker keeps of each request, worker and calculator; the queues and their order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aserpc.broker.queues import Turns
from aserpc.broker.tables import JobState, WorkerState
from aserpc.messages import MAX_AHEAD, Buffer, Request, RequestKey
from aserpc.timers import Timer

if TYPE_CHECKING:
    from aserpc.broker.deaths import Death

#: States of a worker that has a calculator to come, of one that takes requests, and both.
STARTING = frozenset({WorkerState.LOADING, WorkerState.RETURNING})
SERVING = frozenset({WorkerState.IDLE, WorkerState.BUSY})
TAKING = STARTING | SERVING

#: For how many sessions a calculator's last worker is remembered.
AFFINITY_SIZE = 10_000

#: Weight of a calculation's time in the mean of its worker or calculator.
RECENT = 0.2

#: What a worker is sent ahead takes about so long at most, s: as long as an answer and the next
#: request are on their way. Another client's one request waits for it, so it is no longer.
AHEAD_TIME = 0.0003

#: One request may take so long and is sent ahead nevertheless, s: twice the time in which a worker
#: waits for its mail. So another client's request waits no longer by it.
ONE_AHEAD_TIME = 0.002


@dataclass(slots=True, eq=False)
class Job:
    """A request with the broker's bookkeeping."""

    request: Request
    payload: list[Buffer]
    calculator: Calculator
    #: Routing id of the client's socket that sent the request last.
    client: bytes
    #: When the request came, or was sent back to the queue.
    queued_at: float
    state: JobState = JobState.QUEUED
    worker: Worker | None = None
    #: When a worker began to compute it.
    started_at: float = 0.0
    #: Its number among the requests that were sent to that worker.
    order: int = 0
    #: Whether it is computed by a worker that has no other: a worker died of one of several.
    alone: bool = False
    #: Whether its client has sent it here; else only its worker is known to have it.
    is_known: bool = True
    #: What it takes in memory, in bytes.
    size: int = 0
    #: The workers that were lost while they computed it.
    deaths: list[Death] = field(default_factory=list)
    #: How often it was lost on its way to a worker, or its answer on the way back.
    strays: int = 0
    #: When the client stops waiting; None: it waits.
    deadline: float | None = None
    #: What falls due at the deadline.
    timer: Timer | None = None

    @property
    def key(self) -> RequestKey:
        """Identity of the request."""
        return self.request.session, self.request.id

    @property
    def attempts(self) -> int:
        """How many workers were seen to die while they computed it and nothing else."""
        return sum(death.counts for death in self.deaths)


@dataclass(slots=True, eq=False)
class Worker:
    """A worker, seen by the broker."""

    #: Routing id of its socket.
    peer: bytes
    calculator: Calculator
    state: WorkerState
    since: float
    last_heard: float
    identity: dict[str, Any] = field(default_factory=dict)
    about: bytes = b""
    capacity: int = 1
    #: How many requests it may compute together.
    max_batch: int = 1
    calculation_timeout: float | None = None
    #: Its requests, in the order in which they were sent to it.
    jobs: OrderedDict[RequestKey, Job] = field(default_factory=OrderedDict)
    #: Requests that it answered.
    answered: int = 0
    #: Since when it has no request.
    free_since: float = 0.0
    #: Whether it was asked for a sign of life, and when it is to be looked at next.
    asked: bool = False
    timer: Timer | None = None
    #: Since when its connection is broken, if that may come back; None: it is there.
    away_since: float | None = None
    #: How many requests were sent to it, and which it answered last.
    sent: int = 0
    last_answer: RequestKey | None = None
    #: Whether it is known from the broker before only: its connection is not back yet.
    expected: bool = False
    #: Whether it may have requests of the broker before, rather than of this one.
    inherited: bool = True
    #: Mean time of its calculations, s, the last ones counting most; 0: none yet.
    seconds: float = 0.0
    #: How many requests it is sent ahead of the answers.
    ahead: int = 0
    #: Requests that it was sent ahead and is to give back, with their `Job.order`; it has not said
    #: yet what became of them.
    taken_back: dict[RequestKey, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What the log calls it."""
        pid, host = self.process
        return f"worker of {self.calculator.name!r} (process {pid} on {host})"

    @property
    def is_occupied(self) -> bool:
        """Whether it has a request, or may have begun one that was taken back."""
        return bool(self.jobs or self.taken_back)

    @property
    def has_room(self) -> bool:
        """Whether it can be sent another request."""
        if len(self.jobs) >= max(self.capacity, 1 + self.ahead) or self.taken_back:
            return False
        first = next(iter(self.jobs.values()), None)
        return first is None or not first.alone

    def took(self, seconds: float) -> None:
        """Take it that it computed a request in so many seconds."""
        self.seconds = recent_mean(self.seconds, seconds)
        # Batches are sent ahead by their capacity.
        if self.max_batch == 1 and self.seconds:
            least = 1 if self.seconds <= ONE_AHEAD_TIME else 0
            self.ahead = max(least, min(MAX_AHEAD, int(AHEAD_TIME / self.seconds)))

    def took_at_least(self, seconds: float) -> None:
        """Take it that a calculation takes longer than the others did."""
        self.seconds = max(self.seconds, seconds)
        self.ahead = 0

    @property
    def spawn_id(self) -> str | None:
        """What ties it to a process that a manager started."""
        spawn_id = self.identity.get("spawn_id")
        return spawn_id if isinstance(spawn_id, str) else None

    @property
    def process(self) -> tuple[int | str, str]:
        """Its process and host, as it says, or what is fit to be shown of that."""
        return _process(self.identity)


@dataclass(slots=True, eq=False)
class Manager:
    """A manager, seen by the broker."""

    peer: bytes
    last_heard: float
    identity: dict[str, Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    #: Names that another manager offers already.
    refused: set[str] = field(default_factory=set)
    #: Its GPUs and who has them, as `Gpus` tells it.
    gpus: list[Any] = field(default_factory=list)
    asked: bool = False
    timer: Timer | None = None
    #: As `Worker.away_since`.
    away_since: float | None = None
    #: Whether it was known to the broker that served here before, and has not been heard yet.
    returning: bool = False

    @property
    def label(self) -> str:
        """What the log calls it."""
        pid, host = self.process
        return f"the manager in process {pid} on {host}"

    @property
    def process(self) -> tuple[int | str, str]:
        """As `Worker.process`."""
        return _process(self.identity)


@dataclass(slots=True, eq=False)
class Client:
    """A client's connection, as long as requests of it wait."""

    peer: bytes
    last_heard: float
    #: Its requests.
    jobs: dict[RequestKey, Job] = field(default_factory=dict)
    #: Whether it was silent when it was looked at last.
    silent: bool = False
    #: Since when it can't be reached; None: it can.
    gone_since: float | None = None
    #: When it is to be looked at next.
    timer: Timer | None = None


def recent_mean(mean: float, value: float) -> float:
    """Return a mean, 0 of nothing, with another value."""
    return mean + RECENT * (value - mean) if mean else value


def _process(identity: Mapping[str, Any]) -> tuple[int | str, str]:
    pid, host = identity.get("pid"), identity.get("host")
    host = host[:80] if isinstance(host, str) and host.isprintable() else "?"
    return pid if isinstance(pid, int) else "?", host


class ByLoad:
    """Workers by how many requests they have."""

    def __init__(self) -> None:
        self._loads: dict[bytes, int] = {}
        self._groups: dict[int, dict[bytes, Worker]] = {}

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._loads)

    def __bool__(self) -> bool:
        return bool(self._loads)

    def put(self, worker: Worker) -> None:
        """Put a worker where its number of requests says."""
        load = len(worker.jobs)
        if self._loads.get(worker.peer) != load:
            self.remove(worker.peer)
            self._loads[worker.peer] = load
            self._groups.setdefault(load, {})[worker.peer] = worker

    def remove(self, peer: bytes) -> None:
        """Take a worker out, if it is here."""
        load = self._loads.pop(peer, None)
        if load is not None:
            del self._groups[load][peer]
            if not self._groups[load]:
                del self._groups[load]

    def least(self, preferred: bytes) -> Worker:
        """Return the preferred of those with the fewest requests, or any; there must be one."""
        # Those with the fewest get the next, so that there are only a few different numbers.
        group = self._groups[min(self._groups)]
        return group.get(preferred) or next(iter(group.values()))


class Calculator:
    """A calculator's name, with its workers and its queue.

    Sessions take turns; within one, higher priority is served first, then first come. No
    operation's cost grows with the length of the queue or the number of workers.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        #: Workers that take requests, now or when they are ready, by routing id.
        self.workers: dict[bytes, Worker] = {}
        #: Workers without a request, the most recently used last.
        self.idle: OrderedDict[bytes, Worker] = OrderedDict()
        #: Workers with a request and room for another.
        self.partial = ByLoad()
        #: How many workers are registered under the name, those that leave included.
        self.members = 0
        #: Those of `workers` that have said what they serve.
        self.serving: dict[bytes, Worker] = {}
        #: Requests to describe the calculator, which wait for its first worker.
        self.descriptions: dict[RequestKey, Job] = {}
        #: When it lost its last worker, and how; None while it has one.
        self.deserted_at: float | None = None
        self.deserted_by = ""
        #: What falls due when those who wait have waited long enough.
        self.timer: Timer | None = None
        #: Mean time of a calculation, s, the last ones counting most; 0: none yet.
        self.seconds = 0.0
        #: Routing id of the manager that can start workers, and what it has said of them.
        self.manager: bytes | None = None
        self.min_workers = 0
        self.spawn_ids: list[str] = []
        self.spawn_text = ""
        #: Why the manager starts none any more.
        self.fatal = ""
        self.demand_timer: Timer | None = None
        self.demand_at = float("-inf")
        #: How many requests wait for a worker.
        self.queued = 0
        self._turns = Turns()
        self._affinity: OrderedDict[bytes, bytes] = OrderedDict()

    def enqueue(self, job: Job, *, first: bool = False) -> None:
        """Queue a job; `first`: before its session's others, which takes the next turn."""
        if job.request.op == "describe":
            self.descriptions[job.key] = job
            return
        self._turns.put(job, first=first)
        self.queued += 1

    def can_dispatch(self) -> bool:
        """Whether there is a worker for the job whose turn it is."""
        if not self.queued or self.idle:
            return bool(self.queued)
        # Nobody overtakes one that is to be alone: it would never find a worker without others.
        return bool(self.partial) and not self._first().alone

    def _first(self) -> Job:
        return self._turns.first()

    def next_job(self) -> Job:
        """Take the job whose turn it is; some job must wait."""
        self.queued -= 1
        return self._turns.pop()

    def remove(self, job: Job) -> None:
        """Take a job out of the queue."""
        if self.descriptions.pop(job.key, None) is not None:
            return
        self._turns.remove(job)
        self.queued -= 1

    def waiting(self) -> list[Job]:
        """Return all jobs that wait, in order within their session."""
        jobs = [job for queue in self._turns for job in queue]
        return jobs + list(self.descriptions.values())

    def free_worker(self, session: bytes) -> Worker:
        """Return the worker that should take a session's request; some worker must have room.

        Of the idle ones the one that served the session last, whose calculator may have its
        structure still; else the most recently used, so that those which are too many fall idle
        and leave. A busy one with room, of those with the fewest, only when none is idle.
        """
        last = self._affinity.get(session, b"")
        if self.idle:
            return self.idle.get(last) or self.idle[next(reversed(self.idle))]
        return self.partial.least(last)

    def served(self, session: bytes, worker: Worker) -> None:
        """Remember which worker served a session last."""
        self._affinity[session] = worker.peer
        self._affinity.move_to_end(session)
        if len(self._affinity) > AFFINITY_SIZE:
            self._affinity.popitem(last=False)

    def file(self, worker: Worker) -> None:
        """Put a worker where its state and number of requests say."""
        peer, state = worker.peer, worker.state
        here = worker.away_since is None
        if here and state is WorkerState.BUSY and worker.has_room:
            self.partial.put(worker)
        else:
            self.partial.remove(peer)
        for group, belongs in (
            (self.workers, state in TAKING),
            (self.serving, state in SERVING),
            (self.idle, here and state is WorkerState.IDLE),
        ):
            if belongs:
                group[peer] = worker
            else:
                group.pop(peer, None)
        if peer in self.idle and not worker.answered:
            self.idle.move_to_end(peer, last=False)  # never used is not most recently used

    def is_waited_for(self) -> bool:
        """Whether a request waits for a worker."""
        return bool(self.queued or self.descriptions)

    def is_unused(self) -> bool:
        """Whether nothing of it needs to be kept."""
        return not self.members and self.manager is None and not self.is_waited_for()

    def is_served(self) -> bool:
        """Whether a request that comes now has something to wait for."""
        can_start = self.manager is not None and not self.fatal
        return bool(self.workers) or self.deserted_at is not None or can_start
