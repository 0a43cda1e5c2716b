"""The broker's rules for requests that are sent to a worker before it has answered the last one.

A worker whose calculations are much shorter than the way to it would be idle most of the time: it
is sent what keeps it busy meanwhile. What turns out to wait behind a long calculation is taken
back, so that no other worker is idle while it waits.
"""

from __future__ import annotations

from typing import Any

from aserpc.broker.effects import ToClient
from aserpc.broker.records import STARTING, Job, Worker
from aserpc.broker.requests import SHUT_DOWN, Requests
from aserpc.broker.tables import JobState
from aserpc.messages import Answer, Buffer, Cancel
from aserpc.timers import Timer

#: How long a calculation may take before what was sent ahead is taken back, s.
PATIENCE = 0.02


class Ahead(Requests):
    """The broker's requests, with those that were sent ahead.

    A worker that was asked to give some back gets nothing more until it has said what became of
    each: it may have begun one that it was asked for too late.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        #: Workers that were sent more than they take at a time.
        self._ahead: dict[bytes, Worker] = {}
        self._ahead_timer: Timer | None = None

    def _sent_ahead(self, worker: Worker, now: float) -> None:
        """Look in a while whether what a worker has beyond its capacity waits for long."""
        if len(worker.jobs) <= worker.capacity or worker.state in STARTING:
            return  # the latter has not said its capacity yet
        self._ahead[worker.peer] = worker
        if self._ahead_timer is None:
            self._ahead_timer = self._timers.at(now + PATIENCE, self._look_ahead)

    def _look_ahead(self, _: None, now: float) -> None:
        for peer, worker in list(self._ahead.items()):
            first = next(iter(worker.jobs.values()), None)
            if first is None or len(worker.jobs) <= worker.capacity:
                del self._ahead[peer]
            elif now >= first.started_at + PATIENCE:
                del self._ahead[peer]
                self._take_back(worker, now - first.started_at, now)
        again = now + PATIENCE
        self._ahead_timer = self._timers.at(again, self._look_ahead) if self._ahead else None

    def _take_back(self, worker: Worker, seconds: float, now: float) -> None:
        """Queue again what waits behind a calculation that takes so long already."""
        worker.took_at_least(seconds)
        beyond = [
            job
            for job in list(worker.jobs.values())[worker.capacity :]
            if job.state is JobState.ASSIGNED
        ]
        worker.taken_back.update((job.key, job.order) for job in beyond)
        for job in reversed(beyond):
            self._requeue(job, now)
        if beyond:
            self._to_worker(worker.peer, Cancel([list(job.key) for job in beyond]))
        worker.calculator.file(worker)  # it has no room any more
        self._see_to_those_who_wait(worker, SHUT_DOWN, now)

    def _given_back(
        self, worker: Worker, answer: Answer, payload: list[Buffer], now: float
    ) -> None:
        """Take what a worker says of a request that was taken back: most likely its refusal."""
        if answer.part is not None:
            return
        del worker.taken_back[answer.key]
        job = self.jobs.get(answer.key)
        if job is not None and job.state is JobState.QUEUED and not answer.is_refusal:
            self._was_computed(job, answer, payload, now)
        self._rest(worker)
        self._see_to_those_who_wait(worker, SHUT_DOWN, now)

    def _was_computed(self, job: Job, answer: Answer, payload: list[Buffer], now: float) -> None:
        """Answer a request that waits, which somebody had computed already."""
        self._forget(job, JobState.DONE)
        self.answers.keep(job.client, answer, payload, now)
        self._effects.append(ToClient(job.client, answer, payload))
