"""Final answers that their clients are not known to have: sent again to who asks again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aserpc.broker.peers import same_user
from aserpc.messages import Answer, Buffer, RequestKey
from aserpc.timers import Timer, Timers

#: The most that is kept, in bytes.
ANSWERS_SIZE = 256 << 20

#: What a message takes in memory besides its payload, and each frame of that, in bytes; measured.
MESSAGE_SIZE, FRAME_SIZE = 1500, 150


def weigh(payload: Sequence[Buffer]) -> int:
    """Return what a message takes in memory, in bytes."""
    return MESSAGE_SIZE + FRAME_SIZE * len(payload) + sum(map(len, payload))


@dataclass(slots=True, eq=False)
class Kept:
    """An answer that its client is not known to have."""

    #: Who was sent it last; empty: nobody has asked for it yet.
    client: bytes
    answer: Answer
    payload: list[Buffer]
    size: int
    expires_at: float


class Answers:
    """Final answers, bounded in bytes and age; the oldest go first.

    Parameters
    ----------
    timers
        What calls when answers are too old.
    age
        For how long an answer is kept, s.
    limit
        The most that is kept, in bytes.
    """

    def __init__(self, timers: Timers, age: float = 60.0, limit: int = ANSWERS_SIZE) -> None:
        self.age = age
        self.limit = limit
        #: What is kept now, in bytes.
        self.size = 0
        self._timers = timers
        self._timer: Timer | None = None
        #: The oldest first.
        self._kept: OrderedDict[RequestKey, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def is_timed(self) -> bool:
        """Whether a timer is set for the oldest, or for one that is here no longer."""
        return self._timer is not None

    def get(self, key: RequestKey) -> Kept | None:
        """Return an answer if it is kept."""
        return self._kept.get(key)

    def keep(self, client: bytes, answer: Answer, payload: list[Buffer], now: float) -> None:
        """Keep an answer that was sent to a client, or that nobody has asked for yet (empty).

        One that is larger than all that may be kept is not: it would push out every other.
        """
        size = weigh(payload) + len(answer.about)
        if size > self.limit or answer.key in self._kept:
            return
        kept = Kept(client, answer, payload, size, now + self.age)
        self._kept[answer.key] = kept
        self.size += size
        while self.size > self.limit:
            self._forget_oldest()
        if self._timer is None:
            self._timer = self._timers.at(kept.expires_at, self._expire)

    def acknowledge(self, client: bytes, ranges: Iterable[Sequence[Any]]) -> None:
        """Forget what has arrived; the ranges are those of `Request.received`."""
        for session, first, last in ranges:
            for number in range(first, last + 1):
                kept = self._kept.get((session, number))
                if kept is None:
                    continue
                if kept.client == client or same_user(kept.client, client):
                    del self._kept[session, number]
                    self.size -= kept.size

    def _forget_oldest(self) -> None:
        _, kept = self._kept.popitem(last=False)
        self.size -= kept.size

    def _expire(self, _: None, now: float) -> None:
        self._timer = None
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if oldest.expires_at > now:
                self._timer = self._timers.at(oldest.expires_at, self._expire)
                return
            self._forget_oldest()
