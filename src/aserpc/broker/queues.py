"""The order of what waits: sessions take turns; within one, priority, then first come."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aserpc.broker.records import Job
    from aserpc.messages import RequestKey


class SessionQueue:
    """Jobs of one session that wait; no operation's cost grows with their number."""

    __slots__ = ("_groups", "_order")

    def __init__(self) -> None:
        #: By priority; none is empty.
        self._groups: dict[int, OrderedDict[RequestKey, Job]] = {}
        #: The priorities, the highest last; there are few.
        self._order: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def __bool__(self) -> bool:
        return bool(self._order)

    def __iter__(self) -> Iterator[Job]:
        for priority in reversed(self._order):
            yield from self._groups[priority].values()

    def put(self, job: Job, *, first: bool = False) -> None:
        """Queue a job; `first`: before the others of its priority."""
        priority, key = job.request.priority, job.request.key
        group = self._groups.get(priority)
        if group is None:
            group = self._groups[priority] = OrderedDict()
            bisect.insort(self._order, priority)
        group[key] = job
        if first:
            group.move_to_end(key, last=False)

    def first(self) -> Job:
        """Return the job whose turn it is; there must be one."""
        return next(iter(self._groups[self._order[-1]].values()))

    def pop(self) -> Job:
        """Take the job whose turn it is; there must be one."""
        group = self._groups[self._order[-1]]
        _, job = group.popitem(last=False)
        if not group:
            del self._groups[self._order.pop()]
        return job

    def remove(self, job: Job) -> None:
        """Take out a job that is in it."""
        priority = job.request.priority
        group = self._groups[priority]
        del group[job.request.key]
        if not group:
            del self._groups[priority]
            del self._order[bisect.bisect_left(self._order, priority)]


class Turns:
    """The queues of the sessions that wait, each with one turn a round.

    A session that comes within a round is among the first of the next one: it waits for those that
    have not had their turn yet, and for none that just had it. So one request beside a thousand of
    another session waits for the one that is computed.

    No operation's cost grows with the number of sessions.
    """

    __slots__ = ("_came", "_due", "_had", "_rest")

    def __init__(self) -> None:
        #: This round's, in order: first those that came within the last one, then the others.
        self._due: OrderedDict[bytes, SessionQueue] = OrderedDict()
        self._rest: OrderedDict[bytes, SessionQueue] = OrderedDict()
        #: The next round's: those that came within this one, and those that had their turn.
        self._came: OrderedDict[bytes, SessionQueue] = OrderedDict()
        self._had: OrderedDict[bytes, SessionQueue] = OrderedDict()

    def __iter__(self) -> Iterator[SessionQueue]:
        for group in (self._due, self._rest, self._came, self._had):
            yield from group.values()

    def put(self, job: Job, *, first: bool = False) -> None:
        """Queue a job; `first`: before its session's others, which takes the next turn."""
        session = job.request.session
        group = self._group(session)
        if group is None:
            group = self._came
            group[session] = SessionQueue()
        group[session].put(job, first=first)
        if first:
            self._due[session] = group.pop(session)
            self._due.move_to_end(session, last=False)

    def first(self) -> Job:
        """Return the job whose turn it is; some job must wait."""
        return next(iter(self._next().values())).first()

    def pop(self) -> Job:
        """Take the job whose turn it is; some job must wait."""
        group = self._next()
        if group is self._came or group is self._had:
            self._due, self._rest = self._came, self._had
            self._came, self._had = OrderedDict(), OrderedDict()
        session, queue = group.popitem(last=False)
        job = queue.pop()
        if queue:
            self._had[session] = queue
        return job

    def remove(self, job: Job) -> None:
        """Take out a job that waits."""
        session = job.request.session
        group = self._group(session)
        assert group is not None
        group[session].remove(job)
        if not group[session]:
            del group[session]

    def _next(self) -> OrderedDict[bytes, SessionQueue]:
        return self._due or self._rest or self._came or self._had

    def _group(self, session: bytes) -> OrderedDict[bytes, SessionQueue] | None:
        for group in (self._due, self._rest, self._came, self._had):
            if session in group:
                return group
        return None
