"""The broker's rules for requests whose workers died: who is to blame, and with what evidence."""

from __future__ import annotations

from dataclasses import dataclass, field

from aserpc.broker.orphans import Orphans
from aserpc.broker.records import Calculator, Job, Worker
from aserpc.broker.tables import JobState
from aserpc.messages import Answer, WorkerEnded, failure
from aserpc.slow_links import lost_at_workers, size_of
from aserpc.timers import Timer

#: A request that this many workers were seen to die of is refused.
MAX_ATTEMPTS = 2

#: The same for workers that were lost, seen to die or not: a request can't wander for ever.
MAX_LOSSES = 5

#: A request that was lost on its way to workers this often, or whose answer was on its way back, is
#: refused: it is perhaps too large for their connections.
MAX_STRAYS = 5

#: How long an answer may take from a worker on this machine, s: it is lost if the worker dies
#: meanwhile of the next request.
ANSWER_TIME = 1.0

#: How long the last words of a worker may take to come from its manager, s.
EVIDENCE_TIME = 1.0

#: For how long a death is remembered, s: the network may have hidden it from the manager's host.
EVIDENCE_AGE = 60.0


@dataclass(slots=True, eq=False)
class Death:
    """The loss of a worker in the middle of one request or several."""

    worker: str
    how: str
    #: Whether its end was seen, and nobody wanted it: by the socket on this machine or by its
    #: manager. A lost connection across a network is no verdict.
    seen: bool
    #: The request that it computed; of several that it may have computed together, the first.
    job: Job
    #: How many those may have been.
    together: int = 1
    #: The `calculation_timeout` that the calculation had reached; None: it had not.
    overdue: float | None = None
    #: Whether its manager may tell more.
    open: bool = False
    #: When it is remembered no longer.
    timer: Timer | None = None
    #: The end of its output.
    output: str = field(default="", repr=False)

    @property
    def counts(self) -> bool:
        """Whether it tells against the request: one of several may have died of another."""
        return self.seen and self.together == 1

    def __str__(self) -> str:
        """Tell the evidence."""
        output = f". Its last lines:\n{self.output}" if self.output else ""
        return f"{self.worker}: {self.how}{output}"


class Deaths(Orphans):
    """The broker's requests, and the workers that died of them."""

    def _died(self, worker: Worker, how: str, now: float, *, seen: bool) -> list[Job]:
        """Note that a worker was lost; return the requests that it may have computed.

        Where there may be several, each is computed alone from now on, and only that counts.
        """
        jobs = suspects(worker, now)
        if not jobs:
            return []
        first, limit, spawn_id = jobs[0], worker.calculation_timeout, worker.spawn_id
        together = len(jobs)
        if now < first.started_at + ANSWER_TIME:  # it may have been answered, and another begun
            together = len(worker.jobs) + len(worker.taken_back)
        late = limit is not None and now >= first.started_at + limit and together == 1
        overdue = limit if late else None
        is_open = spawn_id in self.spawned
        death = Death(worker.label, how, seen, first, together, overdue, is_open)
        for job in jobs:
            if job.state is not JobState.CANCELLED:  # of which nothing more is to be decided
                job.deaths.append(death)
            job.alone = True
        if spawn_id is not None and death.open:
            self.deaths[spawn_id] = death
            death.timer = self._timers.at(now + EVIDENCE_AGE, self._forget_death, spawn_id)
        return jobs

    def _forget_death(self, spawn_id: str, now: float) -> None:  # noqa: ARG002
        del self.deaths[spawn_id]

    def _decide(self, job: Job, now: float) -> None:
        """Send a request whose worker died to another one, or refuse it."""
        is_over = job.state is JobState.CANCELLED
        if is_over or job.deaths[-1].together > 1 or verdict(job) is None:
            self._requeue(job, now)
        elif job.deaths[-1].open:
            self._release(job, now)
            self._move_job(job, JobState.CONDEMNED)
            self._timers.cancel(job.timer)
            job.timer = self._timers.at(now + EVIDENCE_TIME, self._refuse, job)
        else:
            self._refuse(job, now)

    def _see_to(self, calculator: Calculator, why: str, now: float) -> None:
        """See that those who wait have something to wait for; see `Workers`."""

    def _send_again(self, job: Job, now: float) -> None:
        """Send a request elsewhere that was lost on its way to a worker, or whose answer was."""
        job.strays += 1
        if job.strays < MAX_STRAYS or job.state is JobState.CANCELLED:
            self._requeue(job, now)
            return
        name, size = job.calculator.name, size_of(job.payload)
        reason = lost_at_workers(name, size, job.strays)
        self._fail(job, JobState.FAILED, "worker_lost", reason)

    def _refuse(self, job: Job, now: float) -> None:
        found = verdict(job)
        assert found is not None
        self._fail(job, JobState.FAILED, *found)
        # Should this get lost on its way, asking again must not cost more workers.
        self.answers.keep(job.client, Answer(*job.key, error=failure(*found)), [], now)
        self._dispatch(job.calculator, now)  # as in `_cancel`

    def _worker_ended(self, ended: WorkerEnded, now: float) -> None:
        """Take what a manager tells of a worker that was lost in mid-calculation."""
        death = self.deaths.get(ended.spawn_id)
        if death is not None:
            death.how, death.output = ended.how, ended.output
            self._settle_death(ended.spawn_id, now, seen=not ended.told)

    def _lives(self, worker: Worker, now: float) -> None:
        """Take it that a worker which was lost is there again: it did not die."""
        if worker.spawn_id is not None and worker.spawn_id in self.deaths:
            self._settle_death(worker.spawn_id, now, seen=False)

    def _settle_death(self, spawn_id: str, now: float, *, seen: bool) -> None:
        """Take it that more will not be known of a death, and see what that means for its job."""
        death = self.deaths.pop(spawn_id)
        self._timers.cancel(death.timer)
        death.open, death.seen = False, seen
        job = death.job
        if self.jobs.get(job.key) is not job:
            return
        if verdict(job) is None:
            if job.state is JobState.CONDEMNED:
                self._timers.cancel(job.timer)
                if job.deadline is not None:
                    job.timer = self._timers.at(job.deadline, self._deadline_passed, job)
                self._requeue(job, now)
                self._see_to(job.calculator, f"the last, {death.worker}: {death.how}", now)
                self._tell_demand(job.calculator, now)
        elif job.state in (JobState.QUEUED, JobState.CONDEMNED):
            self._refuse(job, now)
        # Another worker computes it: its answer, or its death, decides.


def suspects(worker: Worker, now: float) -> list[Job]:
    """Return the requests that a worker may be computing.

    It is the first one, unless that was sent just now and others after it: its answer may have been
    on the way. A batch begins with the first, and has no other options than that.
    """
    jobs = list(worker.jobs.values())
    if not jobs:
        return []
    first = jobs[0]
    if worker.max_batch > 1:
        options = first.request.options
        return [job for job in jobs if job.request.options == options][: worker.max_batch]
    if len(jobs) > 1 and now < first.started_at + ANSWER_TIME:
        return jobs
    return [first] if first.state is JobState.RUNNING else []


def verdict(job: Job) -> tuple[str, str] | None:
    """Return with which error, and why, a request is refused; None: it is tried again."""
    if not job.deaths:
        return None
    last = job.deaths[-1]
    seen = [death for death in job.deaths if death.counts]
    if last.overdue is not None and last.seen:
        why = f"the calculation took longer than {last.overdue:g} s (calculation_timeout)"
        return "calculation_timeout", f"{why}; it was ended with its worker. {last}"
    if len(seen) >= MAX_ATTEMPTS:
        why = f"{len(seen)} workers died while they computed it, so it is refused"
        return "poison", "\n".join([f"{why}.", *map(str, seen)])
    if len(job.deaths) >= MAX_LOSSES:
        why = f"{len(job.deaths)} workers were lost while they computed it"
        return "worker_lost", "\n".join([f"{why}.", *map(str, job.deaths)])
    return None
