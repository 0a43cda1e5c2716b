"""Real states of broker, workers and clients, joined by links that deliver late or never."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from aserpc.broker.effects import Effect, ToClient
from aserpc.broker.peers import NOBODY, remote_peer
from aserpc.broker.roster import Roster, pack_roster, unpack_roster
from aserpc.client.state import ClientState, Resolve, Send
from aserpc.client.state import Effect as ClientEffect
from aserpc.errors import AserpcError
from aserpc.messages import Answer, Buffer, Message, Request, RequestKey, ShutdownRequest
from aserpc.worker.batching import Batching, Job, Limits
from aserpc.worker.state import WorkerState

from .builders import ORPHAN_TTL, QUEUE_TIMEOUT, WORKER_TIMEOUT, WatchedState, about, session
from .consistency import check_consistency

IDLE_TIMEOUT, HEARTBEAT, CLIENT_TIMEOUT = 40.0, 4.0, 15.0

Parcel = tuple[Message, list[Buffer]]


@dataclass
class Link:
    """What is on its way between the broker and a peer."""

    up: deque[Parcel] = field(default_factory=deque)
    down: deque[Parcel] = field(default_factory=deque)


@dataclass
class Client:
    state: ClientState
    link: Link = field(default_factory=Link)
    waits: set[RequestKey] = field(default_factory=set)
    ends: dict[RequestKey, str] = field(default_factory=dict)


@dataclass
class Worker:
    state: WorkerState
    link: Link = field(default_factory=Link)
    #: How many it computes together, and what it computes now.
    max_batch: int = 1
    #: How long it says that it computes, s: it may be sent several requests ahead.
    seconds: float = 0.0
    #: Whether its connection is broken.
    is_cut: bool = False
    batch: list[Job] = field(default_factory=list)
    computed: list[RequestKey] = field(default_factory=list)


class Network:
    """A broker with clients and workers; each event is one that the loops could bring."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clients = {b"client %d" % n: Client(ClientState("here")) for n in range(2)}
        self.workers: dict[bytes, Worker] = {}
        self.count = 0
        #: When each request was computed last.
        self.computed_at: dict[RequestKey, float] = {}
        #: Requests that may be computed again: what was known of them is lost.
        self.excused: set[RequestKey] = set()
        self.start_broker(Roster())

    # ---- the broker ------------------------------------------------------------------------------

    def start_broker(self, roster: Roster) -> None:
        self.count += 1
        self.broker = WatchedState(
            b"%016d" % self.count, WORKER_TIMEOUT, QUEUE_TIMEOUT, orphan_ttl=ORPHAN_TTL
        )
        self.broker.expect(unpack_roster(pack_roster(roster)), self.now)

    def restart_broker(self, *, stops: bool, keeps: int) -> None:
        """Replace the broker; of what it had not read, the first messages are lost."""
        sent = {key for worker in self.broker.workers.values() for key in worker.jobs}
        if stops:
            self.perform(self.broker.stop())
        for link in self.links():
            for _ in range(min(keeps, len(link.up))):
                self.lose(link.up.popleft())
        roster = self.broker.roster(self.now)
        # The roster tells of what takes long, and of nothing if the broker has told all that it
        # stops; answers that are kept are lost with the broker.
        told = {key for _, keys in roster.workers.values() for key in keys}
        self.excused |= {*self.computed_at} | (sent - told)
        self.start_broker(roster)

    def lose(self, parcel: Parcel) -> None:
        """Lose what a worker sent: what it has computed may have to be computed again."""
        if isinstance(parcel[0], Answer):
            self.excused.add(parcel[0].key)

    def cut(self, peer: bytes, *, unread: int, noticed: bool) -> None:
        """Break a client's connection; what is on its way is lost, but for what arrived before."""
        link = self.clients[peer].link
        link.up.clear()
        while len(link.down) > unread:
            link.down.pop()
        self.broker.client_connection_closed(self.now)
        if noticed:
            self.broker.client_unreachable(peer, self.now)

    def cut_worker(self, peer: bytes, *, lost: int, unread: int, back: bool) -> None:
        """Break the connection of a worker on another machine; `back`: it is there again at once.

        Lost is what was on its way, but not what the worker sends when its connection is back, nor
        what has arrived there.
        """
        worker = self.workers[peer]
        for _ in range(min(lost, len(worker.link.up))):
            self.lose(worker.link.up.popleft())
        while len(worker.link.down) > unread:
            worker.link.down.pop()
        known = self.broker.workers.get(peer)
        if known is not None:
            self.excused |= {*known.jobs}
        worker.is_cut = not back
        self.broker.connection_closed(self.now)

    def restore(self) -> None:
        """Have the connections of all workers be there again."""
        for worker in self.workers.values():
            worker.is_cut = False

    def links(self) -> list[Link]:
        links = [client.link for client in self.clients.values()]
        return links + [worker.link for worker in self.workers.values()]

    def perform(self, effects: list[Effect]) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            parcel = (effect.message, effect.payload)
            if isinstance(effect, ToClient):
                self.clients[effect.peer].link.down.append(parcel)
            elif effect.peer in self.workers and not self.workers[effect.peer].is_cut:
                self.workers[effect.peer].link.down.append(parcel)
            else:
                todo += self.broker.unreachable(effect.peer, effect.message, self.now)
        for worker in self.broker.workers.values():
            self.excused |= {*worker.taken_back}  # it may have begun it before it reads that
        check_consistency(self.broker)

    # ---- links -----------------------------------------------------------------------------------

    def deliver_up(self, peer: bytes, number: int = 1 << 30) -> None:
        """Have the broker read messages of a peer."""
        is_client = peer in self.clients
        if not is_client and self.workers[peer].is_cut:
            return
        link = self.clients[peer].link if is_client else self.workers[peer].link
        take = self.broker.from_client if is_client else self.broker.from_worker
        while link.up and number:
            message, payload = link.up.popleft()
            self.perform(take(peer, message, payload, self.now))
            number -= 1

    def deliver_down(self, peer: bytes, number: int = 1 << 30) -> None:
        """Have a peer read messages of the broker."""
        while number:
            number -= 1
            if peer in self.clients:
                client = self.clients[peer]
                if not client.link.down:
                    return
                message, payload = client.link.down.popleft()
                self.take(client, client.state.receive(message, payload, self.now))
            else:
                worker = self.workers.get(peer)
                # One that computes reads nothing.
                if worker is None or worker.batch or not worker.link.down:
                    return
                message, payload = worker.link.down.popleft()
                self.put(peer, worker.state.receive(message, payload, self.now))

    def deliver_all(self) -> None:
        while any(link.up or link.down for link in self.links()):
            before = [(len(link.up), len(link.down)) for link in self.links()]
            for peer in [*self.clients, *self.workers]:
                if peer in self.clients or peer in self.workers:
                    self.deliver_up(peer)
                self.deliver_down(peer)
            if before == [(len(link.up), len(link.down)) for link in self.links()]:
                return

    # ---- clients ---------------------------------------------------------------------------------

    def ask(self, peer: bytes, who: str, name: str, deadline: float | None) -> None:
        client = self.clients[peer]
        self.count += 1
        message = Request(session(who), self.count, name, deadline=deadline)
        client.waits.add(message.key)
        timeout = CLIENT_TIMEOUT if self.count % 3 else CLIENT_TIMEOUT / 3
        payload: list[Buffer] = [str(self.count).encode()]
        self.take(client, client.state.submit(message, payload, self.now, timeout, deadline))

    def shut_down(self, name: str) -> None:
        for client in self.clients.values():
            client.link.up.append((ShutdownRequest(1, name), []))

    def cancel(self, peer: bytes, key: RequestKey) -> None:
        client = self.clients[peer]
        client.waits.discard(key)
        self.take(client, client.state.cancel(key))

    def take(self, client: Client, effects: list[ClientEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                client.link.up.append((effect.message, effect.payload))
            elif isinstance(effect, Resolve):
                assert effect.key in client.waits, "resolved twice, or not asked"
                client.waits.discard(effect.key)
                client.ends[effect.key] = self.end(effect)
        assert {*client.state.pending} == client.waits

    def end(self, effect: Resolve) -> str:
        if effect.error is not None:
            assert isinstance(effect.error, AserpcError)
            return type(effect.error).__name__
        assert effect.answer is not None
        if effect.answer.error is not None:
            return str(effect.answer.error["kind"])
        assert effect.payload == [b"results of %d" % effect.key[1]], "another's answer"
        return "results"

    # ---- workers ---------------------------------------------------------------------------------

    def start_worker(
        self,
        name: str,
        capacity: int,
        max_batch: int = 1,
        seconds: float = 0.0,
        *,
        is_remote: bool = False,
    ) -> bytes:
        self.count += 1
        peer = b"worker %d" % self.count
        if is_remote:
            peer = remote_peer(NOBODY, peer)
        state = WorkerState(name, {}, IDLE_TIMEOUT, HEARTBEAT, self.now, capacity=capacity)
        self.workers[peer] = Worker(state, max_batch=max_batch, seconds=seconds)
        self.put(peer, state.start())
        return peer

    def load(self, peer: bytes) -> None:
        worker = self.workers[peer]
        batching = Batching(Limits(worker.max_batch))
        self.put(peer, worker.state.loaded(about(), self.now, batching))

    def begin(self, peer: bytes) -> None:
        """Have a worker begin to compute."""
        worker = self.workers[peer]
        if not worker.batch:
            worker.batch = worker.state.next_batch(self.now)

    def end_job(self, peer: bytes) -> None:
        """Have a worker answer what it computes, or the first of it."""
        worker = self.workers[peer]
        if worker.batch:
            job = worker.batch.pop(0)
            request, payload = job.request, job.payload
            assert payload == [str(request.id).encode()]
            worker.computed.append(request.key)
            before = self.computed_at.get(request.key, float("-inf"))
            if self.now < before + ORPHAN_TTL:
                assert request.key in self.excused, "it was computed twice"
                self.excused.discard(request.key)
            self.computed_at[request.key] = self.now
            results: list[Buffer] = [b"results of %d" % request.id]
            answer = Answer(*request.key, seconds=worker.seconds)
            self.put(peer, worker.state.computed(answer, self.now, results))

    def finish(self, peer: bytes) -> None:
        self.put(peer, self.workers[peer].state.finish(self.now))

    def kill(self, peer: bytes) -> None:
        """End a worker's process; what it sent may still arrive or not."""
        for parcel in self.workers.pop(peer).link.up:
            self.lose(parcel)
        self.broker.connection_closed(self.now)

    def put(self, peer: bytes, messages: list[Message]) -> None:
        worker = self.workers[peer]
        for message in messages:
            results: list[Buffer] = []
            if isinstance(message, Answer):
                results = list(worker.state.payload(message))
            worker.link.up.append((message, results))
        if worker.state.ended:
            assert worker.state.error is None
            self.deliver_up(peer)  # linger
            self.kill(peer)

    # ---- time ------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Let time pass; everybody ticks when it asked for it, workers that compute do not."""
        ends_at = self.now + seconds
        for _ in range(100_000):
            due = min(self.due())
            if due > ends_at:
                self.now = ends_at
                return
            self.now = max(self.now, due)
            self.perform(self.broker.tick(self.now))
            for client in self.clients.values():
                self.take(client, client.state.tick(self.now))
            for peer, worker in list(self.workers.items()):
                if not worker.batch:
                    self.put(peer, worker.state.tick(self.now))
        raise AssertionError("somebody asks for a tick and does nothing")

    def due(self) -> list[float]:
        due = [self.broker.next_tick(), *(c.state.next_tick() for c in self.clients.values())]
        due += [w.state.next_tick() for w in self.workers.values() if not w.batch]
        return [when for when in due if when is not None] + [float("inf")]
