"""A client's state at a desk: with a clock, and a tray for what it decided."""

from __future__ import annotations

from typing import TypeVar

from aserpc.client.state import ClientState, Effect, News, Resolve, Send
from aserpc.messages import Message, Ping, Pong, RequestKey

from .builders import request

M = TypeVar("M", bound=Message)

TIMEOUT = 10.0
INCARNATION = b"i" * 16


class Desk:
    """A client's state with a clock; it keeps what was decided."""

    def __init__(self, now: float = 300.0) -> None:
        self.now = now
        self.state = ClientState("ipc://somewhere")
        self.sent: list[Send] = []
        self.news: list[News] = []
        self.ends: dict[RequestKey, Resolve] = {}

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.sent.append(effect)
            elif isinstance(effect, News):
                self.news.append(effect)
            else:
                assert effect.key not in self.ends, "resolved twice"
                self.ends[effect.key] = effect
        groups = self.state._by_timeout
        assert all(groups.values()), "an empty group is kept"
        assert {key for group in groups.values() for key in group} == {*self.state.pending}
        timed = sum(pending.timer is not None for pending in self.state.pending.values())
        assert len(self.state._deadlines) <= timed, "deadlines leak"

    def ask(
        self,
        number: int = 0,
        timeout: float = TIMEOUT,
        deadline: float | None = None,
        payload: bytes = b"atoms",
    ) -> RequestKey:
        message = request(number, deadline=deadline)
        self.perform(self.state.submit(message, [payload], self.now, timeout, deadline))
        return message.key

    def get(self, message: Message, *payload: bytes) -> None:
        self.perform(self.state.receive(message, [*payload], self.now))

    def wait(self, seconds: float, *, broker: bool = False, known: bool = True) -> None:
        """Let time pass; `broker`: with one that answers pings and knows the requests or not."""
        ends_at = self.now + seconds
        while (due := self.state.next_tick()) is not None and due <= ends_at:
            self.now = max(self.now, due)
            before = len(self.sent)
            self.perform(self.state.tick(self.now))
            assert self.state.next_tick() != due, "the tick that was asked for did nothing"
            for send in self.sent[before:]:
                if broker and isinstance(send.message, Ping):
                    self.get(pong(*send.message.keys) if known else lost(*send.message.keys))
        self.now = ends_at

    def take(self, kind: type[M]) -> list[M]:
        taken = [send.message for send in self.sent if isinstance(send.message, kind)]
        self.sent = [send for send in self.sent if not isinstance(send.message, kind)]
        return taken

    def error(self, key: RequestKey) -> BaseException:
        error = self.ends[key].error
        assert error is not None
        return error


def pong(*keys: list[object] | RequestKey) -> Pong:
    return Pong(INCARNATION, [[*key, "queued", "waits"] for key in keys])


def lost(*keys: list[object] | RequestKey, number: int = 1 << 30) -> Pong:
    """Say that requests are unknown; to a ping of this number, by default the latest."""
    return Pong(INCARNATION, [], [list(key) for key in keys], number)
