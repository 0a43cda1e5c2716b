"""The manager's rules for processes: which start, on what, which end, what a failure means."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from aserpc.manager.devices import Devices
from aserpc.manager.records import Effect, Fleet, Process, Send, Start, Stop
from aserpc.manager.tables import (
    HEALTH_TRANSITIONS,
    PROCESS_TRANSITIONS,
    Health,
    ProcessState,
)
from aserpc.messages import Demand, Gpus, SpawnFailed, Spawning
from aserpc.spawn import SpawnConfig

logger = logging.getLogger(__name__)

#: Pauses after the first, second, ... start that failed in a row, s; the last for all further.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)

#: A worker must be idle for this long to make room for another calculator's, s.
YIELD_AFTER = 1.0


class Fleets:
    """The manager's calculators, with their processes and the GPUs of those.

    Parameters
    ----------
    configs
        What can be started, by name.
    identity
        ``pid`` and ``host``, for the broker and its status.
    gpus
        Ids of the devices that workers may be given.
    max_workers_total
        Most processes of all calculators together; None: no limit.
    heartbeat_interval
        Seconds between signs of life to the broker.
    new_id
        Makes a spawn id.
    """

    def __init__(
        self,
        configs: Mapping[str, SpawnConfig],
        identity: dict[str, Any],
        gpus: list[str],
        max_workers_total: int | None,
        heartbeat_interval: float,
        new_id: Any,
    ) -> None:
        self.identity = identity
        self.devices = Devices(gpus)
        self.max_workers_total = max_workers_total
        self.heartbeat_interval = heartbeat_interval
        self.fleets = {name: Fleet(config) for name, config in configs.items()}
        self.finishing = False
        self._new_id = new_id
        self._refused: dict[str, str] = {}
        self._gpus_told: list[list[Any]] = []
        self._heartbeat_at = 0.0
        self._effects: list[Effect] = []

    def _demand(self, demand: Demand, now: float) -> None:
        fleet = self.fleets.get(demand.calculator)
        if fleet is None:
            return
        fleet.queued, fleet.seconds = demand.queued, demand.seconds
        fleet.workers = {w: (state, now - idle) for w, state, idle in demand.workers if w}
        fleet.others = sum(1 for w, _, _ in demand.workers if w not in fleet.processes)
        for spawn_id, (state, _) in fleet.workers.items():
            process = fleet.processes.get(spawn_id)
            if process is None:
                continue
            if process.state is ProcessState.PENDING:  # the broker may know before we look
                self._move(process, ProcessState.STARTING, now)
            if process.state is ProcessState.STARTING and state in ("idle", "busy"):
                fleet.start_time = now - process.since
                fleet.failures = 0
                if fleet.health is not Health.ACTIVE:
                    self._heal(fleet)
                self._move(process, ProcessState.RUNNING, now)
        for process in fleet.surplus():  # its configuration was loaded again
            self._yield(process, now)

    def _plan(self, now: float) -> None:
        """Start what is wanted and has room; make room where that takes too much."""
        if self.finishing:
            return
        for name, fleet in self.fleets.items():
            if name in self._refused or fleet.retired:
                continue
            fleet.held = ""
            for _ in range(fleet.wanted() - len(fleet.live())):
                if not self._start(name, fleet, now):
                    break
            if fleet.held and not fleet.live() and fleet.queued:
                self._make_room(name, now)
            self._report(name, fleet)

    def _start(self, name: str, fleet: Fleet, now: float) -> bool:
        total = sum(len(f.processes) for f in self.fleets.values())
        if self.max_workers_total is not None and total >= self.max_workers_total:
            fleet.held = f"waits for one of {self.max_workers_total} workers to end"
            return False
        spawn_id = self._new_id()
        gpus = self.devices.find(fleet.config.gpus)
        if gpus is None:
            fleet.held = f"waits for a free GPU: {fleet.config.gpus:g} of {len(self.devices.ids)}"
            return False
        self.devices.take(spawn_id, gpus, fleet.config.gpus)
        process = Process(spawn_id, ProcessState.PENDING, now, fleet.config, gpus)
        fleet.processes[spawn_id] = process
        logger.info("starting a worker of %r%s", name, f" on GPU {','.join(gpus)}" if gpus else "")
        self._effects.append(Start(spawn_id, fleet.config, ",".join(gpus) or None))
        return True

    def _make_room(self, wanted: str, now: float) -> None:
        """End the worker of another calculator that has been idle for longest, if that helps."""
        amount = self.fleets[wanted].config.gpus
        if amount > len(self.devices.ids):
            return
        lacks_gpu = self.devices.find(amount) is None
        idle = [
            (since, process)
            for name, fleet in self.fleets.items()
            if name != wanted and len(fleet.live()) > fleet.config.min_workers
            for process in fleet.live()
            if process.gpus or not lacks_gpu
            for state, since in [fleet.workers.get(process.spawn_id, ("", now))]
            if state == "idle" and now - since >= YIELD_AFTER and not fleet.queued
        ]
        if idle and not any(
            p.state is ProcessState.STOPPING and not (p.yields and f.is_busy(p))
            for f in self.fleets.values()
            for p in f.processes.values()
        ):
            self._yield(min(idle, key=lambda entry: entry[0])[1], now)

    def _check(self, name: str, fleet: Fleet, process: Process, now: float) -> None:
        if process.state is ProcessState.STARTING:
            limit = process.config.start_timeout
            if now >= process.since + limit:
                self._stop(process, now)
                reason = f"its worker was not ready within {limit:g} s (start_timeout)"
                self._failed(name, fleet, reason, now)
        elif process.state is ProcessState.STOPPING and now >= process.kill_at:
            if process.yields and fleet.is_busy(process):
                process.kill_at = now + process.config.stop_timeout
                return
            process.kill_at = float("inf")
            self._effects.append(Stop(process.spawn_id, kill=True))

    def _yield(self, process: Process, now: float) -> None:
        """End a process that was idle: if it has got a request meanwhile, it may finish that."""
        self._stop(process, now)
        process.yields = True

    def _end(self, process: Process, now: float) -> None:
        """End a process, whatever it does."""
        if process.state is not ProcessState.STOPPING:
            self._stop(process, now)
        elif process.yields:
            process.yields, process.kill_at = False, now + process.config.stop_timeout

    def _stop(self, process: Process, now: float) -> None:
        self._move(process, ProcessState.STOPPING, now)
        process.kill_at = now + process.config.stop_timeout
        self._effects.append(Stop(process.spawn_id, kill=False))

    def _failed(self, name: str, fleet: Fleet, reason: str, now: float) -> None:
        fleet.failures += 1
        fleet.reason = reason
        logger.error("a worker of %r could not be started: %s", name, reason)
        if fleet.health is Health.ACTIVE:
            if fleet.failures > fleet.config.max_restarts:
                fleet.health = self._healthy(fleet.health, Health.FATAL)
            else:
                fleet.health = self._healthy(fleet.health, Health.BACKOFF)
                fleet.retry_at = now + PAUSES[min(fleet.failures, len(PAUSES)) - 1]
        if not fleet.live():  # else those who wait get another one
            words = f"The worker of {name!r} could not be started: {reason}"
            self._effects.append(Send(SpawnFailed(name, words)))
        self._report(name, fleet)

    def _forget_retired(self) -> None:
        retired = [name for name, f in self.fleets.items() if f.retired and not f.processes]
        for name in retired:
            del self.fleets[name]

    def _heal(self, fleet: Fleet) -> None:
        fleet.health = self._healthy(fleet.health, Health.ACTIVE)

    @staticmethod
    def _healthy(before: Health, after: Health) -> Health:
        assert (before, after) in HEALTH_TRANSITIONS, (before, after)
        return after

    def _report(self, name: str, fleet: Fleet) -> None:
        """Tell the broker what is done for a calculator, when that has changed."""
        if fleet.retired:
            return
        if not any(p.state is ProcessState.STARTING for p in fleet.processes.values()):
            fleet.news = ""
        text, fatal = fleet.held or fleet.news, ""
        if fleet.health is Health.FATAL:
            fatal = f"starts failed, {fleet.failures} in a row; the last: {fleet.reason}"
        elif fleet.health is Health.BACKOFF:
            text = f"waits before the next start, as one failed: {fleet.reason}"
        told = (tuple(fleet.processes), text, fatal)
        if told != fleet.told:
            fleet.told = told
            self._effects.append(Send(Spawning(name, list(fleet.processes), text, fatal)))

    def _process(self, spawn_id: str) -> Process | None:
        fleets = self.fleets.values()
        return next((f.processes[spawn_id] for f in fleets if spawn_id in f.processes), None)

    def _move(self, process: Process, state: ProcessState, now: float) -> None:
        assert (process.state, state) in PROCESS_TRANSITIONS, (process.state, state)
        process.state, process.since = state, now

    def _tell_gpus(self) -> None:
        """Tell the broker who has which GPU, when that has changed."""
        names = {s: name for name, fleet in self.fleets.items() for s in fleet.processes}
        table = self.devices.table(names)
        if table != self._gpus_told:
            self._gpus_told = table
            self._effects.append(Send(Gpus(table)))

    def _take(self) -> list[Effect]:
        self._tell_gpus()
        effects, self._effects = self._effects, []
        return effects
