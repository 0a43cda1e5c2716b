"""The client's rules: which answer is whose, when to ask for news, when to stop waiting.

`ClientState` takes messages and the time, and returns what to send and what has been decided. One
belongs to one socket, on which any number of requests may wait.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, TypeAlias

from aserpc.errors import (
    AserpcError,
    BrokerSilentError,
    DeadlineError,
    NotAllowedError,
    ProtocolError,
)
from aserpc.messages import (
    MAX_RECEIVED,
    Answer,
    Buffer,
    Cancel,
    Message,
    Ping,
    Pong,
    Refuse,
    Reject,
    Request,
    RequestKey,
)
from aserpc.slow_links import LARGE, advice, lost_often, size_of
from aserpc.timers import Timer, Timers

#: How long there may be no news before the broker is asked, s; less where the timeout is short.
PING_INTERVAL = 1.0

#: Requests that one `Ping` asks about.
PING_SIZE = 1000

#: How often a request that the broker does not know is sent again.
MAX_RESENDS = 10

#: The same for one that may be too large for its connection.
MAX_LARGE_RESENDS = 3

#: Answers that have arrived and that the broker may not know of; it keeps none of them for long.
MAX_ARRIVED = 10 * MAX_RECEIVED


@dataclass(slots=True)
class Send:
    """Send to the broker."""

    message: Message
    payload: list[Buffer]


@dataclass(slots=True)
class Resolve:
    """A request has come to its end: by an answer, or by an error of the client's own."""

    key: RequestKey
    answer: Answer | None
    payload: list[Buffer]
    error: AserpcError | None


@dataclass(slots=True)
class News:
    """The broker has told how a request fares."""

    key: RequestKey
    calculator: str
    state: str
    text: str


Effect: TypeAlias = Send | Resolve | News


@dataclass(slots=True)
class Pending:
    """A request that waits for its answer."""

    request: Request
    payload: list[Buffer]
    #: Seconds without a word of the broker after which to give up.
    timeout: float
    #: When to give up in any case.
    deadline: float
    sent_at: float
    heard_at: float
    resends: int = 0
    #: Number of the last ping before it was sent: what older ones tell of it is no news.
    pinged: int = 0
    #: What falls due at the deadline.
    timer: Timer | None = None


class ClientState:
    """The requests that wait on one socket.

    Parameters
    ----------
    where
        The broker's address, for messages.
    numbers
        Of pings; each greater than the one before.
    """

    def __init__(self, where: str, numbers: Iterator[int] | None = None) -> None:
        self.where = where
        self._numbers = count(1) if numbers is None else numbers
        self._last_ping = 0
        #: The one longest without news first.
        self.pending: OrderedDict[RequestKey, Pending] = OrderedDict()
        #: The same by their timeout, the one that was sent first is first.
        self._by_timeout: dict[float, OrderedDict[RequestKey, Pending]] = {}
        self._effects: list[Effect] = []
        self._deadlines = Timers()
        self._heard_at = float("-inf")
        self._pinged_at = float("-inf")
        #: When the broker was first asked after it was heard last; None: it was not.
        self._asked_at: float | None = None
        #: Answers that have arrived; the next message to the broker tells of them.
        self._arrived: deque[RequestKey] = deque(maxlen=MAX_ARRIVED)

    def submit(
        self,
        request: Request,
        payload: list[Buffer],
        now: float,
        timeout: float,
        deadline: float | None = None,
    ) -> list[Effect]:
        """Send a request.

        Parameters
        ----------
        timeout
            Seconds of silence after which to give up: while the broker says that it has the
            request, the client waits.
        deadline
            Seconds after which to give up in any case.
        """
        if not self.pending:
            self._asked_at = None
        ends_at = now + deadline if deadline is not None else float("inf")
        pending = Pending(request, payload, timeout, ends_at, now, now, pinged=self._last_ping)
        self.pending[key := request.key] = pending
        self._by_timeout.setdefault(timeout, OrderedDict())[key] = pending
        if deadline is not None:
            pending.timer = self._deadlines.at(ends_at, self._deadline_passed, pending)
        if self._arrived:
            request.received = self._received()  # no copy: this is on the way of every call
        return [Send(request, payload)]

    def cancel(self, key: RequestKey) -> list[Effect]:
        """Stop waiting for a request."""
        if self._remove(key) is None:
            return []
        return [Send(Cancel([list(key)]), [])]

    def close(self) -> list[Effect]:
        """Tell the broker of the last answers that have arrived."""
        return [Send(Ping(received=self._received()), [])] if self._arrived else []

    def receive(self, message: Message, payload: list[Buffer], now: float) -> list[Effect]:
        """Take a message from the broker."""
        self._heard_at, self._asked_at = now, None
        if isinstance(message, Answer):
            return self._answer(message, payload, now)
        if isinstance(message, Pong):
            return self._pong(message, now)
        if isinstance(message, Reject):
            text = f"the broker at {self.where} answered: {message.reason}"
            return self.refuse(ProtocolError(text))
        if isinstance(message, Refuse):
            text = f"the broker at {self.where} refuses it: {message.reason}"
            return self.refuse(NotAllowedError(text))
        return []

    def refuse(self, error: AserpcError) -> list[Effect]:
        """Take it that the broker takes nothing from here: all that waits ends with an error."""
        keys = list(self.pending)
        for key in keys:
            self._remove(key)
        return [Resolve(key, None, [], error) for key in keys]

    def tick(self, now: float) -> list[Effect]:
        """Ask for news, and give up what has waited too long."""
        self._deadlines.run(now)
        for pending in self._sent_first():
            first: Pending | None = pending
            while first is not None and now >= self._silence_ends(first):
                self._give_up(first, self._silence(first))
                first = next(iter(self._by_timeout.get(first.timeout, {}).values()), None)
        if self.pending and now >= self._ping_due():
            interval = self._interval()
            silent = [
                list(key)
                for key, pending in islice(self.pending.items(), PING_SIZE)
                if now >= pending.heard_at + interval
            ]
            self._pinged_at = now
            if self._asked_at is None:
                self._asked_at = now
            self._last_ping = next(self._numbers)
            self._effects.append(Send(Ping(silent, self._last_ping, self._received()), []))
        effects, self._effects = self._effects, []
        return effects

    def next_tick(self) -> float | None:
        """When `tick` has something to do."""
        if not self.pending:
            return None
        due = self._ping_due()
        if self._asked_at is not None:
            due = min(due, *map(self._silence_ends, self._sent_first()))
        deadline = self._deadlines.next()
        return due if deadline is None else min(due, deadline)

    # ---- steps -----------------------------------------------------------------------------------

    def _answer(self, answer: Answer, payload: list[Buffer], now: float) -> list[Effect]:
        key = answer.key
        pending = self.pending.get(key)
        if answer.part is None:
            self._arrived.append(key)
        if pending is None:
            return []  # late: nobody waits for it any more
        if answer.part is not None:
            pending.heard_at = now
            self.pending.move_to_end(key)
            return []
        self._remove(key)
        return [Resolve(key, answer, payload, None)]

    def _received(self) -> list[Any]:
        """Return what `Request.received` says of the answers that have arrived."""
        arrived = self._arrived
        if len(arrived) == 1:
            session, number = arrived.pop()
            return [[session, number, number]]
        ranges: list[list[Any]] = []
        for session, number in sorted(
            arrived.popleft() for _ in range(min(len(arrived), MAX_RECEIVED))
        ):
            if ranges and ranges[-1][0] == session and number <= ranges[-1][2] + 1:
                ranges[-1][2] = number
            else:
                ranges.append([session, number, number])
        return ranges

    def _pong(self, pong: Pong, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for session, number, state, text in pong.known:
            key = (session, number)
            pending = self.pending.get(key)
            if pending is not None:
                pending.heard_at = now
                self.pending.move_to_end(key)
                name = pending.request.calculator
                effects.append(News(key, name, str(state), str(text)))
        for session, number in pong.unknown:
            key = (session, number)
            pending = self.pending.get(key)
            if pending is None or pong.id <= pending.pinged:
                continue
            pending.resends += 1
            size = size_of(pending.payload)
            most = MAX_RESENDS if size < LARGE else MAX_LARGE_RESENDS
            if pending.resends > most:
                self._remove(key)
                way = f"to or from the broker at {self.where}"
                text = lost_often(pending.request.calculator, size, pending.resends, way)
                effects.append(Resolve(key, None, [], BrokerSilentError(text)))
                continue
            pending.heard_at = pending.sent_at = now
            pending.pinged = self._last_ping
            self.pending.move_to_end(key)
            self._by_timeout[pending.timeout].move_to_end(key)
            request = replace(pending.request, received=[])
            if request.deadline is not None:
                request.deadline = max(0.0, pending.deadline - now)
            effects.append(Send(request, pending.payload))
        return effects

    def _give_up(self, pending: Pending, error: AserpcError) -> None:
        key = pending.request.key
        self._remove(key)
        self._effects += [Send(Cancel([list(key)]), []), Resolve(key, None, [], error)]

    def _remove(self, key: RequestKey) -> Pending | None:
        pending = self.pending.pop(key, None)
        if pending is not None:
            group = self._by_timeout[pending.timeout]
            del group[key]
            if not group:
                del self._by_timeout[pending.timeout]
            if pending.timer is not None:
                self._deadlines.cancel(pending.timer)
        return pending

    def _deadline_passed(self, pending: Pending, now: float) -> None:  # noqa: ARG002
        name = pending.request.calculator
        self._give_up(pending, DeadlineError(f"the deadline of the request to {name!r} passed"))

    def _silence(self, pending: Pending) -> AserpcError:
        return BrokerSilentError(
            f"no word from the broker at {self.where} for {pending.timeout:g} s; the request to "
            f"{pending.request.calculator!r} is given up. Is the broker running? See: aserpc "
            f"status{advice(size_of(pending.payload))}"
        )

    def _silence_ends(self, pending: Pending) -> float:
        """Return when to give up: not before the broker was asked and had time to answer.

        It may be this process that was held up, stopped with Ctrl-Z or in long native code.
        """
        if self._asked_at is None:
            return float("inf")
        ends_at = max(self._heard_at, pending.sent_at) + pending.timeout
        return max(ends_at, self._asked_at + self._interval())

    def _sent_first(self) -> list[Pending]:
        """Return of each timeout the request that was sent first; there are few timeouts."""
        return [next(iter(group.values())) for group in self._by_timeout.values()]

    def _longest_without_news(self) -> Pending:
        return next(iter(self.pending.values()))

    def _interval(self) -> float:
        return min(PING_INTERVAL, min(self._by_timeout) / 4)

    def _ping_due(self) -> float:
        return max(self._longest_without_news().heard_at, self._pinged_at) + self._interval()
