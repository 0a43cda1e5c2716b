"""Which of a worker's requests are computed together, and when.

No clock and no calculator here: the time is an argument, and whoever knows payloads counts atoms.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from aserpc.messages import Buffer, Request, RequestKey

#: Of how many batches, the last ones, it is remembered how many clients there were.
REMEMBERED = 2

#: Fewest atoms that the limit of a batch is lowered to; a single structure may have any number.
FEWEST_ATOMS = 8


@dataclass(frozen=True)
class Limits:
    """How large a batch may be, and how long a request waits for company.

    Attributes
    ----------
    structures : int
        Most structures in a batch; 1: each is computed alone.
    atoms : int
        Most atoms in a batch of several structures.
    wait : float
        Longest time that a request waits for others, s; 0: what is there is taken.
    """

    structures: int = 1
    atoms: int = 512
    wait: float = 0.0


@dataclass(slots=True, eq=False)
class Job:
    """A request that a worker has."""

    request: Request
    payload: list[Buffer]
    #: When it came.
    since: float
    #: How many atoms it has; None: not counted yet.
    atoms: int | None = None


class Batching:
    """Chooses batches.

    Requests share a batch if their options are equal. The one that has waited longest is always in
    it, so that none is overtaken for ever.

    Parameters
    ----------
    limits
        How large a batch may be.
    count
        Returns the number of atoms in a payload.
    """

    def __init__(
        self, limits: Limits | None = None, count: Callable[[list[Buffer]], int] = len
    ) -> None:
        self.limits = limits or Limits()
        self._count = count
        #: How many clients there were at once, lately, and those of the last batch.
        self._there: deque[int] = deque(maxlen=REMEMBERED)
        self._last: set[bytes] = set()

    @property
    def capacity(self) -> int:
        """How many requests the worker should be sent: a batch, and what gathers meanwhile.

        One that computes each alone takes one: others could compute what it would hoard.
        """
        structures = self.limits.structures
        return 1 if structures == 1 else 2 * structures

    def begins_at(self, waiting: Mapping[RequestKey, Job], free_since: float) -> float:
        """Return when the next batch should begin, if nothing more comes; ``-inf``: now.

        It is waited until there are as many requests as there were clients at once lately: one that
        is alone never waits.

        Parameters
        ----------
        waiting
            What there is, in the order in which it came; not empty.
        free_since
            Since when nothing is computed.
        """
        limits = self.limits
        if limits.structures == 1 or not limits.wait:
            return float("-inf")
        batch, is_full = self._choose(waiting)
        if is_full or len(batch) >= max(self._there, default=1):
            return float("-inf")
        first = next(iter(waiting.values()))
        return max(first.since, free_since) + limits.wait

    def take(
        self, waiting: Mapping[RequestKey, Job], free_since: float = float("-inf")
    ) -> list[Job]:
        """Return what is to be computed together now; the arguments are those of `begins_at`."""
        batch, _ = self._choose(waiting)
        if self.limits.wait:
            # Who asked before the last batch was answered is none of its clients come again: they
            # were there at once. Of those who asked later nobody knows: a script may well have a
            # session for each of its structures.
            also = {job.request.session for job in waiting.values() if job.since <= free_since}
            sessions = {job.request.session for job in batch}
            self._there.append(max(len(sessions), len(self._last | also) if also else 0))
            self._last = sessions
        return batch

    def lower(self, atoms: int) -> bool:
        """Take it that there was not the memory for so many atoms; return if a limit changes."""
        fewer = max(FEWEST_ATOMS, atoms // 2)
        if fewer >= self.limits.atoms:
            return False
        self.limits = replace(self.limits, atoms=fewer)
        return True

    def stop(self) -> None:
        """Choose single requests from now on."""
        self.limits = replace(self.limits, structures=1)

    def _choose(self, waiting: Mapping[RequestKey, Job]) -> tuple[list[Job], bool]:
        """Return a batch, and whether nothing more that fits could be added."""
        jobs = iter(waiting.values())
        first = next(jobs)
        batch = [first]
        if self.limits.structures == 1 or len(waiting) == 1:
            return batch, self.limits.structures == 1
        atoms = self._atoms(first)
        is_full = False
        for job in jobs:
            if len(batch) == self.limits.structures:
                break
            if job.request.options != first.request.options:
                continue
            more = self._atoms(job)
            if atoms + more > self.limits.atoms:
                is_full = True  # perhaps a smaller one fits
                continue
            atoms += more
            batch.append(job)
        return batch, is_full or len(batch) == self.limits.structures

    def _atoms(self, job: Job) -> int:
        if job.atoms is None:
            job.atoms = self._count(job.payload)
        return job.atoms
