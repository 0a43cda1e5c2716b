"""The broker's rules for requests: who gets which, and what becomes of it."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from aserpc.broker.answers import weigh
from aserpc.broker.clients import Clients
from aserpc.broker.effects import Effect, ToClient, ToWorker
from aserpc.broker.peers import same_user
from aserpc.broker.records import Calculator, Job, Manager, Worker, recent_mean
from aserpc.broker.snapshot import nobody, progress
from aserpc.broker.tables import JobState, WorkerState, is_allowed
from aserpc.messages import (
    Answer,
    Buffer,
    Cancel,
    Message,
    Ping,
    Pong,
    Request,
    RequestKey,
    failure,
)

if TYPE_CHECKING:
    from aserpc.broker.deaths import Death

logger = logging.getLogger(__name__)

#: Why a worker that is there takes no requests.
SHUT_DOWN = "it was asked to shut down"

#: Where nothing else is said, the requests that may wait for one calculator, and what all requests
#: may take in memory, in bytes: as many structures of 400 atoms.
MAX_QUEUE, MAX_QUEUE_BYTES = 100_000, 4 << 30


class Requests(Clients):
    """The broker's requests and their queues.

    Parameters
    ----------
    incarnation
        Random identity of this start of the broker.
    worker_timeout
        Seconds after which a silent idle worker is lost.
    request_queue_timeout
        Seconds that a request waits for a calculator with neither a worker nor one that starts.
    reconnect_grace
        Seconds that the connection of a worker or manager on another machine may take to come back.
    orphan_ttl
        Seconds that an answer is kept for a client that is not known to have it.
    max_queue
        Requests that may wait for one calculator.
    max_queue_bytes
        What all requests may take in memory.
    allow_mixed
        Whether workers of one name may have different factories, arguments or versions.
    """

    def __init__(
        self,
        incarnation: bytes,
        worker_timeout: float = 30.0,
        request_queue_timeout: float = 60.0,
        reconnect_grace: float = 2.0,
        *,
        orphan_ttl: float = 60.0,
        max_queue: int = MAX_QUEUE,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
        allow_mixed: bool = False,
    ) -> None:
        super().__init__(incarnation, orphan_ttl)
        self.worker_timeout = worker_timeout
        self.request_queue_timeout = request_queue_timeout
        self.reconnect_grace = reconnect_grace
        self.max_queue = max_queue
        self.max_queue_bytes = max_queue_bytes
        self.allow_mixed = allow_mixed
        #: What the requests take in memory, in bytes.
        self.held = 0
        #: Until when workers and managers of the broker before may come back.
        self.settles_at = float("-inf")
        self.calculators: dict[str, Calculator] = {}
        self.workers: dict[bytes, Worker] = {}
        self.managers: dict[bytes, Manager] = {}
        #: Names of the calculators that processes were started for, by spawn id.
        self.spawned: dict[str, str] = {}
        #: Workers that died in mid-calculation, and whose managers may tell how, by spawn id.
        self.deaths: dict[str, Death] = {}
        #: Whether the set of workers has changed; whoever saves the roster clears it.
        self.roster_changed = False
        self.stopping = False
        #: Until when connections are tried again and again; None: they are not.
        self._sweep_until: float | None = None

    def _request(self, peer: bytes, request: Request, payload: list[Buffer], now: float) -> None:
        key = request.key
        job, kept = self.jobs.get(key), self.answers.get(key)
        if job is None and kept is None:
            self._new_request(peer, request, payload, now)
            return
        asked_by = job.client if job is not None else kept.client if kept is not None else b""
        if asked_by and not same_user(asked_by, peer):
            reason = "this request is another key's"
            self._answer_failure(peer, request.key, "not_allowed", reason)
        elif job is not None and job.calculator.name != request.calculator:
            reason = f"this request's identity is that of one to {job.calculator.name!r}"
            self._answer_failure(peer, request.key, "not_allowed", reason)
        elif job is not None:  # sent again: the answer goes to where it was asked last
            if job.state is JobState.ORPHANED:
                self._take_up(job, request, payload, now)
            self._follow(job, peer, now)
        elif kept is not None:  # it was lost on its way
            kept.client = peer
            self._effects.append(ToClient(peer, kept.answer, kept.payload))

    def _new_request(
        self, peer: bytes, request: Request, payload: list[Buffer], now: float
    ) -> None:
        calculator = self.calculators.get(request.calculator)
        if self.stopping:
            self._answer_failure(peer, request.key, "broker_stopped", "the broker is stopping")
            return
        if calculator is None or not calculator.is_served():
            if now >= self.settles_at or (calculator is not None and calculator.fatal):
                error = nobody(self.calculators, request.calculator)
                self._answer_failure(peer, request.key, *error)
                return
            calculator = self._keep_open(request.calculator, now)
        size = weigh(payload)
        if reason := self._is_full(calculator, size):
            self._answer_failure(peer, request.key, "busy", reason)
            self._tidy(calculator)
            return
        job = Job(request, payload, calculator, b"", now)
        self.jobs[job.key] = job
        self._count(job, size, now)
        self._follow(job, peer, now)
        calculator.enqueue(job)
        if job.key in calculator.descriptions:
            self._describe(calculator)
        else:
            self._dispatch(calculator, now)
        if calculator.is_waited_for():
            self._tell_demand(calculator, now)

    def _count(self, job: Job, size: int, now: float) -> None:
        """Count a request that has come, and begin its deadline."""
        job.size = size
        self.held += size
        if job.request.deadline is not None:
            job.deadline = now + max(0.0, job.request.deadline)
            job.timer = self._timers.at(job.deadline, self._deadline_passed, job)

    def _is_full(self, calculator: Calculator, size: int) -> str:
        """Say why there is no room for another request; empty: there is."""
        waiting = calculator.queued + len(calculator.descriptions)
        if waiting >= self.max_queue:
            return f"{waiting} requests wait already, as many as may (max_queue)"
        # One that is too large by itself is taken when there is no other: it can't come at a
        # better time.
        if self.held and self.held + size > self.max_queue_bytes:
            return (
                f"the broker's requests take {self.held / 2**20:.0f} MiB, and all may take "
                f"{self.max_queue_bytes / 2**20:.0f} MiB (max_queue_bytes)"
            )
        return ""

    def _take_up(self, job: Job, request: Request, payload: list[Buffer], now: float) -> None:
        """Tie a request to the calculation of it that goes on."""
        worker = job.worker
        assert worker is not None
        if not job.is_known:
            self.held -= job.size
            job.request, job.payload, job.is_known = request, payload, True
            self._count(job, weigh(payload), now)
        is_first = next(iter(worker.jobs)) == job.key
        self._move_job(job, JobState.RUNNING if is_first else JobState.ASSIGNED)
        self._sent_ahead(worker, now)

    def _tell_demand(self, calculator: Calculator, now: float, *, at_once: bool = False) -> None:
        """Tell the calculator's manager soon how much it is asked for; see `Managers`."""

    def _keep_open(self, name: str, now: float) -> Calculator:
        """Have requests wait for a calculator that the broker before may have served."""
        calculator = self.calculators.setdefault(name, Calculator(name))
        calculator.deserted_at, calculator.deserted_by = now, "the broker was started again"
        calculator.timer = self._timers.at(self.settles_at, self._nobody_came, calculator)
        return calculator

    def _nobody_came(self, calculator: Calculator, now: float) -> None:  # noqa: ARG002
        error = nobody(self.calculators, calculator.name)
        for job in calculator.waiting():
            self._fail(job, JobState.FAILED, *error)

    def _dispatch(self, calculator: Calculator, now: float) -> None:
        """Give waiting requests to workers with room."""
        while calculator.can_dispatch():
            job = calculator.next_job()
            request = job.request
            worker = calculator.free_worker(request.session)
            if job.deadline is not None:
                request = dataclasses.replace(request, deadline=max(0.0, job.deadline - now))
            worker.sent += 1
            self._assign(job, worker, now)
            calculator.served(request.session, worker)
            self._move_worker(worker, WorkerState.BUSY)
            self._effects.append(ToWorker(worker.peer, request, job.payload))
            self._sent_ahead(worker, now)
            self._tell_demand(calculator, now)  # it is idle no longer

    def _assign(self, job: Job, worker: Worker, now: float) -> None:
        """Note that a worker has a request."""
        # It may be there already, cancelled: then it goes on under the new one's name.
        is_first = next(iter(worker.jobs), job.key) == job.key
        self._move_job(job, JobState.RUNNING if is_first else JobState.ASSIGNED)
        job.worker, job.started_at, job.order = worker, now, worker.sent
        worker.jobs[job.key] = job
        self.roster_changed = True

    def _answer(self, worker: Worker, answer: Answer, payload: list[Buffer], now: float) -> None:
        is_again = answer.key == worker.last_answer
        if answer.part is None and not answer.is_refusal:
            worker.last_answer = answer.key
        job = worker.jobs.get(answer.key)
        if job is None:
            if answer.key in worker.taken_back or not is_again:
                self._late_answer(worker, answer, payload, now)
            return
        wanted = job.state is not JobState.CANCELLED
        if wanted and answer.is_refusal:  # of when it was taken back
            self._requeue(job, now)
            self._see_to_those_who_wait(worker, SHUT_DOWN, now)
            return
        awaited = wanted and job.state is not JobState.ORPHANED
        if answer.part is None:
            worker.answered += 1
            worker.free_since = now
            if not answer.is_refusal:
                seconds, calculator = answer.seconds / answer.batch, worker.calculator
                calculator.seconds = recent_mean(calculator.seconds, seconds)
                worker.took(seconds)
            self._release(job, now)
            if wanted:
                self._move_job(job, JobState.DONE)
                self._drop(job)
                self.answers.keep(job.client, answer, payload, now)
            self.roster_changed = True
        self._dispatch(worker.calculator, now)  # first: the worker is idle until it has its next
        if awaited:
            self._effects.append(ToClient(job.client, answer, payload))
        self._tell_demand(worker.calculator, now)

    def _see_to_those_who_wait(self, worker: Worker, why: str, now: float) -> None:
        """Let other workers have what waits, or see what else can be done; see `Workers`."""

    def _sent_ahead(self, worker: Worker, now: float) -> None:
        """Look after what a worker may have been sent ahead; see `Ahead`."""

    def _late_answer(
        self, worker: Worker | None, answer: Answer, payload: list[Buffer], now: float
    ) -> None:
        """Take the answer to a request that a worker does not have by our books; see `Orphans`."""

    def _describe(self, calculator: Calculator) -> None:
        """Answer those who ask what a calculator is, once a worker has said it."""
        if calculator.descriptions and calculator.serving:
            worker = next(iter(calculator.serving.values()))
            for job in list(calculator.descriptions.values()):
                self._forget(job, JobState.DONE)
                self._to_client(job.client, Answer(*job.key, about=worker.about))

    def _ping(self, peer: bytes, ping: Ping, now: float) -> None:
        pong = Pong(self.incarnation, id=ping.id)
        for session, number in ping.keys:
            job = self.jobs.get((session, number))
            # Of an answer that is kept, too, it is said that the request is unknown: it was sent
            # before this, so who has it will ignore that, and who has not will ask again.
            if job is None or not job.is_known or not same_user(job.client, peer):
                pong.unknown.append([session, number])
            else:
                if job.state is JobState.ORPHANED:
                    self._take_up(job, job.request, job.payload, now)
                self._follow(job, peer, now)
                pong.known.append([session, number, job.state.value, progress(job, now)])
        self._to_client(peer, pong)

    def _release(self, job: Job, now: float) -> None:
        """Take a job from its worker, which goes on with the next one."""
        worker = job.worker
        assert worker is not None
        del worker.jobs[job.key]
        job.worker = None
        following = next(iter(worker.jobs.values()), None)
        if following is not None:
            following.started_at = now
            if following.state is JobState.ASSIGNED:
                self._move_job(following, JobState.RUNNING)
        self._rest(worker)

    def _rest(self, worker: Worker) -> None:
        """Have a worker be idle if it has nothing more."""
        if worker.state is WorkerState.BUSY and not worker.is_occupied:
            self._move_worker(worker, WorkerState.IDLE)
        else:
            worker.calculator.file(worker)

    def _requeue(self, job: Job, now: float) -> None:
        """Send a job back to the head of its queue."""
        if job.worker is not None:
            self._release(job, now)
        if job.state is JobState.ORPHANED:
            self._forget(job, JobState.CANCELLED)
        elif job.state is not JobState.CANCELLED:
            self._move_job(job, JobState.QUEUED)
            job.queued_at = now
            job.calculator.enqueue(job, first=True)
            if job.deadline is not None and job.deadline <= now:
                self._deadline_passed(job, now)  # it ran when that fell due

    def _cancel(self, job: Job, now: float) -> None:
        """Drop what is queued; what a worker has keeps its slot, and its answer is dropped."""
        if job.worker is None:
            self._forget(job, JobState.CANCELLED)
            self._dispatch(job.calculator, now)  # those who may not overtake it
        else:
            self._move_job(job, JobState.CANCELLED)
            self._drop(job)
            self._to_worker(job.worker.peer, Cancel([list(job.key)]))

    def _fail(self, job: Job, state: JobState, kind: str, reason: str) -> None:
        """Answer a job with an error of the service."""
        if job.state is JobState.ORPHANED:
            self._forget(job, JobState.CANCELLED)
            return
        self._forget(job, state)
        self._answer_failure(job.client, job.key, kind, reason)

    def _forget(self, job: Job, state: JobState) -> None:
        """Take a job out of wherever it is."""
        if job.worker is not None:
            self._release(job, job.started_at)
        elif job.state is JobState.QUEUED:
            job.calculator.remove(job)
        self._move_job(job, state)
        self._drop(job)
        self._tidy(job.calculator)

    def _drop(self, job: Job) -> None:
        """Forget a request that has come to its end."""
        del self.jobs[job.key]
        job.deaths.clear()  # which have it, too
        self.held -= job.size
        self._timers.cancel(job.timer)
        self._unfollow(job)

    def _deadline_passed(self, job: Job, now: float) -> None:
        # What runs is left alone: its client has stopped waiting by itself.
        if job.state is JobState.QUEUED:
            reason = f"the deadline passed after {now - job.queued_at:.3g} s in the queue"
            self._fail(job, JobState.EXPIRED, "deadline", reason)
            self._dispatch(job.calculator, now)  # as in `_cancel`

    def _tidy(self, calculator: Calculator) -> None:
        """Keep no more of a calculator than is needed."""
        if not calculator.is_waited_for():
            self._settle(calculator)
        if calculator.is_unused():
            self.calculators.pop(calculator.name, None)

    def _settle(self, calculator: Calculator) -> None:
        """Take it that nobody waits for a calculator without a worker."""
        calculator.deserted_at = None
        self._timers.cancel(calculator.timer)

    def _move_job(self, job: Job, state: JobState) -> None:
        assert is_allowed(job.state, state), (job.state, state)
        job.state = state

    def _move_worker(self, worker: Worker, state: WorkerState) -> None:
        assert worker.state is state or is_allowed(worker.state, state), (worker.state, state)
        worker.state = state
        worker.calculator.file(worker)

    def _to_worker(self, peer: bytes, message: Message) -> None:
        self._effects.append(ToWorker(peer, message, []))

    def _answer_failure(self, peer: bytes, key: RequestKey, kind: str, reason: str) -> None:
        self._to_client(peer, Answer(*key, error=failure(kind, reason)))

    def _take(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects
