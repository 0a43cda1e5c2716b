"""A worker's state at a desk: with a clock, and short ways to tell it things."""

from __future__ import annotations

from typing import Any

from aserpc.messages import Answer, Message, RequestKey, Unknown, Welcome
from aserpc.worker.batching import Batching
from aserpc.worker.state import Phase, WorkerState

from .builders import about, request

IDLE_TIMEOUT, HEARTBEAT = 30.0, 4.0
IDENTITY = {"pid": 1, "host": "h"}


class Watched(WorkerState):
    """A worker's state that remembers its transitions."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        self.moves: set[tuple[Phase, Phase]] = set()
        super().__init__(*args, **fields)

    def _move(self, phase: Phase) -> None:
        self.moves.add((self.phase, phase))
        super()._move(phase)


class Desk:
    """A worker's state with a clock."""

    def __init__(
        self,
        now: float = 500.0,
        *,
        serves: bool = True,
        capacity: int | None = None,
        batching: Batching | None = None,
    ) -> None:
        self.now = now
        self.state = Watched("lj", IDENTITY, IDLE_TIMEOUT, HEARTBEAT, now, capacity=capacity)
        self.state.start()
        if serves:
            self.state.loaded(about(), now, batching)
            self.get(Welcome())

    def get(self, message: Message) -> list[Message]:
        return self.state.receive(message, [], self.now)

    def get_unknown(self) -> list[Message]:
        """Get from a broker that does not know what it has sent."""
        return self.get(Unknown())

    def ask(self, number: int = 0) -> RequestKey:
        message = request(number)
        assert self.get(message) == []
        return message.key

    def begin(self) -> RequestKey | None:
        batch = self.state.next_batch(self.now)
        assert len(batch) <= 1
        return batch[0].request.key if batch else None

    def end(self, key: RequestKey) -> list[Message]:
        return self.state.computed(Answer(*key), self.now)

    def wait(self, seconds: float) -> list[Message]:
        """Let time pass, ticking whenever the state asks for it; return what it sent."""
        ends_at, sent = self.now + seconds, []
        while not self.state.ended and self.state.next_tick() <= ends_at:
            self.now = max(self.now, self.state.next_tick())
            sent += self.state.tick(self.now)
        self.now = ends_at
        return sent


def kinds(messages: list[Message]) -> list[str]:
    return [message.KIND for message in messages]
