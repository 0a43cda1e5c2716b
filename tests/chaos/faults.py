"""What is done to the service, at random, and undone again."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import signal
import time
from collections.abc import Callable, Mapping

from aserpc import AserpcError, shutdown_workers
from chaos.clients import PAUSE
from chaos.house import CLIENTS, WORKER_TIMEOUT, Hand, House
from chaos.records import AFTERMATH, Fault
from support.processes import Process

#: How often each fault comes, compared to the others.
ALL: dict[str, float] = {
    "kill worker": 5,
    "stop worker": 3,
    "end worker": 3,
    "shutdown": 1,
    "close network": 3,
    "freeze network": 3,
    "kill client": 2,
    "kill broker": 3,
    "end broker": 1,
    "stop broker": 2,
    "kill manager": 2,
}

#: Those that leave the broker, the manager and the first clients alone, whose memory is measured.
LASTING = {kind: weight for kind, weight in ALL.items() if kind.split()[1:] != ["broker"]}
del LASTING["kill manager"]


class Chaos:
    """Faults, one after the other, and what undoes them when it is time.

    Parameters
    ----------
    house
        Where.
    pause
        Mean time between two faults, s.
    """

    def __init__(self, house: House, pause: float) -> None:
        self.house, self.run, self.random = house, house.run, house.random
        self.pause = pause
        self._spares_clients = False
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def rage(self, seconds: float, weights: Mapping[str, float]) -> None:
        """Have clients ask, and do bad things for a while; in the end all is undone."""
        self._spares_clients = "kill broker" not in weights
        self.house.orders("ask")
        now = time.monotonic()
        ends_at, next_at = now + seconds, now + self.random.expovariate(1 / self.pause)
        while (now := time.monotonic()) < ends_at or self._due:
            self.house.attend()
            if now >= next_at and now < ends_at:
                next_at = now + self.random.expovariate(1 / self.pause)
                (kind,) = self.random.choices(list(weights), list(weights.values()))
                getattr(self, f"_{kind.replace(' ', '_')}")(now)
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
            PAUSE.wait(0.02)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._number), call))

    # ---- workers ---------------------------------------------------------------------------------

    def _kill_worker(self, now: float) -> None:
        chosen = self._worker()
        if chosen is not None:
            name, pid, hand = chosen
            if hand is not None:
                self.house.left(hand)
                hand.codes.add(-signal.SIGKILL)
            if _signal(pid, signal.SIGKILL):
                self.run.fault("kill worker", name, now)

    def _end_worker(self, now: float) -> None:
        chosen = self._worker()
        if chosen is not None:
            name, pid, hand = chosen
            if hand is not None:
                self.house.left(hand)
                hand.codes |= {0, -signal.SIGTERM}  # before it can take signals, it ends by them
            if _signal(pid, signal.SIGTERM):
                self.run.fault("end worker", name, now)

    def _stop_worker(self, now: float) -> None:
        chosen = self._worker()
        if chosen is None:
            return
        name, pid, hand = chosen
        seconds = WORKER_TIMEOUT * self.random.choice((0.3, 1.3, 1.5, 2.0))
        if hand is not None:
            self.house.left(hand, until=now + seconds + AFTERMATH / 2)
            hand.stopped = True
        if not _signal(pid, signal.SIGSTOP):
            return
        fault = self.run.fault("stop worker", name, now, float("inf"))

        def go_on() -> None:
            _signal(pid, signal.SIGCONT)
            fault.until = time.monotonic()
            if hand is not None:
                hand.stopped = False

        self._later(seconds, go_on)

    def _shutdown(self, now: float) -> None:
        name = self.random.choice(("near", "far", "managed"))
        with contextlib.suppress(AserpcError):  # there is no broker
            shutdown_workers(name, self.house.cli.frontend, 1000)
        # Without an answer, the broker may still do it when it can.
        for hand in self.house.hands:
            if hand.name == name:
                self.house.left(hand, until=now + AFTERMATH)
                hand.codes.add(0)
        self.run.fault("shutdown", name, now)

    def _worker(self) -> tuple[str, int, Hand | None] | None:
        """Choose a worker that runs."""
        hands = {hand.process.pid: hand for hand in self.house.hands if not hand.stopped}
        managed = [
            entry["pid"]
            for entry in self.house.status.get("processes", [])
            if entry["calculator"] == "managed" and isinstance(entry["pid"], int)
        ]
        pids = [*hands, *managed]
        if not pids:
            return None
        pid = self.random.choice(pids)
        hand = hands.get(pid)
        return hand.name if hand else "managed", pid, hand

    # ---- the network -----------------------------------------------------------------------------

    def _close_network(self, now: float) -> None:
        side = self.random.choice(list(self.house.networks))
        seconds = self.random.choice((0.0, 0.5, 1.0, 4.0))
        network = self.house.networks[side]
        self._cut(f"close {side}' network", side, now, seconds, network.close_all)

    def _freeze_network(self, now: float) -> None:
        side = self.random.choice(list(self.house.networks))
        seconds = self.random.choice((0.5, 1.0, 4.0, 6.0))
        network = self.house.networks[side]
        self._cut(f"freeze {side}' network", side, now, seconds, network.freeze)

    def _cut(
        self, kind: str, side: str, now: float, seconds: float, cut: Callable[[], None]
    ) -> None:
        if any(f.target == side and f.until > now for f in self.run.faults):
            return
        fault = self.run.fault(kind, side, now, float("inf"))
        if side == "workers":
            for hand in self.house.hands:
                if hand.name == "far":
                    self.house.left(hand, until=now + seconds + AFTERMATH / 2)
        cut()

        def restore() -> None:
            self.house.networks[side].restore(drops=self.random.random() < 0.3)
            fault.until = time.monotonic()

        self._later(seconds, restore)

    # ---- the others ------------------------------------------------------------------------------

    def _kill_client(self, now: float) -> None:
        names = list(self.house.clients)[2 if self._spares_clients else 0 :]
        name = self.random.choice(names)
        process = self.house.clients.pop(name)
        self.run.fault("kill client", name, now)
        process.kill()
        assert len(self.house.clients) == CLIENTS - 1
        self.house.start_client()

    def _kill_broker(self, now: float) -> None:
        self._break_broker("kill broker", signal.SIGKILL, now)

    def _end_broker(self, now: float) -> None:
        self._break_broker("end broker", signal.SIGTERM, now)

    def _stop_broker(self, now: float) -> None:
        broker = self.house.broker
        if broker is None:
            return
        fault = self.run.fault("stop broker", "broker", now, float("inf"))
        broker.signal(signal.SIGSTOP)

        def go_on() -> None:
            if broker.runs():  # nobody has killed it meanwhile
                broker.signal(signal.SIGCONT)
            fault.until = time.monotonic()

        self._later(WORKER_TIMEOUT * self.random.choice((0.2, 0.6, 1.4)), go_on)

    def _break_broker(self, kind: str, number: int, now: float) -> None:
        broker, self.house.broker = self.house.broker, None
        if broker is None:
            return
        fault = self.run.fault(kind, "broker", now, float("inf"))
        _end(broker, number)

        def start() -> None:
            self.house.start_broker()
            fault.until = time.monotonic()

        self._later(self.random.choice((0.0, 0.0, 0.5, 2.0)), start)

    def _kill_manager(self, now: float) -> None:
        manager, self.house.manager = self.house.manager, None
        if manager is None:
            return
        self.house.left_managed()
        fault: Fault = self.run.fault("kill manager", "managed", now, float("inf"))
        _end(manager, signal.SIGKILL)

        def start() -> None:
            self.house.start_manager()
            fault.until = time.monotonic()

        self._later(self.random.choice((0.0, 0.5, 2.0)), start)


def _signal(pid: int, number: int) -> bool:
    """Send a signal; False if the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _end(process: Process, number: int) -> None:
    process.signal(number)
    process.signal(signal.SIGCONT)
    process.wait()
