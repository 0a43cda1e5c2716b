"""The broker's rules: who gets which request, who is lost, what expires.

`BrokerState` takes messages and the time, and returns what is to be sent. It opens no socket and
reads no clock. Its rules for requests and for workers stand in `requests` and `workers`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from aserpc.broker.effects import Effect
from aserpc.broker.peers import is_remote, routing_id, same_user, user_of
from aserpc.broker.records import Manager, Worker
from aserpc.broker.restart import Restart
from aserpc.broker.snapshot import snapshot
from aserpc.broker.tables import JobState, WorkerState
from aserpc.broker.workers import SWEEP_TIME
from aserpc.messages import (
    Answer,
    Buffer,
    Cancel,
    Dismiss,
    Failed,
    Goodbye,
    Gpus,
    Heartbeat,
    Hello,
    Leave,
    Message,
    Offer,
    Ping,
    Ready,
    Refuse,
    Reject,
    Reload,
    Request,
    ShutdownRequest,
    SpawnFailed,
    Spawning,
    Status,
    StatusRequest,
    Stay,
    Stopping,
    Unknown,
    Welcome,
    WorkerEnded,
)

logger = logging.getLogger(__name__)


class BrokerState(Restart):
    """The broker, without its sockets and its clock.

    Each event returns what is to be sent. The parameters are those of `Requests`.
    """

    #: For how many clients there are messages that they have not taken, as the loop knows.
    unsent = 0

    def from_client(
        self, peer: bytes, message: Message, payload: list[Buffer], now: float
    ) -> list[Effect]:
        """Take a client's message."""
        self._heard(peer, now)
        if isinstance(message, Request):
            if message.received:
                self.answers.acknowledge(peer, message.received)
                message.received = []  # nothing that concerns the worker
            self._request(peer, message, payload, now)
        elif isinstance(message, Ping):
            self.answers.acknowledge(peer, message.received)
            self._ping(peer, message, now)
        elif isinstance(message, Cancel):
            self.answers.acknowledge(peer, [[*key, key[1]] for key in message.keys])
            for session, number in message.keys:
                job = self.jobs.get((session, number))
                if job is not None and same_user(job.client, peer):
                    self._cancel(job, now)
        elif isinstance(message, StatusRequest):
            status = snapshot(self.calculators, self.workers.values(), self.managers.values(), now)
            self._to_client(peer, Status(message.id, {**status, "tables": self._sizes()}))
        elif isinstance(message, ShutdownRequest):
            told = self._shut_down(message.calculator, now)
            self._to_client(peer, Status(message.id, {"workers": told}))
        elif isinstance(message, Reload):
            self._to_client(peer, Status(message.id, {"managers": self._reload()}))
        return self._take()

    def from_worker(
        self, peer: bytes, message: Message, payload: list[Buffer], now: float
    ) -> list[Effect]:
        """Take a worker's message."""
        worker = self.workers.get(peer)
        if worker is not None:
            worker.last_heard, worker.asked, worker.expected = now, False, False
            if worker.away_since is not None:
                self._is_back(worker, now)
        elif peer not in self.managers and (owner := self._owner(peer)) is not None:
            self._is_robbed(owner, now)
            return self._take()
        if worker is not None and isinstance(message, Answer):
            self._answer(worker, message, payload, now)
        elif isinstance(message, Hello):
            self._hello(peer, message, now)
        elif isinstance(message, Ready):
            self._ready(peer, message, now)
        elif isinstance(message, Offer):
            self._offer(peer, message, now)
        elif worker is None and peer in self.managers:
            self._from_manager(self.managers[peer], message, now)
        elif worker is None:
            # The answer of a worker that was given up is dropped: its request runs elsewhere.
            leaves = isinstance(message, Leave | Goodbye | Failed)
            if isinstance(message, Answer) and peer not in self._given_up:
                self._late_answer(None, message, payload, now)
            self._to_worker(peer, Dismiss() if leaves else Unknown())
        elif isinstance(message, Heartbeat):
            self._heartbeat(worker)
        elif isinstance(message, Leave):
            if worker.state is WorkerState.RETURNING:  # who wants to leave has nothing to do
                for orphan in reversed(list(worker.jobs.values())):
                    self._requeue(orphan, now)
            # With a request on its way to it, it stays: the request is the answer.
            if worker.jobs:
                pass
            elif self._is_kept(worker):
                self._to_worker(peer, Stay())
            else:
                self._end(worker, WorkerState.GONE, now, "it was idle")
                self._to_worker(peer, Dismiss())
        elif isinstance(message, Goodbye):
            # What it had not answered, `returned` or lost on the way to it, was not computed.
            for session, number in message.together:
                job = worker.jobs.get((session, number))
                if job is not None:
                    job.alone = True
            self._end(worker, WorkerState.GONE, now, "it said goodbye")
            self._to_worker(peer, Dismiss())
        elif isinstance(message, Failed):
            self._failed(worker, message, now)
        return self._take()

    def _sizes(self) -> dict[str, int]:
        """Return how much the broker keeps, of everything that it keeps."""
        return {
            "calculators": len(self.calculators),
            "requests": len(self.jobs),
            "clients": sum(bool(client.jobs) for client in self.clients.values()),
            "answers": len(self.answers),
            "workers": len(self.workers),
            "managers": len(self.managers),
            "processes": len(self.spawned),
            "deaths": len(self.deaths),
            "timers": len(self._timers) - self.routine_timers,
            "unsent": self.unsent,
        }

    @property
    def routine_timers(self) -> int:
        """How many timers are no request's, worker's or manager's.

        By them clients without requests, answers and what was sent ahead are looked at.
        """
        return len(self.clients) + self.answers.is_timed + (self._ahead_timer is not None)

    def _owner(self, peer: bytes) -> Worker | Manager | None:
        """Return whose routing id an unknown peer has taken."""
        if not is_remote(peer):
            return None
        mine = routing_id(peer)
        others: list[Worker | Manager] = [*self.workers.values(), *self.managers.values()]
        owners = (o for o in others if is_remote(o.peer) and routing_id(o.peer) == mine)
        return next(owners, None)

    def _is_robbed(self, owner: Worker | Manager, now: float) -> None:
        """Give up a peer that can't be reached: what is sent to it goes to another key's owner."""
        logger.warning("a peer with another key claims the connection of %s", owner.label)
        why = "its connection was claimed with another key"
        if isinstance(owner, Worker):
            self._end(owner, WorkerState.LOST, now, why)
        else:
            self._manager_ends(owner, why, now)

    def _from_manager(self, manager: Manager, message: Message, now: float) -> None:
        manager.last_heard, manager.asked, manager.away_since = now, False, None
        if isinstance(message, Spawning):
            self._spawning(manager, message, now)
        elif isinstance(message, SpawnFailed):
            self._spawn_failed(manager, message)
        elif isinstance(message, Gpus):
            manager.gpus = message.gpus
        elif isinstance(message, WorkerEnded):
            self._process_ended(manager, message, now)
        elif isinstance(message, Heartbeat):
            self._to_worker(manager.peer, Unknown() if manager.returning else Welcome())
        elif isinstance(message, Goodbye):
            self._manager_ends(manager, "it said goodbye", now)
            self._to_worker(manager.peer, Dismiss())

    def refused(self, peer: bytes, reason: str, *, is_worker: bool) -> list[Effect]:
        """Tell a peer that it may not say what it said."""
        send = self._to_worker if is_worker else self._to_client
        send(peer, Refuse(reason))
        return self._take()

    def revoked(self, users: Collection[bytes], now: float) -> list[Effect]:
        """Drop all that has to do with keys that are not allowed any more."""
        for job in [job for job in self.jobs.values() if user_of(job.client) in users]:
            self._cancel(job, now)
        reason = "its key is not allowed any more"
        for worker in [w for w in self.workers.values() if user_of(w.peer) in users]:
            self._to_worker(worker.peer, Refuse(reason))
            self._end(worker, WorkerState.GONE, now, reason)
        for manager in [m for m in self.managers.values() if user_of(m.peer) in users]:
            self._to_worker(manager.peer, Refuse(reason))
            self._manager_ends(manager, reason, now)
        return self._take()

    def rejected(self, peer: bytes, reason: str, *, is_worker: bool) -> list[Effect]:
        """Answer a peer that sent what could not be read."""
        send = self._to_worker if is_worker else self._to_client
        send(peer, Reject(reason))
        return self._take()

    def unreachable(self, peer: bytes, undelivered: Message, now: float) -> list[Effect]:
        """Take it that a worker has no connection: it is lost."""
        worker = self.workers.get(peer)
        if worker is not None:
            if isinstance(undelivered, Request) and undelivered.key in worker.jobs:
                # It was no attempt, and those after it will not arrive either.
                for key in reversed(list(worker.jobs)):
                    self._requeue(worker.jobs[key], now)
                    if key == undelivered.key:
                        break
            self._connection_broke(worker, now)
            self._dispatch(worker.calculator, now)
        elif peer in self.managers:
            self._manager_is_away(self.managers[peer], now)
        return self._take()

    def connection_closed(self, now: float) -> None:
        """Take it that some worker's connection was closed: try them all, soon."""
        if self._sweep_until is None:
            self._timers.at(now + 0.01, self._sweep)
        self._sweep_until = now + SWEEP_TIME

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        self._timers.run(now)
        return self._take()

    def next_tick(self) -> float | None:
        """When `tick` has something to do."""
        return self._timers.next()

    def stop(self) -> list[Effect]:
        """Tell those who wait, and the workers, that the broker stops."""
        self.stopping = self.roster_changed = True
        for job in list(self.jobs.values()):
            self._fail(job, JobState.FAILED, "broker_stopped", "the broker was stopped")
        for peer in (*self.workers, *self.managers):
            self._to_worker(peer, Stopping())
        return self._take()
