"""Any history of clients and workers: each request is answered once, where it was asked last.

And computed once: answers that are lost, clients that come back and a broker that is killed cost no
second calculation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aserpc.broker.clients import CLIENT_TIMEOUT, LOCAL_GRACE
from aserpc.broker.deaths import MAX_ATTEMPTS
from aserpc.broker.records import AHEAD_TIME, ONE_AHEAD_TIME
from aserpc.broker.restart import LONG
from aserpc.broker.tables import JobState
from aserpc.messages import (
    Answer,
    Cancel,
    Dismiss,
    Ready,
    Refuse,
    Request,
    RequestKey,
    Unknown,
    failure,
)

from .builders import QUEUE_TIMEOUT, WORKER_TIMEOUT, House, about, ready, session

#: For how long answers are kept, s.
ORPHAN_TTL = 25.0

CLIENTS = (b"client 0", b"client 1", b"client 2")
numbers = st.integers(0, 1000)
names = st.sampled_from(["lj", "lj", "lj", "emt"])
times = st.sampled_from([1.0, ONE_AHEAD_TIME, AHEAD_TIME / 4])


@dataclass
class Model:
    """A worker as it is: what the broker should come to know."""

    name: str
    is_ready: bool = False
    #: The requests that reached it and that it has not answered, in order.
    has: list[RequestKey] = field(default_factory=list)
    #: What it says when it registers again.
    capacity: int = 1
    max_batch: int = 1
    differs: int = 0
    #: How long it says that it computes, s: it may be sent several requests ahead.
    seconds: float = 0.0

    def ready(self, running: Iterable[RequestKey] = ()) -> Ready:
        """Return what it says of itself."""
        return ready(
            self.name,
            self.capacity,
            running,
            description=about(args=[self.differs]),
            max_batch=self.max_batch,
        )


class BrokerMachine(RuleBasedStateMachine):
    """Clients, workers, time and accidents around a broker's state."""

    @initialize(mixed=st.booleans(), capacities=st.lists(st.integers(1, 3), max_size=3))
    def begin(self, mixed: bool, capacities: list[int]) -> None:
        self.house = House(allow_mixed=mixed, orphan_ttl=ORPHAN_TTL, max_queue=40)
        self.workers: dict[bytes, Model] = {}
        #: Who asked last, for each request that has no answer and is not cancelled.
        self.open: dict[RequestKey, bytes] = {}
        self.ended: set[RequestKey] = set()
        #: All requests.
        self.asked: dict[RequestKey, Request] = {}
        #: Those of `open` whose answers did not arrive, and those whose clients are gone.
        self.lost: set[RequestKey] = set()
        self.gone: set[RequestKey] = set()
        #: When a worker answered last, for each request.
        self.answered_at: dict[RequestKey, float] = {}
        #: Clients whose next answers do not arrive.
        self.deaf: set[bytes] = set()
        self.count = 0
        for capacity in capacities:
            self.hello("lj")
            self.is_ready(0, capacity, 0, False, 0.0)

    # ---- the model -------------------------------------------------------------------------------

    def settle(self) -> None:
        """Have everybody read their mail, and that which comes of it."""
        while any(self.house.mail[peer] for peer in (*self.workers, *CLIENTS)):
            for peer in list(self.workers):
                self.read(peer)
            for peer in CLIENTS:
                for key in self.house.answers(peer):
                    assert self.open.get(key) == peer, "not asked, answered, or another's"
                    if peer in self.deaf:
                        self.lost.add(key)
                        continue
                    del self.open[key]
                    self.lost.discard(key)
                    self.ended.add(key)
                self.house.mail[peer].clear()

    def read(self, peer: bytes) -> None:
        """Have a worker read its mail."""
        worker = self.workers[peer]
        for message in self.house.mail.pop(peer, []):
            if isinstance(message, Request) and message.key not in worker.has:
                assert worker.is_ready
                assert message.calculator == worker.name
                worker.has.append(message.key)
            elif isinstance(message, Cancel):
                # What it computes it goes on with.
                for key in [key for key in worker.has[1:] if [*key] in message.keys]:
                    worker.has.remove(key)
                    self.house.answer(peer, key, error=failure("cancelled", ""))
            elif isinstance(message, Dismiss | Refuse):
                self.workers.pop(peer, None)
            elif isinstance(message, Unknown) and self.house.state.incarnation == b"j" * 16:
                # One that computes says nothing.
                if not worker.is_ready:
                    self.house.load(peer, name=worker.name)
                elif not worker.has:
                    self.house.worker(peer, worker.ready())

    def has_answered(self, peer: bytes, key: RequestKey) -> None:
        """Have a worker answer a request: the second time only if the first was long ago."""
        before = self.answered_at.get(key, float("-inf"))
        assert self.house.now >= before + ORPHAN_TTL, "it was computed twice"
        self.answered_at[key] = self.house.now
        self.house.answer(peer, key, seconds=self.workers[peer].seconds)

    def some(self, number: int, *, ready: bool | None = None) -> bytes | None:
        """Pick a worker."""
        peers = [p for p, w in self.workers.items() if ready is None or w.is_ready is ready]
        return peers[number % len(peers)] if peers else None

    def known(self, number: int) -> RequestKey:
        """Pick a request that waits."""
        return list(self.open)[number % len(self.open)]

    # ---- clients ---------------------------------------------------------------------------------

    @rule(
        sessions=st.text("abc", min_size=1, max_size=4),
        peer=st.sampled_from(CLIENTS),
        name=names,
        deadline=st.sampled_from([None, None, 0.0, 1.0, 30.0]),
        op=st.sampled_from(["calculate"] * 4 + ["describe"]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
    )
    def ask(
        self,
        sessions: str,
        peer: bytes,
        name: str,
        deadline: float | None,
        op: str,
        priority: int,
    ) -> None:
        for who in sessions:
            self.count += 1
            key = session(who), self.count
            self.open[key] = peer
            received = [[*old, old[1]] for old in list(self.ended)[-3:]]
            self.asked[key] = Request(
                *key, name, op, deadline=deadline, received=received, priority=priority
            )
            self.house.client(self.asked[key], peer)
        self.settle()

    @precondition(lambda self: self.open)
    @rule(number=numbers, peer=st.sampled_from(CLIENTS))
    def ask_again(self, number: int, peer: bytes) -> None:
        key = self.known(number)
        self.open[key] = peer
        if key in self.lost:
            self.ask_for_lost(number, peer)
            return
        job = self.house.job(key)
        before = (job.state, job.worker, job.attempts, self.house.state.jobs.copy())
        self.house.client(job.request, peer)
        assert before == (job.state, job.worker, job.attempts, self.house.state.jobs)

    @precondition(lambda self: self.open)
    @rule(number=numbers, peer=st.sampled_from(CLIENTS))
    def ping(self, number: int, peer: bytes) -> None:
        key = self.known(number)
        self.open[key] = peer
        keys = [key, *list(self.ended)[:2]]
        pong = self.house.ping(*keys, peer=peer)
        known = [] if key in self.lost else [key]
        assert [tuple(entry[:2]) for entry in pong.known] == known
        assert len(pong.unknown) == len(keys) - len(known)

    @precondition(lambda self: self.open)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        key = self.known(number)
        del self.open[key]
        self.lost.discard(key)
        self.ended.add(key)
        self.house.cancel(key)
        self.settle()

    @rule(number=numbers)
    def lose_an_answer(self, number: int) -> None:
        peer = self.some(number, ready=True)
        if peer is not None and self.workers[peer].has:
            key = self.workers[peer].has.pop(0)
            before, self.deaf = self.deaf, {*CLIENTS}
            self.has_answered(peer, key)
            self.settle()
            self.deaf = before

    @precondition(lambda self: self.lost)
    @rule(number=numbers, peer=st.sampled_from(CLIENTS))
    def ask_for_lost(self, number: int, peer: bytes) -> None:
        key = sorted(self.lost)[number % len(self.lost)]
        self.open[key] = peer
        self.lost.remove(key)
        is_kept = self.house.state.answers.get(key) is not None
        assert is_kept or self.house.now >= self.answered_at.get(key, -1e9) + ORPHAN_TTL
        self.house.client(self.asked[key], peer)
        self.settle()
        assert not is_kept or key in self.ended | self.lost

    @rule(peer=st.sampled_from(CLIENTS))
    def lose_answers(self, peer: bytes) -> None:
        """Have a client lose what it is sent, until it listens again."""
        self.deaf.symmetric_difference_update({peer})

    @rule(peer=st.sampled_from(CLIENTS), how=st.sampled_from(["broken", "silent"]))
    def lose_a_client(self, peer: bytes, how: str) -> None:
        """Have a client go, for longer than it may."""
        self.house.silent.add(peer)
        if how == "broken":
            self.house.state.client_unreachable(peer, self.house.now)
        self.let_live(LOCAL_GRACE if how == "broken" else 1.5 * CLIENT_TIMEOUT)
        self.house.silent.remove(peer)
        for key in [key for key, client in self.open.items() if client == peer]:
            del self.open[key]
            self.lost.discard(key)
            self.gone.add(key)
        self.settle()

    @precondition(lambda self: self.gone)
    @rule(number=numbers, peer=st.sampled_from(CLIENTS))
    def come_back(self, number: int, peer: bytes) -> None:
        """Have a client that was gone ask again."""
        key = sorted(self.gone)[number % len(self.gone)]
        self.gone.remove(key)
        self.open[key] = peer
        self.house.client(self.asked[key], peer)
        self.settle()

    @rule(early=st.booleans())
    def kill_the_broker(self, early: bool) -> None:
        """Kill the broker; the next one finds clients and workers that were not told.

        `early`: all answer what they compute before their clients come back.
        """
        has: dict[bytes, list[RequestKey]] = {}
        while not early and has != (has := {p: [*w.has] for p, w in self.workers.items()}):
            self.house.wait(LONG)  # all of it is in the roster, unless it is taken back meanwhile
            self.settle()
        self.settle()
        self.house.restart()
        for peer, worker in list(self.workers.items()) if early else ():
            while worker.has:
                self.has_answered(peer, worker.has.pop(0))
        for key in self.lost | self.gone:  # their answers were kept by the one that is killed
            self.answered_at.pop(key, None)
        self.house.wait(1.0)
        self.settle()
        for key, peer in list(self.open.items()):
            assert not self.house.ping(key, peer=peer).known
            self.lost.discard(key)
            self.house.client(self.asked[key], peer)
            self.settle()

    # ---- workers ---------------------------------------------------------------------------------

    @precondition(lambda self: len(self.workers) < 6)
    @rule(name=names, capacity=st.integers(1, 3), batches=st.booleans(), seconds=times)
    def serve(self, name: str, capacity: int, batches: bool, seconds: float) -> None:
        self.hello(name)
        self.is_ready(len(self.workers) - 1, capacity, 0, batches, seconds)

    @precondition(lambda self: len(self.workers) < 6)
    @rule(name=names)
    def hello(self, name: str) -> None:
        self.count += 1
        peer = b"worker %d" % self.count
        self.workers[peer] = Model(name)
        self.house.load(peer, name=name)

    @rule(
        number=numbers,
        capacity=st.integers(1, 3),
        differs=st.sampled_from([0, 0, 0, 1]),
        batches=st.booleans(),
        seconds=times,
    )
    def is_ready(
        self, number: int, capacity: int, differs: int, batches: bool, seconds: float
    ) -> None:
        peer = self.some(number, ready=False)
        if peer is not None:
            worker = self.workers[peer]
            worker.seconds = seconds
            capacity, most = (2 * capacity, capacity) if batches else (capacity, 1)
            worker.capacity, worker.max_batch = capacity, most
            worker.is_ready, worker.differs = True, differs
            self.house.worker(peer, worker.ready())
            self.settle()

    @rule(number=numbers, capacity=st.integers(1, 3), loses=st.booleans())
    def is_ready_again(self, number: int, capacity: int, loses: bool) -> None:
        peer = self.some(number, ready=True)
        if peer is not None:
            worker = self.workers[peer]
            if loses:
                worker.has = worker.has[:-1]
            worker.capacity = capacity
            self.house.worker(peer, worker.ready(worker.has))
            self.settle()

    @rule(number=numbers, which=st.integers(0, 3))
    def answer(self, number: int, which: int) -> None:
        peer = self.some(number, ready=True)
        if peer is not None and self.workers[peer].has:
            has = self.workers[peer].has
            key = has.pop(which % len(has))
            if which == 3:
                self.house.worker(peer, Answer(*key, part=0))
            self.has_answered(peer, key)
            self.settle()

    @rule()
    def work(self) -> None:
        """Have each worker answer what it computes."""
        for peer, worker in list(self.workers.items()):
            if worker.has:
                self.has_answered(peer, worker.has.pop(0))
        self.settle()

    @precondition(lambda self: self.open)
    @rule(number=numbers, which=numbers)
    def answer_what_it_has_not(self, number: int, which: int) -> None:
        peer, key = self.some(number), self.known(which)
        if peer is not None and key not in self.workers[peer].has and key not in self.lost:
            job = self.house.job(key)
            if job.state is not JobState.QUEUED or job.started_at:
                self.house.answer(peer, key)
                self.settle()
                assert key in self.open

    def leave(self, number: int) -> None:
        peer = self.some(number, ready=True)
        if peer is not None and not self.workers[peer].has:
            assert self.house.leave(peer)
            del self.workers[peer]
            self.settle()

    def goodbye(self, number: int) -> None:
        peer = self.some(number)
        if peer is not None:
            has = self.workers[peer].has
            hung = number % 3 if len(has) > 1 else 0
            self.house.goodbye(peer, *has[hung:], together=has[:hung])
            self.settle()
            assert peer not in self.workers

    def fail(self, number: int) -> None:
        peer = self.some(number, ready=False)
        if peer is not None:
            self.house.fail(peer, name=self.workers[peer].name)
            self.settle()
            assert peer not in self.workers

    def vanish(self, number: int, *, noticed: bool = False) -> None:
        peer = self.some(number)
        if peer is not None:
            del self.workers[peer]
            self.house.cut.add(peer)
            if noticed:
                self.house.state.connection_closed(self.house.now)
                self.house.wait(1.0)
            self.settle()

    def die(self, number: int) -> None:
        self.vanish(number, noticed=True)

    @rule(
        event=st.sampled_from(
            ["leave", "goodbye", "fail", "vanish", "die", "die", "silence", "shut_down"]
        ),
        number=numbers,
    )
    def lose_a_worker(self, event: str, number: int) -> None:
        """Lose one in one of many ways; they share a rule so that workers live for a while."""
        getattr(self, event)(number)

    # ---- time and orders -------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 3.0, WORKER_TIMEOUT / 2, QUEUE_TIMEOUT]))
    def wait(self, seconds: float) -> None:
        """Let time pass while the workers are alive."""
        self.let_live(seconds)

    def let_live(self, seconds: float) -> None:
        """Let time pass while the workers are alive."""
        ends_at = self.house.now + seconds
        while self.house.now < ends_at:
            for peer in self.workers:
                self.house.beat(peer)
            self.house.wait(min(WORKER_TIMEOUT / 4, ends_at - self.house.now))
            self.settle()

    def silence(self, number: int) -> None:
        """Let time pass while the workers are hung: idle ones are lost, others stay."""
        has = {peer for peer, worker in self.workers.items() if worker.has}
        loading = {peer for peer, worker in self.workers.items() if not worker.is_ready}
        self.house.wait(2 * WORKER_TIMEOUT)
        for peer in list(self.workers):
            if peer not in self.house.state.workers:
                assert peer not in has | loading
                del self.workers[peer]
        self.settle()

    def shut_down(self, number: int) -> None:
        name = "lj" if number % 2 else "emt"
        count = sum(w.calculator.name == name for w in self.house.state.workers.values())
        assert self.house.shut_down(name) == count
        self.settle()

    # ---- what always holds -----------------------------------------------------------------------

    @invariant()
    def no_request_is_lost(self) -> None:
        jobs = self.house.state.jobs
        orphans = {key for key, job in jobs.items() if job.state is JobState.ORPHANED}
        assert {*jobs} - orphans == {*self.open} - self.lost
        assert not orphans & {*self.open}

    @invariant()
    def nothing_is_kept_that_has_arrived(self) -> None:
        for key in self.ended & {*self.answered_at}:
            kept = self.house.state.answers.get(key)
            assert kept is None or self.house.now < self.answered_at[key] + ORPHAN_TTL

    @invariant()
    def workers_have_what_the_broker_thinks(self) -> None:
        for peer, worker in self.house.state.workers.items():
            if peer in self.workers:
                assert [*worker.jobs] == self.workers[peer].has
            assert all(job.attempts < MAX_ATTEMPTS for job in worker.jobs.values())

    @invariant()
    def a_deadline_that_passed_leaves_nothing_in_the_queue(self) -> None:
        for job in self.house.state.jobs.values():
            if job.state is JobState.QUEUED and job.deadline is not None:
                assert job.deadline >= self.house.now

    def teardown(self) -> None:
        """Have the workers finish: then nothing is left."""
        if not hasattr(self, "house"):
            return
        self.house.wait(2 * WORKER_TIMEOUT)  # dead ones are noticed, idle ones lost
        self.settle()
        self.deaf.clear()
        for key in list(self.lost):
            self.lost.remove(key)
            self.house.client(self.asked[key], self.open[key])
        self.settle()
        for peer in list(self.house.state.workers):
            self.house.goodbye(peer)
        self.settle()
        self.house.wait(QUEUE_TIMEOUT)
        self.settle()
        assert not self.open
        assert self.house.is_empty()


TestBroker = BrokerMachine.TestCase
TestBroker.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
