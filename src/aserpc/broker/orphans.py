"""The broker's rules for what workers have or had computed for the broker before."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from aserpc.broker.ahead import Ahead
from aserpc.broker.records import Job, Worker
from aserpc.broker.tables import JobState
from aserpc.messages import Answer, Buffer, Cancel, Request, RequestKey

logger = logging.getLogger(__name__)

#: Of how many workers that were given up the late answers are told from those for other brokers.
MAX_GIVEN_UP = 10_000


class Orphans(Ahead):
    """The broker's requests, with those that only their workers know of."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        #: Workers that this broker has given up: what they had runs elsewhere.
        self._given_up: OrderedDict[bytes, None] = OrderedDict()

    def _give_up_worker(self, peer: bytes) -> None:
        """Note that a worker's late answers are to be dropped."""
        self._given_up[peer] = None
        if len(self._given_up) > MAX_GIVEN_UP:
            self._given_up.popitem(last=False)

    def _adopt(self, worker: Worker, key: RequestKey, now: float) -> None:
        """Take it that a worker computes a request that nobody has sent here yet."""
        job = Job(Request(*key, worker.calculator.name), [], worker.calculator, b"", now)
        job.state, job.is_known = JobState.ORPHANED, False
        job.worker, job.started_at, job.order = worker, now, worker.sent
        self.jobs[key] = worker.jobs[key] = job
        self._count(job, 0, now)

    def _claim(self, worker: Worker, running: Iterable[list[Any]], now: float) -> None:
        """Take what a worker says that it has: it is not to be computed elsewhere, too.

        What another worker has already, this one need not begin.
        """
        needless = []
        for session, number in running:
            key = (session, number)
            if key in worker.jobs:
                continue
            job = self.jobs.get(key)
            if job is None:
                if worker.inherited and self.answers.get(key) is None:
                    self._adopt(worker, key, now)
                    continue
            elif job.state is JobState.QUEUED and job.calculator is worker.calculator:
                job.calculator.remove(job)
                job.alone = False  # that worker lives
                worker.taken_back.pop(job.key, None)  # it is to say of it what it says of others
                self._assign(job, worker, now)
                continue
            needless.append([session, number])
        if needless:
            self._to_worker(worker.peer, Cancel(needless))

    def _late_answer(
        self,
        worker: Worker | None,
        answer: Answer,
        payload: list[Buffer],
        now: float,
    ) -> None:
        """Take the answer to a request of the broker before, or to one that was taken back.

        Others are dropped.
        """
        if worker is not None and answer.key in worker.taken_back:
            self._given_back(worker, answer, payload, now)
            return
        is_ours = worker is not None and not worker.inherited
        if answer.part is not None or answer.is_refusal or is_ours:
            return
        job = self.jobs.get(answer.key)
        if job is None:
            logger.info("keeping an answer to a request of the broker before")
            self.answers.keep(b"", answer, payload, now)
        elif job.state is JobState.QUEUED and not job.started_at:
            self._was_computed(job, answer, payload, now)
        # Else it runs elsewhere, or did: whoever answers first may be anybody's guess.
