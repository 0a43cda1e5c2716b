"""The broker's rules for workers: who is there, who is lost, and who may join."""

from __future__ import annotations

import logging
from typing import Any

from aserpc.broker.deaths import Deaths
from aserpc.broker.peers import is_remote
from aserpc.broker.records import STARTING, Calculator, Worker
from aserpc.broker.requests import SHUT_DOWN
from aserpc.broker.tables import JobState, WorkerState
from aserpc.messages import (
    Dismiss,
    Failed,
    Hello,
    Probe,
    Ready,
    Refuse,
    Shutdown,
    Unknown,
    Welcome,
    unpack_about,
)

logger = logging.getLogger(__name__)

#: How long the connection of a worker or manager of the previous broker may take to come back, s.
RETURN_GRACE = 5.0

#: How often a connection that is broken is tried again, s.
RETRY_INTERVAL = 0.2

#: For how long connections are tried, and how often, after one was closed, s: libzmq tells of the
#: closing a little before sends fail.
SWEEP_TIME, SWEEP_INTERVAL = 0.6, 0.2


class Workers(Deaths):
    """The broker's workers, with their requests."""

    def _register(self, peer: bytes, name: str, state: WorkerState, now: float) -> Worker:
        calculator = self.calculators.get(name)
        if calculator is None:
            calculator = self.calculators[name] = Calculator(name)
        worker = self.workers[peer] = Worker(peer, calculator, state, now, now)
        worker.inherited = peer not in self._given_up
        self._given_up.pop(peer, None)
        calculator.members += 1
        self._settle(calculator)
        calculator.file(worker)
        self.roster_changed = True
        self._check_at(worker, now + self.worker_timeout / 2)
        return worker

    def _hello(self, peer: bytes, hello: Hello, now: float) -> None:
        worker = self.workers.get(peer)
        if worker is not None and worker.calculator.name != hello.calculator:
            self._end(worker, WorkerState.LOST, now, "it changed its name")
            worker = None
        if worker is None:
            meant = self.spawned.get(str(hello.identity.get("spawn_id")))
            if meant is not None and meant != hello.calculator:
                reason = (
                    f"this worker was started for {meant!r} and registers as {hello.calculator!r}; "
                    f"give its command --name {meant}"
                )
                self._to_worker(peer, Refuse(reason))
                return
            worker = self._register(peer, hello.calculator, WorkerState.LOADING, now)
            worker.identity = hello.identity
            logger.info("%s loads", worker.label)
            self._tell_demand(worker.calculator, now)
            self._lives(worker, now)
        elif worker.state is WorkerState.RETURNING:
            self._move_worker(worker, WorkerState.LOADING)
            worker.identity = hello.identity
        leaves = worker.state is WorkerState.LEAVING  # and may not have heard that it is to
        self._to_worker(peer, Shutdown() if leaves else Welcome())

    def _ready(self, peer: bytes, ready: Ready, now: float) -> None:
        self._hello(peer, Hello(ready.calculator, ready.identity), now)
        worker = self.workers.get(peer)
        if worker is None:  # it was refused
            return
        calculator = worker.calculator
        difference = None if self.allow_mixed else _difference(calculator, worker, ready.about)
        if difference:
            self._end(worker, WorkerState.GONE, now, "it was refused")
            self._to_worker(peer, Refuse(difference))
            return
        worker.about = ready.about
        worker.capacity, worker.max_batch = ready.capacity, ready.max_batch
        worker.calculation_timeout = ready.calculation_timeout
        worker.free_since = now
        # A worker that registers again tells what it has; the rest was lost on the way to it.
        has = {tuple(key) for key in ready.running}
        for key, job in reversed(list(worker.jobs.items())):
            if key not in has and job.order <= ready.sent:
                self._send_again(job, now)
        # Nor is it to say what became of those, unless they were on their way when it said this.
        worker.taken_back = {k: n for k, n in worker.taken_back.items() if n > ready.sent}
        self._rest(worker)
        self._claim(worker, ready.running, now)
        worker.inherited = False  # what it had of the broker before is known
        calculator.file(worker)  # by its capacity
        is_new = worker.state in STARTING
        if is_new:
            self._move_worker(worker, WorkerState.IDLE)
            logger.info("%s is ready", worker.label)
        if worker.state is WorkerState.IDLE and worker.jobs:
            self._move_worker(worker, WorkerState.BUSY)
        self._sent_ahead(worker, now)
        self._describe(calculator)
        self._see_to_those_who_wait(worker, SHUT_DOWN, now)
        if is_new:
            # Before the manager can see it die of its first request: its start has not failed.
            self._tell_demand(calculator, now, at_once=True)

    def _heartbeat(self, worker: Worker) -> None:
        """Answer a sign of life.

        None comes before its READY, or after it was told to shut down: then that was lost on the
        way, with a connection that nobody saw break.
        """
        if worker.state in STARTING:
            self._to_worker(worker.peer, _question(worker))
        elif worker.state is WorkerState.LEAVING:
            self._to_worker(worker.peer, Shutdown())
        else:
            self._to_worker(worker.peer, Welcome())

    def _failed(self, worker: Worker, failed: Failed, now: float) -> None:
        calculator = worker.calculator
        what = str(failed.error.get("message", ""))
        logger.error("%s could not make its calculator: %s", worker.label, what)
        self._end(worker, WorkerState.GONE, now, f"it could not make its calculator: {what}")
        self._to_worker(worker.peer, Dismiss())
        # A manager tells the same when the process has ended, with its last words.
        if not calculator.workers and calculator.manager is None:
            reason = f"The worker of {calculator.name!r} could not make its calculator: {what}"
            for job in calculator.waiting():
                self._fail(job, JobState.FAILED, "worker_failed", reason)

    def _end(self, worker: Worker, state: WorkerState, now: float, why: str) -> None:
        """Forget a worker; what it had goes back to the queue, or is given up."""
        calculator = worker.calculator
        lost = state is WorkerState.LOST
        log = logger.warning if lost else logger.info
        log("%s is %s: %s", worker.label, state.value, why)
        # One that was computing what somebody asks for was there until just now.
        never_came = worker.expected and not any(job.is_known for job in worker.jobs.values())
        self._move_worker(worker, state)
        if lost:
            self._give_up_worker(worker.peer)
        del self.workers[worker.peer]
        self._timers.cancel(worker.timer)
        self.roster_changed = True
        died = []
        if lost and not worker.expected:
            died = self._died(worker, why, now, seen=not is_remote(worker.peer))
        suspected = {job.key for job in died if job.state is not JobState.ORPHANED}
        for job in reversed(list(worker.jobs.values())):
            if job.key in suspected:
                self._decide(job, now)
            else:
                self._requeue(job, now)
        calculator.members -= 1
        if never_came:
            self._never_came(calculator, why)
        self._see_to_those_who_wait(worker, why, now)

    def _never_came(self, calculator: Calculator, why: str) -> None:
        """Tell those who wait if all they had was a worker or manager of the broker before."""
        if not calculator.is_served():
            reason = f"No workers available for {calculator.name!r}: {why} with the last broker"
            for job in calculator.waiting():
                self._fail(job, JobState.FAILED, "no_workers", reason)

    def _see_to_those_who_wait(self, worker: Worker, why: str, now: float) -> None:
        """Let other workers have what waits, or see what else can be done for it."""
        told = f"the last, {worker.label}, is {worker.state.value}: {why}"
        self._see_to(worker.calculator, told, now)
        self._tell_demand(worker.calculator, now)

    def _see_to(self, calculator: Calculator, why: str, now: float) -> None:
        """See that those who wait for a calculator have something to wait for, or an end."""
        if calculator.workers:
            self._dispatch(calculator, now)
        elif not calculator.is_waited_for():
            self._tidy(calculator)
        elif calculator.fatal:
            for job in calculator.waiting():
                self._fail(job, JobState.FAILED, "worker_failed", calculator.fatal)
        elif calculator.manager is None:
            if calculator.deserted_at is None:
                calculator.deserted_at = now
                expires_at = now + self.request_queue_timeout
                calculator.timer = self._timers.at(expires_at, self._expire, calculator)
            calculator.deserted_by = why

    def _expire(self, calculator: Calculator, now: float) -> None:  # noqa: ARG002
        """Give up the requests of a calculator that no worker has come back to."""
        reason = (
            f"No worker of {calculator.name!r} came within {self.request_queue_timeout:g} s "
            f"(request_queue_timeout); {calculator.deserted_by}"
        )
        for job in calculator.waiting():
            self._fail(job, JobState.EXPIRED, "queue_timeout", reason)

    def _shut_down(self, name: str | None, now: float) -> int:
        """Ask the workers of a name, or all, to finish and go; return how many."""
        chosen = [w for w in self.workers.values() if name is None or w.calculator.name == name]
        for worker in chosen:
            self._to_worker(worker.peer, Shutdown())
            if worker.state is not WorkerState.LEAVING:
                self._move_worker(worker, WorkerState.LEAVING)
                self._see_to_those_who_wait(worker, SHUT_DOWN, now)
        return len(chosen)

    def _connection_broke(self, worker: Worker, now: float) -> None:
        """Give a worker up, or wait a while for it if its connection may come back."""
        if worker.expected:
            lost = now >= worker.since + RETURN_GRACE
        elif not is_remote(worker.peer):
            lost = True
        elif worker.away_since is None:
            logger.warning("%s: its connection broke", worker.label)
            worker.away_since, lost = now, False
            worker.calculator.file(worker)
        else:
            lost = now >= worker.away_since + self.reconnect_grace
        if lost:
            self._end(worker, WorkerState.LOST, now, "its connection broke")
        else:
            worker.asked = False
            self._check_at(worker, now + RETRY_INTERVAL)

    def _is_back(self, worker: Worker, now: float) -> None:
        """Take it that a worker has its connection again; what was on its way may be lost."""
        logger.info("%s is connected again", worker.label)
        worker.away_since, worker.asked = None, False
        worker.calculator.file(worker)
        self._to_worker(worker.peer, _question(worker))
        self._check_at(worker, now + self.worker_timeout / 2)
        self._dispatch(worker.calculator, now)

    def _check_at(self, worker: Worker, when: float) -> None:
        """Look at a worker at an instant, and not at the one that was set before."""
        self._timers.cancel(worker.timer)
        worker.timer = self._timers.at(when, self._check_worker, worker)

    def _check_worker(self, worker: Worker, now: float) -> None:
        """Ask a silent worker for a sign of life; give up an idle one that gives none.

        One that computes or loads needs only its connection, which the probe tries: Python may be
        held up for long in there. None is given up that was not asked: it may be the broker that
        was held up.
        """
        half = self.worker_timeout / 2
        # One that was asked to leave before it was ready may still be loading.
        leaves = (
            worker.state is WorkerState.LEAVING and bool(worker.about) and not worker.is_occupied
        )
        if worker.away_since is not None:
            if worker.asked:  # and there was a connection
                self._is_back(worker, now)
            else:
                self._to_worker(worker.peer, Probe())
                worker.asked = True
                self._check_at(worker, now + RETRY_INTERVAL)
        elif worker.expected and worker.asked:  # and there was a connection
            worker.expected = worker.asked = False
            self._check_at(worker, now + half)
        elif worker.asked and (leaves or worker.state is WorkerState.IDLE):
            silent = now - worker.last_heard
            self._end(worker, WorkerState.LOST, now, f"it was silent for {silent:.3g} s")
        elif now < worker.last_heard + half and not worker.expected:
            self._check_at(worker, worker.last_heard + half)
        else:
            self._probe(worker)
            worker.asked = True
            self._check_at(worker, now + (RETRY_INTERVAL if worker.expected else half))

    def _sweep(self, _: None, now: float) -> None:
        """Try every worker's connection."""
        for worker in self.workers.values():
            self._probe(worker)
        if self._sweep_until is not None and now < self._sweep_until:
            self._timers.at(now + SWEEP_INTERVAL, self._sweep)
        else:
            self._sweep_until = None

    def _probe(self, worker: Worker) -> None:
        # One on another machine may have a new connection already: what was on its way by the old
        # one is lost, and only the worker knows what that was.
        unsure = worker.state is WorkerState.RETURNING or (
            is_remote(worker.peer) and worker.is_occupied
        )
        if worker.expected and worker.state is WorkerState.LEAVING:
            self._to_worker(worker.peer, Shutdown())
        else:
            self._to_worker(worker.peer, _question(worker) if unsure else Probe())


def _question(worker: Worker) -> Unknown:
    """Return what has a worker say what it has, and give again what was lost of its answers."""
    last = worker.last_answer
    return Unknown(worker.sent, [] if last is None else list(last))


def _difference(calculator: Calculator, worker: Worker, about: bytes) -> str | None:
    """Say how a worker differs from those that serve its calculator already."""
    other = next((w for w in calculator.serving.values() if w is not worker), None)
    if other is None or other.about == about:
        return None
    theirs, mine = unpack_about(other.about), unpack_about(about)
    for what in ("factory", "args", "kwargs", "versions"):
        if not _are_same(theirs.get(what), mine.get(what)):
            return (
                f"{calculator.name!r} is served already with {what} {_show(theirs.get(what))}; "
                f"this worker has {_show(mine.get(what))}. Give it another name (--name), or "
                "start the broker with --allow-mixed"
            )
    return None


def _are_same(one: Any, other: Any) -> bool:
    """Whether two values are equal, where not-a-numbers are, too."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_are_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_are_same, one, other))
    return bool(one == other or (one != one and other != other))


def _show(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else text[:300] + "..."
