"""The answers that a worker gave last, for a broker that has not got them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aserpc.messages import Answer, Buffer, RequestKey

#: For how long a worker keeps its last answers, s, as many as it may have requests, and how much of
#: them, in bytes: a broker that is killed takes with it what it had not passed on.
KEEP_TIME, KEEP_SIZE = 60.0, 64 << 20


@dataclass(slots=True)
class _Given:
    answer: Answer
    payload: Sequence[Buffer]
    since: float
    #: Whether it was given again.
    again: bool = False


class GivenAnswers:
    """The last answers, bounded in number, bytes and age."""

    def __init__(self) -> None:
        #: The oldest first.
        self._given: OrderedDict[RequestKey, _Given] = OrderedDict()
        self._size = 0

    def keep(self, answer: Answer, payload: Sequence[Buffer], now: float, most: int) -> None:
        """Keep an answer until it is sure to have arrived, with `most` at a time."""
        self._given[answer.key] = _Given(answer, payload, now)
        self._size += sum(map(len, payload))
        while len(self._given) > most or self._size > KEEP_SIZE:
            self._forget_first()

    def payload(self, answer: Answer) -> Sequence[Buffer]:
        """Return the payload of an answer."""
        given = self._given.get(answer.key)
        return () if given is None else given.payload

    def lost(self, answered: Sequence[Any], now: float) -> list[Answer]:
        """Return the answers that a broker has not, which has the last one that it names.

        Each is given again once: what the connection broke of twice would break it for ever.
        """
        self.forget_old(now)
        last = tuple(answered)
        while last in self._given:
            self._forget_first()
        lost = [given for given in self._given.values() if not given.again]
        for given in lost:
            given.again = True
        return [given.answer for given in lost]

    def forget_old(self, now: float) -> None:
        """Forget what is too old to be asked for."""
        while self._given and now >= next(iter(self._given.values())).since + KEEP_TIME:
            self._forget_first()

    def _forget_first(self) -> None:
        _, given = self._given.popitem(last=False)
        self._size -= sum(map(len, given.payload))
