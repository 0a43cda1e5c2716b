"""The manager's rules: how many workers a calculator gets, on what, and what a failure means.

`ManagerState` takes messages, what became of processes, and the time; it returns messages to send
and processes to start or end. It starts none itself and reads no clock. Its rules for processes
stand in `fleets`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from aserpc.manager.fleets import Fleets
from aserpc.manager.records import Effect, Fleet, Process, Send
from aserpc.manager.tables import Health, ProcessState
from aserpc.messages import (
    Accept,
    Demand,
    Goodbye,
    Heartbeat,
    Message,
    Offer,
    Probe,
    Unknown,
    WorkerEnded,
)
from aserpc.spawn import SpawnConfig

logger = logging.getLogger(__name__)

#: Lines of a worker's output that tell why it could not be started.
LAST_LINES = 20


class ManagerState(Fleets):
    """The manager, without its socket, its clock and its processes.

    The parameters are those of `Fleets`.
    """

    # ---- events ----------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Offer what can be started."""
        self._offer(now)
        self._plan(now)
        return self._take()

    def adopt(
        self, name: str, spawn_id: str, gpus: tuple[str, ...], now: float, part: float = 1.0
    ) -> None:
        """Take over a process of a manager that died, with the part it has of each of its GPUs."""
        fleet = self.fleets[name]
        process = Process(spawn_id, ProcessState.PENDING, now, fleet.config, gpus)
        fleet.processes[spawn_id] = process
        # What it was given it has, whatever its calculator is configured for now.
        self.devices.take(spawn_id, gpus, part)

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

    def exited(self, spawn_id: str, how: str, output: str | None, now: float) -> list[Effect]:
        """Take it that a process has ended, or could not be started.

        Parameters
        ----------
        how
            Its end, in words.
        output
            The end of its output; None for what could not be started.
        """
        for name, fleet in self.fleets.items():
            process = fleet.processes.pop(spawn_id, None)
            if process is None:
                continue
            self.devices.give_back(spawn_id)
            before = process.state
            self._move(process, ProcessState.EXITED, now)
            told = before is ProcessState.STOPPING
            self._effects.append(Send(WorkerEnded(name, spawn_id, how, output or "", told)))
            if before in (ProcessState.PENDING, ProcessState.STARTING):
                self._failed(name, fleet, f"{how}{_words(output)}", now)
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
                for process in fleet.processes.values():
                    self._end(process, now)
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
            for process in fleet.processes.values():
                self._end(process, now)
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

    def _offer(self, now: float) -> None:
        self._heartbeat_at = now + self.heartbeat_interval
        offered = [(name, fleet) for name, fleet in self.fleets.items() if not fleet.retired]
        calculators = [[name, fleet.config.min_workers] for name, fleet in offered]
        self._effects.append(Send(Offer(calculators, self.identity)))
        self._gpus_told = []
        for name, fleet in offered:
            fleet.told = ()
            self._report(name, fleet)


def _words(output: str | None) -> str:
    if output is None:
        return ""
    lines = output.splitlines()[-LAST_LINES:]
    return ". Its last lines:\n" + "\n".join(lines) if lines else ". It printed nothing."
