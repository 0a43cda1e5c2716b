"""The manager's rules: how many workers a calculator gets, on what, and what a failure means.

`ManagerState` takes messages, what became of processes, and the time; it returns messages to send
and processes to start or end. It starts none itself and reads no clock.
"""

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
from aserpc.messages import (
    Accept,
    Demand,
    Goodbye,
    Gpus,
    Heartbeat,
    Message,
    Offer,
    Probe,
    SpawnFailed,
    Spawning,
    Unknown,
)
from aserpc.spawn import SpawnConfig

logger = logging.getLogger(__name__)

#: Pauses after the first, second, ... start that failed in a row, s; the last for all further.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)

#: A worker must be idle for this long to make room for another calculator's, s.
YIELD_AFTER = 1.0


class ManagerState:
    """The manager, without its socket, its clock and its processes.

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

    # ---- events ----------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Offer what can be started."""
        self._offer(now)
        self._plan(now)
        return self._take()

    def adopt(self, name: str, spawn_id: str, gpus: tuple[str, ...], now: float) -> None:
        """Take over a process of a manager that died."""
        fleet = self.fleets[name]
        process = Process(spawn_id, ProcessState.PENDING, now, fleet.config, gpus)
        fleet.processes[spawn_id] = process
        # What it was given it has, whatever its calculator is configured for now.
        self.devices.take(spawn_id, gpus, fleet.config.gpus or 1.0)

    def receive(self, message: Message, now: float) -> list[Effect]:
        """Take a message from the broker."""
        if isinstance(message, Demand):
            self._demand(message, now)
        elif isinstance(message, Accept):
            for name, who in message.refused:
                if name not in self._refused:
                    logger.error("%r is offered already by %s; not offered here", name, who)
                self._refused[name] = who
        elif isinstance(message, Probe):
            self._effects.append(Send(Heartbeat()))
        elif isinstance(message, Unknown):
            self._refused.clear()
            self._offer(now)
        self._plan(now)
        return self._take()

    def running(self, spawn_id: str, now: float) -> list[Effect]:
        """Take it that a process no longer waits for its scheduler."""
        process = self._process(spawn_id)
        if process is not None and process.state is ProcessState.PENDING:
            self._move(process, ProcessState.STARTING, now)
        return self._take()

    def exited(self, spawn_id: str, how: str, last_lines: str, now: float) -> list[Effect]:
        """Take it that a process has ended, or could not be started.

        Parameters
        ----------
        how
            Its end, in words.
        last_lines
            The end of its output.
        """
        for name, fleet in self.fleets.items():
            process = fleet.processes.pop(spawn_id, None)
            if process is None:
                continue
            self.devices.give_back(spawn_id)
            before = process.state
            self._move(process, ProcessState.EXITED, now)
            if before in (ProcessState.PENDING, ProcessState.STARTING):
                self._failed(name, fleet, f"{how}. {last_lines}".strip(), now)
            else:
                logger.info("a worker of %r: %s", name, how)
            fleet.workers.pop(spawn_id, None)
        self._forget_retired()
        self._plan(now)
        return self._take()

    def reload(self, configs: Mapping[str, SpawnConfig], now: float) -> list[Effect]:
        """Take new configurations; what failed may be tried again."""
        if self.finishing:
            return []
        for name, fleet in self.fleets.items():
            fleet.retired = name not in configs
            if fleet.retired:
                for process in fleet.live():
                    self._stop(process, now)
        self._forget_retired()
        for name, config in configs.items():
            fleet = self.fleets.setdefault(name, Fleet(config))
            fleet.config = config
            fleet.failures, fleet.reason = 0, ""
            if fleet.health is not Health.ACTIVE:
                self._heal(fleet)
        self._refused.clear()
        self._offer(now)
        self._plan(now)
        return self._take()

    def finish(self, now: float) -> list[Effect]:
        """End all workers, then the manager."""
        self.finishing = True
        for fleet in self.fleets.values():
            for process in fleet.live():
                self._stop(process, now)
        return self._take()

    @property
    def ended(self) -> bool:
        """Whether the manager was told to end and nothing is left to wait for."""
        return self.finishing and not any(fleet.processes for fleet in self.fleets.values())

    def goodbye(self) -> Message:
        """Return what tells the broker that the manager goes."""
        return Goodbye()

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self.heartbeat_interval
            self._effects.append(Send(Heartbeat()))
        for name, fleet in self.fleets.items():
            if fleet.health is Health.BACKOFF and now >= fleet.retry_at:
                self._heal(fleet)
            for process in list(fleet.processes.values()):
                self._check(name, fleet, process, now)
        self._plan(now)
        return self._take()

    def next_tick(self) -> float:
        """When `tick` has something to do."""
        due = [self._heartbeat_at]
        for fleet in self.fleets.values():
            if fleet.health is Health.BACKOFF:
                due.append(fleet.retry_at)
            for process in fleet.processes.values():
                due.append(process.kill_at)
                if process.state is ProcessState.STARTING:
                    due.append(process.since + process.config.start_timeout)
        return min(due)

    def tell(self, spawn_id: str, text: str, now: float) -> list[Effect]:
        """Tell those who wait how a start gets on: the last line of its output."""
        for name, fleet in self.fleets.items():
            process = fleet.processes.get(spawn_id)
            if process is not None and process.state is ProcessState.STARTING:
                words = f"starting, {now - process.since:.0f} s"
                fleet.news = f"{words}; last line: {text}" if text else words
                self._report(name, fleet)
        return self._take()

    # ---- steps -----------------------------------------------------------------------------------

    def _offer(self, now: float) -> None:
        self._heartbeat_at = now + self.heartbeat_interval
        offered = [(name, fleet) for name, fleet in self.fleets.items() if not fleet.retired]
        calculators = [[name, fleet.config.min_workers] for name, fleet in offered]
        self._effects.append(Send(Offer(calculators, self.identity)))
        self._gpus_told = []
        for name, fleet in offered:
            fleet.told = ()
            self._report(name, fleet)

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
            p.state is ProcessState.STOPPING
            for f in self.fleets.values()
            for p in f.processes.values()
        ):
            self._stop(min(idle, key=lambda entry: entry[0])[1], now)

    def _check(self, name: str, fleet: Fleet, process: Process, now: float) -> None:
        if process.state is ProcessState.STARTING:
            limit = process.config.start_timeout
            if now >= process.since + limit:
                self._stop(process, now)
                reason = f"its worker was not ready within {limit:g} s (start_timeout)"
                self._failed(name, fleet, reason, now)
        elif process.state is ProcessState.STOPPING and now >= process.kill_at:
            process.kill_at = float("inf")
            self._effects.append(Stop(process.spawn_id, kill=True))

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
