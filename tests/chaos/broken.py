"""A broker that is broken on purpose, for the test of the chaos test.

Its process is called with how it is broken, and then as ``aserpc`` is.
"""

from __future__ import annotations

import dataclasses
import sys

from aserpc.broker.records import Job, Worker
from aserpc.broker.requests import Requests
from aserpc.cli import main as aserpc
from aserpc.messages import Answer, Buffer


def forget_a_requeue() -> None:
    """Have what a lost worker had never go back to its queue."""

    def requeue(self: Requests, job: Job, now: float) -> None:
        if job.worker is not None:
            self._release(job, now)

    Requests._requeue = requeue  # type: ignore[method-assign]


def drop_an_id_check() -> None:
    """Have any answer be that to the oldest request of the calculator."""
    answer_as_it_is = Requests._answer

    def answer(
        self: Requests, worker: Worker, answer: Answer, payload: list[Buffer], now: float
    ) -> None:
        busy = [other for other in worker.calculator.serving.values() if other.jobs]
        if not busy:
            return
        first = min(busy, key=lambda other: next(iter(other.jobs.values())).started_at)
        session, number = next(iter(first.jobs))
        taken = dataclasses.replace(answer, session=session, id=number)
        answer_as_it_is(self, first, taken, payload, now)

    Requests._answer = answer  # type: ignore[method-assign]


WAYS = {"forget a requeue": forget_a_requeue, "drop an id check": drop_an_id_check}


def main() -> None:
    """Be a broken broker."""
    WAYS[sys.argv.pop(1)]()
    aserpc()
