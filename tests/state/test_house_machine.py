"""Broker, workers and clients together, with late messages, deaths and new brokers.

What each of them promises holds only if the others do their part: no request is answered twice or
with another's results, none is computed twice whose answer is known to anybody, and when messages
flow again, each has an end and nothing is left.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from aserpc.broker.peers import is_remote
from aserpc.broker.records import AHEAD_TIME, ONE_AHEAD_TIME
from aserpc.worker.state import Phase

from .builders import QUEUE_TIMEOUT, WORKER_TIMEOUT
from .network import IDLE_TIMEOUT, Network

numbers = st.integers(0, 1000)
names = st.sampled_from(["lj", "lj", "lj", "emt"])
times = st.sampled_from([1.0, ONE_AHEAD_TIME, AHEAD_TIME / 4])


class HouseMachine(RuleBasedStateMachine):
    """The house, as people, machines and bad luck treat it."""

    @initialize(
        sizes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), times), max_size=3),
        are_remote=st.booleans(),
        quick=st.integers(0, 2),
    )
    def begin(self, sizes: list[tuple[int, int, float]], are_remote: bool, quick: int) -> None:
        self.net = Network()
        for size in [*sizes, *[(1, 1, AHEAD_TIME / 4)] * quick]:
            self.net.load(self.net.start_worker("lj", *size, is_remote=are_remote))
        self.net.deliver_all()
        if quick:  # the broker knows that they are when they have answered
            self.ask(0, "abcabc", "lj", None)
            self.work(6)

    def peers(self) -> list[bytes]:
        return [*self.net.clients, *self.net.workers]

    def worker(self, number: int) -> bytes:
        peers = list(self.net.workers)
        return peers[number % len(peers)]

    @rule(
        number=numbers,
        sessions=st.text("abc", min_size=1, max_size=8),
        name=names,
        deadline=st.sampled_from([None, None, None, 2.0, 30.0]),
    )
    def ask(self, number: int, sessions: str, name: str, deadline: float | None) -> None:
        for who in sessions:
            self.net.ask(list(self.net.clients)[number % 2], who, name, deadline)

    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        for peer, client in self.net.clients.items():
            if client.waits:
                self.net.cancel(peer, sorted(client.waits)[number % len(client.waits)])
                return

    @rule(number=numbers, messages=st.integers(1, 3))
    def deliver_up(self, number: int, messages: int) -> None:
        self.net.deliver_up(self.peers()[number % len(self.peers())], messages)

    @rule(number=numbers, messages=st.integers(1, 3))
    def deliver_down(self, number: int, messages: int) -> None:
        self.net.deliver_down(self.peers()[number % len(self.peers())], messages)

    @rule()
    def deliver_all(self) -> None:
        self.net.deliver_all()

    @precondition(lambda self: len(self.net.workers) < 5)
    @rule(
        name=names,
        capacity=st.integers(1, 6),
        max_batch=st.integers(1, 3),
        seconds=times,
        loads=st.sampled_from([True, True, False]),
        is_remote=st.booleans(),
    )
    def start_worker(
        self,
        name: str,
        capacity: int,
        max_batch: int,
        seconds: float,
        loads: bool,
        is_remote: bool,
    ) -> None:
        peer = self.net.start_worker(name, capacity, max_batch, seconds, is_remote=is_remote)
        if loads:
            self.net.load(peer)

    @precondition(lambda self: self.net.workers)
    @rule(number=numbers)
    def load(self, number: int) -> None:
        peer = self.worker(number)
        if self.net.workers[peer].state.phase is Phase.LOADING:
            self.net.load(peer)

    @precondition(lambda self: self.net.workers)
    @rule(number=numbers, ends=st.booleans())
    def compute(self, number: int, ends: bool) -> None:
        peer = self.worker(number)
        if ends:
            self.net.end_job(peer)
        self.net.begin(peer)

    @rule()
    def compute_all(self) -> None:
        for peer in list(self.net.workers):
            self.net.begin(peer)
            self.net.end_job(peer)

    @rule(times=st.integers(1, 3))
    def work(self, times: int) -> None:
        """Have everybody do what is to be done, so that the broker knows how long it takes."""
        for _ in range(times):
            self.net.deliver_all()
            self.compute_all()
            self.net.deliver_all()

    @precondition(lambda self: self.net.workers)
    @rule(number=numbers, how=st.sampled_from(["kill", "finish", "shut down"]))
    def lose_a_worker(self, number: int, how: str) -> None:
        peer = self.worker(number)
        if how == "kill":
            self.net.kill(peer)
        elif how == "finish" and not self.net.workers[peer].batch:
            self.net.finish(peer)
        else:
            self.net.shut_down(self.net.workers[peer].state.name)

    @precondition(lambda self: any(map(is_remote, self.net.workers)))
    @rule(number=numbers, lost=st.integers(0, 4), unread=st.integers(0, 4), back=st.booleans())
    def cut_a_worker(self, number: int, lost: int, unread: int, back: bool) -> None:
        peers = [peer for peer in self.net.workers if is_remote(peer)]
        self.net.cut_worker(peers[number % len(peers)], lost=lost, unread=unread, back=back)

    @rule()
    def restore(self) -> None:
        self.net.restore()

    @rule(stops=st.booleans(), keeps=st.integers(0, 3))
    def restart_the_broker(self, stops: bool, keeps: int) -> None:
        self.net.restart_broker(stops=stops, keeps=keeps)

    @rule(number=numbers, unread=st.integers(0, 2), noticed=st.booleans())
    def cut_a_client(self, number: int, unread: int, noticed: bool) -> None:
        self.net.cut(list(self.net.clients)[number % 2], unread=unread, noticed=noticed)

    @rule(number=numbers)
    def lose_what_was_computed(self, number: int) -> None:
        """Have workers answer, and the answers get lost on their way to a client."""
        self.compute_all()
        for peer in list(self.net.workers):
            self.net.deliver_up(peer)
        self.net.cut(list(self.net.clients)[number % 2], unread=0, noticed=False)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, WORKER_TIMEOUT / 2]))
    def wait(self, seconds: float) -> None:
        self.net.wait(seconds)

    @rule(seconds=st.sampled_from([1.0, 5.0, IDLE_TIMEOUT, QUEUE_TIMEOUT]))
    def live(self, seconds: float) -> None:
        """Let time pass while messages flow."""
        ends_at = self.net.now + seconds
        while self.net.now < ends_at:
            self.net.deliver_all()
            self.net.wait(1.0)

    def teardown(self) -> None:
        """Let all messages flow and all workers compute: everything comes to its end."""
        if not hasattr(self, "net"):
            return
        net = self.net
        net.restore()
        for peer, worker in list(net.workers.items()):
            if worker.state.phase is Phase.LOADING:
                net.load(peer)
        # A worker may compute one request a round.
        waiting = sum(len(client.waits) for client in net.clients.values())
        for _ in range(int(2 * QUEUE_TIMEOUT) + waiting):
            self.live(1.0)
            self.compute_all()
        assert not any(client.waits for client in net.clients.values()), "a request has no end"
        for _ in range(int(2 * IDLE_TIMEOUT)):
            self.live(1.0)
            for peer, worker in list(net.workers.items()):
                if not worker.batch:
                    net.finish(peer)
                if peer in net.workers:
                    net.end_job(peer)
        assert not net.workers, "a worker does not end"
        left = [net.broker.jobs, net.broker.workers, net.broker.calculators, net.broker.clients]
        left += [net.broker.answers.size, net.broker.held]
        assert not any(left), "the broker keeps something"
        assert len(net.broker._timers) == 0
        assert all(len(client.state._deadlines) == 0 for client in net.clients.values())


TestHouse = HouseMachine.TestCase
TestHouse.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
