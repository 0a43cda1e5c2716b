"""The worker's rules: when it registers, what it computes next, when it goes.

`WorkerState` takes messages and the time, and returns messages to send. It opens no socket, reads
no clock and calls no calculator.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from typing import Any

from aserpc.messages import (
    MAX_AHEAD,
    Answer,
    Buffer,
    Cancel,
    Dismiss,
    Failed,
    Goodbye,
    Heartbeat,
    Hello,
    Leave,
    Message,
    Probe,
    Ready,
    Refuse,
    Reject,
    Request,
    RequestKey,
    Shutdown,
    Stay,
    Stopping,
    Unknown,
    Welcome,
    failure,
)
from aserpc.worker.batching import Batching, Job
from aserpc.worker.given import GivenAnswers

logger = logging.getLogger(__name__)

#: How long the broker may take to answer before the worker says that it waits for one, s.
PATIENCE = 2.0

#: How often it says so, s.
WAITING_INTERVAL = 5.0

#: How long after it has registered it does not do so again, s, unless it was sent requests
#: meanwhile: the broker may have asked often while the worker computed.
REGISTER_INTERVAL = 1.0

#: How long a worker that goes waits for the broker's leave, s.
GOODBYE_TIMEOUT = 3.0

#: The same for one that could not make its calculator: whoever started it waits to hear why, s.
FAILED_TIMEOUT = 1.0


class Phase(Enum):
    """What a worker is at."""

    #: Makes its calculator.
    LOADING = "loading"
    #: Computes, or waits for requests.
    SERVING = "serving"
    #: Was idle for long and has asked the broker to let it go; a request makes it stay.
    LEAVING = "leaving"
    #: Takes nothing more; finishes what it computes, says goodbye and waits for the broker's word.
    FINISHING = "finishing"
    #: Is to end.
    ENDED = "ended"


#: (from, to): when.
TRANSITIONS: dict[tuple[Phase, Phase], str] = {
    (Phase.LOADING, Phase.SERVING): "the calculator is made",
    (Phase.LOADING, Phase.FINISHING): "the calculator can't be made, SHUTDOWN or a signal",
    (Phase.LOADING, Phase.ENDED): "REFUSE",
    (Phase.SERVING, Phase.LEAVING): "idle for `idle_timeout`",
    (Phase.SERVING, Phase.FINISHING): "SHUTDOWN, a signal or a calculation that hangs",
    (Phase.SERVING, Phase.ENDED): "REFUSE",
    (Phase.LEAVING, Phase.SERVING): "a request, or STAY",
    (Phase.LEAVING, Phase.FINISHING): "SHUTDOWN or a signal",
    (Phase.LEAVING, Phase.ENDED): "DISMISS, REFUSE, STOPPING, or no answer",
    (Phase.FINISHING, Phase.ENDED): "DISMISS, REFUSE, STOPPING, or no answer",
}


class WorkerState:
    """A worker, without its socket, its clock and its calculator.

    Parameters
    ----------
    name
        Calculator name that it serves.
    identity
        ``pid``, ``host`` and ``spawn_id``, for the broker and its log.
    idle_timeout
        Seconds without a request after which it asks to go.
    heartbeat_interval
        Seconds between signs of life.
    now
        The time, in monotonic seconds.
    capacity
        How many requests it is sent at a time; by default what its batches need.
    calculation_timeout
        Time after which it ends a calculation together with itself, s; None: never.
    """

    def __init__(
        self,
        name: str,
        identity: dict[str, Any],
        idle_timeout: float,
        heartbeat_interval: float,
        now: float,
        *,
        capacity: int | None = None,
        calculation_timeout: float | None = None,
    ) -> None:
        self.name = name
        self.identity = identity
        self.idle_timeout = idle_timeout
        self.heartbeat_interval = heartbeat_interval
        self.capacity = capacity
        self.calculation_timeout = calculation_timeout
        self.phase = Phase.LOADING
        #: Why the worker was refused, or could not make its calculator.
        self.error: str | None = None
        #: Since when no broker is heard, and why that is worth a word now; see `waiting_since`.
        self._asked_at: float | None = now
        self._complained_at = now
        self._about = b""
        self._is_known = False
        self._broker_stopped = False
        self._batching = Batching()
        self._backlog: OrderedDict[RequestKey, Job] = OrderedDict()
        self._computing: dict[RequestKey, None] = {}
        self._given = GivenAnswers()
        self._idle_since = now
        self._heartbeat_at = now + heartbeat_interval
        #: When it said what it has, if it has said nothing since that may have been lost.
        self._registered_at = float("-inf")
        #: How many requests the broker was told that the worker takes.
        self._told = 0
        #: How many requests the broker had sent when it asked for what is here.
        self._sent = 0
        self._ends_at = float("inf")

    @property
    def _takes(self) -> int:
        """How many requests it takes at a time; fewer when batches are given up."""
        return self.capacity or self._batching.capacity

    @property
    def ended(self) -> bool:
        """Whether the worker is to end now."""
        return self.phase is Phase.ENDED

    # ---- events ----------------------------------------------------------------------------------

    def start(self) -> list[Message]:
        """Begin to load."""
        return [Hello(self.name, self.identity)]

    def loaded(self, about: bytes, now: float, batching: Batching | None = None) -> list[Message]:
        """Take it that the calculator is made; `about` describes it, see `Ready`.

        Without `batching`, it computes one structure at a time.
        """
        self._about = about
        self._batching = batching or self._batching
        self._idle_since = now
        if self.phase is not Phase.LOADING:
            return []
        self._move(Phase.SERVING)
        return [self._register(now)]

    def load_failed(self, error: dict[str, Any], now: float) -> list[Message]:
        """Take it that the calculator can't be made; `error` as in `Answer.error`."""
        if self.phase is not Phase.LOADING:
            return []
        self.error = str(error.get("message", ""))
        self._move(Phase.FINISHING)
        self._ends_at = now + FAILED_TIMEOUT
        return [Failed(self.name, error)]

    def receive(self, message: Message, payload: list[Buffer], now: float) -> list[Message]:
        """Take a message from the broker."""
        self._asked_at = None
        taken = self.phase in (Phase.LOADING, Phase.SERVING)
        if isinstance(message, Welcome) and taken and not self._is_known:
            logger.info("registered with the broker as %r, %s", self.name, self.phase.value)
        self._is_known = not isinstance(message, Unknown | Stopping)
        self._broker_stopped = isinstance(message, Stopping)
        if isinstance(message, Request):
            return self._request(message, payload, now)
        if isinstance(message, Probe):
            self._beat(now)
            return [Heartbeat()]
        if isinstance(message, Unknown):
            # One that goes must get no more requests.
            wanted = self.phase in (Phase.LOADING, Phase.SERVING)
            late = now >= self._registered_at + REGISTER_INTERVAL or message.sent != self._sent
            self._sent = message.sent
            if not (wanted and late):
                return []
            return [*self._given.lost(message.answered, now), self._register(now)]
        if isinstance(message, Cancel):
            return self._cancel(message)
        if isinstance(message, Shutdown):
            return self.finish(now)
        if isinstance(message, Dismiss):
            if self.phase in (Phase.LEAVING, Phase.FINISHING):
                self._move(Phase.ENDED)
        elif isinstance(message, Stay):
            if self.phase is Phase.LEAVING:
                self._move(Phase.SERVING)
                self._idle_since = now
        elif isinstance(message, Refuse | Reject):
            if self.phase is not Phase.ENDED:
                self.error = message.reason
                self._move(Phase.ENDED)
        elif isinstance(message, Stopping):
            logger.info("the broker stops")
            if self.phase is Phase.LEAVING or (
                self.phase is Phase.FINISHING and not self._computing
            ):
                self._move(Phase.ENDED)
            self._asked_at = now
            self._registered_at = float("-inf")
        return []

    def next_batch(self, now: float) -> list[Job]:
        """Take the requests that are to be computed now, together; none: wait."""
        if self.begins_at() > now:
            return []
        batch = self._batching.take(self._backlog, self._idle_since)
        for job in batch:
            del self._backlog[job.request.key]
            self._computing[job.request.key] = None
        return batch

    def begins_at(self) -> float:
        """When `next_batch` has something to give, if nothing more comes."""
        if self.phase is not Phase.SERVING or not self._backlog or self._computing:
            return float("inf")
        return self._batching.begins_at(self._backlog, self._idle_since)

    def computed(self, answer: Answer, now: float, payload: Sequence[Buffer] = ()) -> list[Message]:
        """Take it that a request which `next_batch` gave is computed."""
        del self._computing[answer.key]
        self._given.keep(answer, payload, now, self._takes + MAX_AHEAD)
        self._idle_since = now
        self._registered_at = float("-inf")
        self._beat(now)
        replies: list[Message] = [answer]
        if self.phase is Phase.SERVING and self._takes != self._told:
            replies.append(self._register(now))
        if self.phase is Phase.FINISHING and not self._computing:
            replies.append(self._goodbye(now))
        return replies

    def payload(self, answer: Answer) -> Sequence[Buffer]:
        """Return the payload of an answer that is given again."""
        return self._given.payload(answer)

    def hung(
        self, keys: Collection[RequestKey], error: dict[str, Any], now: float
    ) -> list[Message]:
        """Take it that a calculation of these requests hangs, and the process ends with it.

        One that was alone is answered with the error. Of several, any may be to blame: all are to
        be computed again, each alone.
        """
        assert keys
        replies: list[Message] = []
        together: list[RequestKey] = []
        if len(keys) == 1:
            replies += [Answer(*key, error=error, about=self._about) for key in keys]
        else:
            together = list(keys)
        for key in keys:
            del self._computing[key]
        if self.phase is not Phase.FINISHING:
            self._move(Phase.FINISHING)
        return [*replies, self._goodbye(now, together)]

    def finish(self, now: float) -> list[Message]:
        """Take nothing more, and go when what is being computed is answered."""
        if self.phase in (Phase.FINISHING, Phase.ENDED):
            return []
        self._move(Phase.FINISHING)
        self._ends_at = float("inf")
        return [] if self._computing else [self._goodbye(now)]

    def tick(self, now: float) -> list[Message]:
        """Do what is due."""
        if self.phase is Phase.FINISHING and now >= self._ends_at:
            self._move(Phase.ENDED)
        elif self.phase is Phase.LEAVING and now >= self._ends_at:
            # No answer: there is no broker, and nobody who could send a request.
            self._move(Phase.ENDED)
        elif self.phase is Phase.SERVING and now >= self._leaves_at():
            logger.info("idle for %g s", now - self._idle_since)
            self._move(Phase.LEAVING)
            self._ends_at = now + GOODBYE_TIMEOUT
            return [Leave()]
        elif now >= self._heartbeat_at:
            self._beat(now)
            self._given.forget_old(now)
            if self._asked_at is None:
                self._asked_at = now
            return [Heartbeat()]
        return []

    def next_tick(self) -> float:
        """When `tick` has something to do."""
        if self.phase is Phase.SERVING:
            return min(self._heartbeat_at, self._leaves_at())
        return min(self._heartbeat_at, self._ends_at)

    def waiting_since(self, now: float) -> float | None:
        """Return since when the worker waits for a broker, when it is time to say so."""
        if self._asked_at is None or now < self._asked_at + PATIENCE:
            return None
        if now < self._complained_at + WAITING_INTERVAL and self._complained_at > self._asked_at:
            return None
        self._complained_at = now
        return self._asked_at

    # ---- steps -----------------------------------------------------------------------------------

    def _leaves_at(self) -> float:
        busy = self._backlog or self._computing
        return float("inf") if busy else self._idle_since + self.idle_timeout

    def _request(self, request: Request, payload: list[Buffer], now: float) -> list[Message]:
        if self.phase in (Phase.FINISHING, Phase.ENDED):
            return []  # the goodbye makes the broker send it elsewhere
        if self.phase is Phase.LEAVING:
            self._move(Phase.SERVING)
        if request.key not in self._backlog and request.key not in self._computing:
            self._backlog[request.key] = Job(request, payload, now)
        return []

    def _cancel(self, cancel: Cancel) -> list[Message]:
        replies: list[Message] = []
        for session, number in cancel.keys:
            if self._backlog.pop((session, number), None) is not None:
                reason = "cancelled before it was started"
                replies.append(Answer(session, number, error=failure("cancelled", reason)))
                self._registered_at = float("-inf")
        return replies

    def _register(self, now: float) -> Hello | Ready:
        self._registered_at = now
        self._beat(now)
        if self.phase is Phase.LOADING:
            return Hello(self.name, self.identity)
        self._told = self._takes
        return Ready(
            self.name,
            self.identity,
            self._about,
            self._told,
            [list(key) for key in (*self._computing, *self._backlog)],
            self._sent,
            self.calculation_timeout,
            self._batching.limits.structures,
        )

    def _goodbye(self, now: float, together: Iterable[RequestKey] = ()) -> Goodbye:
        returned = [list(key) for key in (*self._computing, *self._backlog)]
        self._backlog.clear()
        self._computing.clear()
        # A broker that stops was the last to take leave of.
        # One that has never been heard is hardly there.
        patience = GOODBYE_TIMEOUT if self._is_known else FAILED_TIMEOUT
        self._ends_at = now if self._broker_stopped else now + patience
        return Goodbye(returned, [list(key) for key in together])

    def _beat(self, now: float) -> None:
        self._heartbeat_at = now + self.heartbeat_interval

    def _move(self, phase: Phase) -> None:
        assert (self.phase, phase) in TRANSITIONS, (self.phase, phase)
        self.phase = phase
