"""The broker's rules for managers: who can start what, and what they are told."""

from __future__ import annotations

import logging

from aserpc.broker.peers import is_remote
from aserpc.broker.records import Calculator, Manager, Worker
from aserpc.broker.tables import JobState, WorkerState
from aserpc.broker.workers import RETRY_INTERVAL, RETURN_GRACE, Workers
from aserpc.messages import (
    Accept,
    Demand,
    Offer,
    Probe,
    Reload,
    SpawnFailed,
    Spawning,
    Unknown,
    WorkerEnded,
)

logger = logging.getLogger(__name__)

#: How soon, and how often, a manager is told of a calculator's demand, s.
DEMAND_DELAY, DEMAND_INTERVAL = 0.01, 0.2


class Managers(Workers):
    """The broker's managers, with its workers and requests."""

    def _offer(self, peer: bytes, offer: Offer, now: float) -> None:
        manager = self.managers.get(peer)
        if manager is None or manager.returning:
            if manager is None:
                manager = self.managers[peer] = Manager(peer, now)
            manager.identity, manager.returning, manager.away_since = offer.identity, False, None
            self._timers.cancel(manager.timer)
            self._watch(manager, now)
            logger.info("%s offers %d calculators", manager.label, len(offer.calculators))
        manager.last_heard, manager.asked = now, False
        before, refused = manager.names, []
        manager.names = set()
        for name, min_workers in offer.calculators:
            calculator = self.calculators.get(name)
            if calculator is None:
                calculator = self.calculators[name] = Calculator(name)
            if calculator.manager not in (None, peer):
                other = self.managers[calculator.manager]
                if not other.returning:
                    refused.append([name, other.label])
                    continue
                other.names.discard(name)  # it has, perhaps, died with the last broker
            calculator.manager, calculator.min_workers = peer, min_workers
            calculator.fatal = ""
            manager.names.add(name)
            self._settle(calculator)
            self._tell_demand(calculator, now)
        for name in before - manager.names:
            self._withdraw(self.calculators[name], "its manager offers it no longer", now)
        manager.refused = {name for name, _ in refused}
        self._to_worker(peer, Accept(refused))
        self._invite(before - manager.names)
        self.roster_changed = True

    def _expect_manager(self, peer: bytes, offer: dict[str, int], now: float) -> None:
        """Take over a manager of the broker that served here before."""
        manager = self.managers[peer] = Manager(peer, now, returning=True, away_since=now)
        for name, min_workers in offer.items():
            calculator = self.calculators.setdefault(name, Calculator(name))
            if calculator.manager is None:
                calculator.manager, calculator.min_workers = peer, min_workers
                manager.names.add(name)
        manager.timer = self._timers.at(now + 0.05, self._try_manager, manager)

    def _spawning(self, manager: Manager, spawning: Spawning, now: float) -> None:
        calculator = self.calculators.get(spawning.calculator)
        if calculator is None or calculator.manager != manager.peer:
            return
        for spawn_id in calculator.spawn_ids:
            self.spawned.pop(spawn_id, None)
        # An id is one process's, whatever is said of another calculator.
        mine = [spawn_id for spawn_id in spawning.spawn_ids if spawn_id not in self.spawned]
        calculator.spawn_ids = list(dict.fromkeys(mine))
        for spawn_id in calculator.spawn_ids:
            self.spawned[spawn_id] = calculator.name
        calculator.spawn_text, calculator.fatal = spawning.text, spawning.fatal
        if calculator.fatal:
            self._give_up(calculator, calculator.fatal)
        elif calculator.is_waited_for():
            self._tell_demand(calculator, now)

    def _spawn_failed(self, manager: Manager, failed: SpawnFailed) -> None:
        calculator = self.calculators.get(failed.calculator)
        if calculator is not None and calculator.manager == manager.peer:
            self._give_up(calculator, failed.reason)

    def _process_ended(self, manager: Manager, ended: WorkerEnded, now: float) -> None:
        calculator = self.calculators.get(ended.calculator)
        if calculator is None or calculator.manager != manager.peer:
            return
        death = self.deaths.get(ended.spawn_id)
        if death is not None and death.job.calculator is not calculator:
            return  # another manager's
        for worker in list(self.workers.values()):
            if worker.calculator is calculator and worker.spawn_id == ended.spawn_id:
                self._end(worker, WorkerState.LOST, now, ended.how)  # seen by its manager first
        self._worker_ended(ended, now)

    def _is_kept(self, worker: Worker) -> bool:
        """Whether a worker that asks to leave is one of the minimum of its calculator."""
        calculator = worker.calculator
        return worker.peer in calculator.workers and (
            len(calculator.workers) <= calculator.min_workers
        )

    def _give_up(self, calculator: Calculator, reason: str) -> None:
        """Tell those who wait that no worker comes; one that loads still is no promise."""
        if not calculator.serving:
            for job in calculator.waiting():
                self._fail(job, JobState.FAILED, "worker_failed", reason)

    def _manager_is_away(self, manager: Manager, now: float) -> None:
        """Give a manager up, or wait a while for it if its connection may come back."""
        if manager.away_since is None:
            manager.away_since = now
        grace = self.reconnect_grace if is_remote(manager.peer) else 0.0
        if manager.returning:
            grace = RETURN_GRACE
        if now >= manager.away_since + grace:
            self._manager_ends(manager, "its connection broke", now)
        else:
            manager.asked = False
            self._timers.cancel(manager.timer)
            manager.timer = self._timers.at(now + RETRY_INTERVAL, self._try_manager, manager)

    def _try_manager(self, manager: Manager, now: float) -> None:
        """Try a connection that broke; if it is there again, find out what was lost."""
        if manager.away_since is not None and not manager.asked:
            manager.asked = True
            self._to_worker(manager.peer, Probe())
            manager.timer = self._timers.at(now + RETRY_INTERVAL, self._try_manager, manager)
            return
        manager.away_since, manager.asked = None, False
        self._to_worker(manager.peer, Unknown())
        self._watch(manager, now)

    def _manager_ends(self, manager: Manager, why: str, now: float) -> None:
        logger.info("%s is gone: %s", manager.label, why)
        del self.managers[manager.peer]
        self._timers.cancel(manager.timer)
        self.roster_changed = True
        for name in manager.names:
            calculator = self.calculators[name]
            if manager.returning:
                calculator.manager = None
                self._never_came(calculator, why)
            self._withdraw(calculator, f"its manager is gone: {why}", now)
        self._invite(manager.names)

    def _invite(self, names: set[str]) -> None:
        """Have managers that were refused names offer again, now that those are free."""
        for other in self.managers.values():
            if other.refused & names:
                self._to_worker(other.peer, Unknown())

    def _withdraw(self, calculator: Calculator, why: str, now: float) -> None:
        for spawn_id in calculator.spawn_ids:
            self.spawned.pop(spawn_id, None)
        calculator.manager, calculator.min_workers, calculator.spawn_ids = None, 0, []
        calculator.spawn_text = calculator.fatal = ""
        self._timers.cancel(calculator.demand_timer)
        calculator.demand_timer = None
        self._see_to(calculator, why, now)

    def _tell_demand(self, calculator: Calculator, now: float, *, at_once: bool = False) -> None:
        """Tell the manager of a calculator soon how much it is asked for."""
        if at_once:
            self._timers.cancel(calculator.demand_timer)
            self._demand(calculator, now)
        elif calculator.manager is not None and calculator.demand_timer is None:
            when = max(now + DEMAND_DELAY, calculator.demand_at + DEMAND_INTERVAL)
            calculator.demand_timer = self._timers.at(when, self._demand, calculator)

    def _demand(self, calculator: Calculator, now: float) -> None:
        calculator.demand_timer, calculator.demand_at = None, now
        if calculator.manager is None:
            return
        workers = [
            [w.spawn_id, w.state.value, now - w.free_since] for w in calculator.workers.values()
        ]
        running = sum(min(len(w.jobs), w.max_batch) for w in calculator.workers.values())
        # What waits at a worker waits all the same.
        behind = sum(len(worker.jobs) for worker in calculator.workers.values()) - running
        queued = calculator.queued + len(calculator.descriptions) + behind
        demand = Demand(calculator.name, queued, running, calculator.seconds, workers)
        self._to_worker(calculator.manager, demand)
        if queued:
            self._tell_demand(calculator, now)  # as long as somebody waits

    def _watch(self, manager: Manager, now: float) -> None:
        """Ask a silent manager for a sign of life; give up one that gives none."""
        half = self.worker_timeout / 2
        if manager.asked:
            self._manager_ends(manager, f"it was silent for {now - manager.last_heard:.3g} s", now)
        elif now < manager.last_heard + half:
            manager.timer = self._timers.at(manager.last_heard + half, self._watch, manager)
        else:
            manager.asked = True
            self._to_worker(manager.peer, Probe())
            manager.timer = self._timers.at(now + half, self._watch, manager)

    def _sweep(self, _: None, now: float) -> None:
        super()._sweep(_, now)
        for manager in self.managers.values():
            # One on another machine may have a new connection already, and what it said last, as
            # that it starts no more, may be lost with the old one: it is to say all of it again.
            message = Unknown() if is_remote(manager.peer) else Probe()
            self._to_worker(manager.peer, message)

    def _reload(self) -> int:
        """Have the managers load their configurations again; return how many there are."""
        for peer in self.managers:
            self._to_worker(peer, Reload(0))
        return len(self.managers)
