"""Any history of clients and workers: each request is answered once, where it was asked last."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aserpc.broker.deaths import MAX_ATTEMPTS
from aserpc.broker.tables import JobState
from aserpc.messages import (
    Answer,
    Cancel,
    Dismiss,
    Refuse,
    Request,
    RequestKey,
    failure,
)

from .builders import QUEUE_TIMEOUT, WORKER_TIMEOUT, House, about, ready, session

CLIENTS = (b"client 0", b"client 1", b"client 2")
numbers = st.integers(0, 1000)
names = st.sampled_from(["lj", "lj", "lj", "emt"])


@dataclass
class Model:
    """A worker as it is: what the broker should come to know."""

    name: str
    is_ready: bool = False
    #: The requests that reached it and that it has not answered, in order.
    has: list[RequestKey] = field(default_factory=list)


class BrokerMachine(RuleBasedStateMachine):
    """Clients, workers, time and accidents around a broker's state."""

    @initialize(mixed=st.booleans(), capacities=st.lists(st.integers(1, 3), max_size=3))
    def begin(self, mixed: bool, capacities: list[int]) -> None:
        self.house = House(allow_mixed=mixed)
        self.workers: dict[bytes, Model] = {}
        #: Who asked last, for each request that has no answer and is not cancelled.
        self.open: dict[RequestKey, bytes] = {}
        self.ended: set[RequestKey] = set()
        self.count = 0
        for capacity in capacities:
            self.hello("lj")
            self.is_ready(0, capacity, 0, False)

    # ---- the model -------------------------------------------------------------------------------

    def settle(self) -> None:
        """Have everybody read their mail, and that which comes of it."""
        while any(self.house.mail[peer] for peer in (*self.workers, *CLIENTS)):
            for peer in list(self.workers):
                self.read(peer)
            for peer in CLIENTS:
                for key in self.house.answers(peer):
                    assert self.open.pop(key, None) == peer, "not asked, answered, or another's"
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
    )
    def ask(self, sessions: str, peer: bytes, name: str, deadline: float | None, op: str) -> None:
        for who in sessions:
            self.count += 1
            self.open[session(who), self.count] = peer
            self.house.ask(self.count, who, name, peer, deadline=deadline, op=op)
        self.settle()

    @precondition(lambda self: self.open)
    @rule(number=numbers, peer=st.sampled_from(CLIENTS))
    def ask_again(self, number: int, peer: bytes) -> None:
        key = self.known(number)
        self.open[key] = peer
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
        assert [tuple(entry[:2]) for entry in pong.known] == [key]
        assert len(pong.unknown) == len(keys) - 1

    @precondition(lambda self: self.open)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        key = self.known(number)
        del self.open[key]
        self.ended.add(key)
        self.house.cancel(key)
        self.settle()

    # ---- workers ---------------------------------------------------------------------------------

    @precondition(lambda self: len(self.workers) < 6)
    @rule(name=names, capacity=st.integers(1, 3), batches=st.booleans())
    def serve(self, name: str, capacity: int, batches: bool) -> None:
        self.hello(name)
        self.is_ready(len(self.workers) - 1, capacity, 0, batches)

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
    )
    def is_ready(self, number: int, capacity: int, differs: int, batches: bool) -> None:
        peer = self.some(number, ready=False)
        if peer is not None:
            self.workers[peer].is_ready = True
            name = self.workers[peer].name
            description = about(args=[differs])
            capacity, most = (2 * capacity, capacity) if batches else (capacity, 1)
            message = ready(name, capacity, description=description, max_batch=most)
            self.house.worker(peer, message)
            self.settle()

    @rule(number=numbers, capacity=st.integers(1, 3), loses=st.booleans())
    def is_ready_again(self, number: int, capacity: int, loses: bool) -> None:
        peer = self.some(number, ready=True)
        if peer is not None:
            worker = self.workers[peer]
            if loses:
                worker.has = worker.has[:-1]
            most = self.house.state.workers[peer].max_batch
            self.house.worker(peer, ready(worker.name, capacity, worker.has, max_batch=most))
            self.settle()

    @rule(number=numbers, which=st.integers(0, 3))
    def answer(self, number: int, which: int) -> None:
        peer = self.some(number, ready=True)
        if peer is not None and self.workers[peer].has:
            has = self.workers[peer].has
            key = has.pop(which % len(has))
            if which == 3:
                self.house.worker(peer, Answer(*key, part=0))
            self.house.answer(peer, key)
            self.settle()

    @precondition(lambda self: self.open)
    @rule(number=numbers, which=numbers)
    def answer_what_it_has_not(self, number: int, which: int) -> None:
        peer, key = self.some(number), self.known(which)
        if peer is not None and key not in self.workers[peer].has:
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
        assert {*self.house.state.jobs} == {*self.open}

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
        for peer in list(self.house.state.workers):
            self.house.goodbye(peer)
        self.settle()
        self.house.wait(QUEUE_TIMEOUT)
        self.settle()
        assert not self.open
        assert self.house.is_empty()


TestBroker = BrokerMachine.TestCase
TestBroker.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
