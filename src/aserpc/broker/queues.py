"""The queue of one session: higher priority first, then first come, first served."""

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
