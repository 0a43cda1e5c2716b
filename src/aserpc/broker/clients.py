"""The broker's rules for clients: where an answer goes, and who has gone away."""

from __future__ import annotations

import logging

from aserpc.broker.answers import Answers
from aserpc.broker.effects import Effect, ToClient
from aserpc.broker.peers import is_remote
from aserpc.broker.records import Client, Job
from aserpc.broker.tables import JobState
from aserpc.messages import Message, Pong, RequestKey
from aserpc.timers import Timer, Timers

logger = logging.getLogger(__name__)

#: A client whose requests wait asks about them every second; one that was not heard for so long
#: is gone, s.
CLIENT_TIMEOUT = 30.0

#: How long a client's connection that broke may take to come back, s: on this machine it breaks
#: only when the process ends or is stopped; across a network it may have been a cable.
LOCAL_GRACE, REMOTE_GRACE = 2.0, 10.0

#: How soon connections are tried after one was closed, how often at the most, s, and how many
#: times: libzmq tells of the closing a little before sends fail.
TRIAL_DELAY, TRIAL_INTERVAL, TRIALS = 0.05, 1.0, 2


class Clients:
    """The clients whose requests wait, and the answers that they may not have."""

    def __init__(self, incarnation: bytes, orphan_ttl: float) -> None:
        self.incarnation = incarnation
        #: Those with requests, and for a while those that had some.
        self.clients: dict[bytes, Client] = {}
        self.jobs: dict[RequestKey, Job] = {}
        self._timers = Timers()
        self.answers = Answers(self._timers, orphan_ttl)
        self._effects: list[Effect] = []
        self._trials = 0
        self._trial: Timer | None = None
        self._tried_at = float("-inf")

    def _heard(self, peer: bytes, now: float) -> None:
        """Take it that a client is there."""
        client = self.clients.get(peer)
        if client is not None:
            client.last_heard, client.silent, client.gone_since = now, False, None

    def _follow(self, job: Job, peer: bytes, now: float) -> None:
        """Have the answer to a request go where it was asked for last."""
        before = self.clients.get(job.client)
        client = self.clients.get(peer)
        if client is None:
            client = self.clients[peer] = Client(peer, now)
            self._look_at(client, now + CLIENT_TIMEOUT / 2)
        if before is not None and before is not client:
            before.jobs.pop(job.key, None)  # not there if the client was given up meanwhile
            if before.gone_since is not None:
                # It has another connection: all that waited on the old one waits on this.
                for other in before.jobs.values():
                    other.client = peer
                client.jobs.update(before.jobs)
                before.jobs.clear()
        job.client = peer
        client.jobs[job.key] = job

    def _unfollow(self, job: Job) -> None:
        client = self.clients.get(job.client)
        if client is not None:
            client.jobs.pop(job.key, None)

    def client_unreachable(self, peer: bytes, now: float) -> None:
        """Take it that a client has no connection: it is gone, unless it comes back soon."""
        client = self.clients.get(peer)
        if client is not None and client.jobs and client.gone_since is None:
            client.gone_since = now
            self._look_at(client, now + (REMOTE_GRACE if is_remote(peer) else LOCAL_GRACE))

    def client_connection_closed(self, now: float) -> None:
        """Take it that some client's connection was closed: try those of all who wait, soon."""
        self._trials = TRIALS
        if self._trial is None:
            when = max(now + TRIAL_DELAY, self._tried_at + TRIAL_INTERVAL)
            self._trial = self._timers.at(when, self._try_clients)

    def _try_clients(self, _: None, now: float) -> None:
        self._trials -= 1
        self._tried_at = now
        self._trial = None
        if self._trials:
            self._trial = self._timers.at(now + TRIAL_INTERVAL, self._try_clients)
        for client in self.clients.values():
            if client.jobs:
                self._to_client(client.peer, Pong(self.incarnation))

    def _look_at(self, client: Client, when: float) -> None:
        self._timers.cancel(client.timer)
        client.timer = self._timers.at(when, self._check_client, client)

    def _check_client(self, client: Client, now: float) -> None:
        """Give up a client that is gone, or was silent twice: the broker may have been held up."""
        half = CLIENT_TIMEOUT / 2
        if not client.jobs:
            del self.clients[client.peer]
        elif client.gone_since is not None:
            self._client_ends(client, "its connection broke", now)
        elif now < client.last_heard + half:
            self._look_at(client, client.last_heard + half)
        elif not client.silent:
            client.silent = True
            self._look_at(client, now + half)
        else:
            self._client_ends(client, f"it was silent for {now - client.last_heard:.3g} s", now)

    def _client_ends(self, client: Client, why: str, now: float) -> None:
        """Drop what a client waited for; what is being computed goes on, and its answer is kept."""
        logger.info("a client with %d requests is gone: %s", len(client.jobs), why)
        del self.clients[client.peer]
        for job in list(client.jobs.values()):
            if job.state is JobState.RUNNING:
                self._move_job(job, JobState.ORPHANED)
            elif job.state is not JobState.ORPHANED:
                self._cancel(job, now)

    def _cancel(self, job: Job, now: float) -> None:
        """Drop a request; see `Requests`."""

    def _move_job(self, job: Job, state: JobState) -> None:
        """Change a request's state; see `Requests`."""

    def _to_client(self, peer: bytes, message: Message) -> None:
        self._effects.append(ToClient(peer, message, []))
