"""A site around a manager's state: processes that live and die, a broker that tells of them."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aserpc.manager.records import Effect, Fleet, Process, Send, Start, Stop
from aserpc.manager.state import ManagerState
from aserpc.manager.tables import Health, ProcessState
from aserpc.messages import Demand, Gpus, Message, Offer, SpawnFailed, Spawning
from aserpc.spawn import SpawnConfig

#: What the state should hold a process for, by what it is.
STATES = {
    "pending": ProcessState.PENDING,
    "loading": ProcessState.STARTING,
    "idle": ProcessState.RUNNING,
    "busy": ProcessState.RUNNING,
}


@dataclass
class Child:
    """A process as it is."""

    name: str
    config: SpawnConfig
    gpus: tuple[str, ...]
    state: str = "pending"
    idle: float = 0.0
    was_told_to_end: bool = False


class Site:
    """A manager's state with its clock, its processes and its broker.

    What it does is checked against the rules as it does it.
    """

    def __init__(
        self, configs: Mapping[str, SpawnConfig], gpus: list[str], total: int | None
    ) -> None:
        numbers = itertools.count(1)
        self.now = 0.0
        self.configs = dict(configs)
        self.gpus, self.total = gpus, total
        self.state = ManagerState(
            configs, {"pid": 1, "host": "h"}, gpus, total, 5.0, lambda: f"s{next(numbers)}"
        )
        self.children: dict[str, Child] = {}
        self.started: set[str] = set()
        #: Processes that were killed and have not ended yet.
        self.killed: list[str] = []
        #: Calculators whose program is missing.
        self.broken: set[str] = set()
        self.refused: set[str] = set()
        #: Before when nothing may be started, by name.
        self.not_before: dict[str, float] = {}
        #: The last demand, and workers of others, by name.
        self.demands: dict[str, tuple[int, float, int]] = {}
        self.offered: dict[str, int] = {}
        self.told: dict[str, Spawning] = {}
        self.failed: list[SpawnFailed] = []
        #: Who has which GPU, as the broker knows it.
        self.gpus_told: list[list[Any]] = []
        self.sent: list[Message] = []
        self.take(self.state.start(0.0))

    # ---- what the manager does -------------------------------------------------------------------

    def take(self, effects: list[Effect]) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            if isinstance(effect, Send):
                self._sent(effect.message)
            elif isinstance(effect, Start):
                self._start(effect)
            elif effect.kill:
                assert self.children[effect.spawn_id].was_told_to_end, "no TERM before KILL"
                assert effect.spawn_id not in self.killed, "killed twice"
                self.killed.append(effect.spawn_id)
            else:
                child = self.children[effect.spawn_id]
                assert not child.was_told_to_end, "told twice"
                child.was_told_to_end = True
        while broken := [s for s, child in self.children.items() if self._is_broken(child)]:
            self.take(self._end(broken[0], "has no program"))

    def _is_broken(self, child: Child) -> bool:
        return child.name in self.broken and child.state == "pending"

    def _sent(self, message: Message) -> None:
        self.sent.append(message)
        if isinstance(message, Offer):
            self.offered = dict(message.calculators)
            self.told = {n: told for n, told in self.told.items() if n in self.offered}
        elif isinstance(message, Spawning):
            self.told[message.calculator] = message
        elif isinstance(message, SpawnFailed):
            self.failed.append(message)
        elif isinstance(message, Gpus):
            self.gpus_told = message.gpus

    def _start(self, start: Start) -> None:
        name, spawn_id = start.config.name, start.spawn_id
        assert spawn_id not in self.started, "started twice"
        assert not self.state.finishing
        assert name not in self.refused, "another manager starts it"
        assert start.config == self.configs.get(name), "started as it was configured before"
        assert self.now >= self.not_before.get(name, 0.0), "started in its pause"
        assert len(self.live(name)) < start.config.max_workers
        assert self.total is None or len(self.children) < self.total
        self.started.add(spawn_id)
        gpus = tuple(start.gpu.split(",")) if start.gpu else ()
        self.children[spawn_id] = Child(name, start.config, gpus)

    # ---- events ----------------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        self.take(self.state.receive(message, self.now))

    def demand(
        self,
        name: str,
        queued: int | None = None,
        seconds: float | None = None,
        others: int | None = None,
    ) -> None:
        """Have the broker tell what there is, and what is new."""
        before = self.demands.get(name, (0, 0.0, 0))
        queued = before[0] if queued is None else queued
        seconds = before[1] if seconds is None else seconds
        others = before[2] if others is None else others
        self.demands[name] = (queued, seconds, others)
        workers: list[Any] = [
            [spawn_id, child.state, child.idle]
            for spawn_id, child in self.children.items()
            if child.name == name
            and (child.state == "busy" or (child.state != "pending" and not child.was_told_to_end))
        ]
        workers += [[None, "busy", 0.0]] * others
        if any(worker[1] in ("idle", "busy") for worker in workers if worker[0]):
            self._heal(name)
        self.receive(Demand(name, queued, 0, seconds, workers))
        live = self.live(name)
        if len(live) > self.configs[name].max_workers and not self.state.finishing:
            assert all(child.state == "busy" for child in live), "a surplus worker stays"

    def _heal(self, name: str) -> None:
        fleet = self.state.fleets[name]
        ready = [
            s
            for s, c in self.children.items()
            if c.name == name and c.state in ("idle", "busy") and not c.was_told_to_end
        ]
        if any(fleet.processes[s].state is not ProcessState.RUNNING for s in ready):
            self.not_before.pop(name, None)

    def let_run(self, spawn_id: str) -> None:
        child = self.children[spawn_id]
        if child.state == "pending":
            child.state = "loading"
            self.take(self.state.running(spawn_id, self.now))

    def get_ready(self, spawn_id: str, state: str, idle: float = 0.0) -> None:
        child = self.children[spawn_id]
        if not child.was_told_to_end:
            self.let_run(spawn_id)
            child.state, child.idle = state, idle
            self.demand(child.name)

    def end(self, spawn_id: str, how: str = "ended with exit code 1") -> None:
        self.take(self._end(spawn_id, how))

    def _end(self, spawn_id: str, how: str) -> list[Effect]:
        child = self.children.pop(spawn_id)
        before = len(self.failed)
        effects = self.state.exited(spawn_id, how, "last words", self.now)
        fails = [e.message for e in effects if isinstance(e, Send)]
        told = [message for message in fails if isinstance(message, SpawnFailed)]
        if child.was_told_to_end or child.state in ("idle", "busy"):
            assert not told, "an end is told as a start that failed"
        elif not self.state.fleets[child.name].live():
            assert [message.calculator for message in told] == [child.name], "nobody is told"
        self._note_pause(child.name)
        assert len(self.failed) == before
        return effects

    def _note_pause(self, name: str) -> None:
        fleet = self.state.fleets.get(name)
        if fleet is None or fleet.health is Health.ACTIVE:
            return
        fatal = fleet.health is Health.FATAL
        self.not_before[name] = float("inf") if fatal else fleet.retry_at

    def reload(self, configs: Mapping[str, SpawnConfig]) -> None:
        self.configs = dict(configs)
        self.not_before.clear()
        self.refused.clear()
        self.demands = {n: demand for n, demand in self.demands.items() if n in configs}
        self.take(self.state.reload(configs, self.now))

    def wait(self, seconds: float) -> None:
        """Let time pass, ticking whenever the state asks for it."""
        ends_at = self.now + seconds
        for _ in range(1000):
            due = self.state.next_tick()
            if due > ends_at:
                break
            self.now = max(self.now, due)
            self.tick()
            assert self.state.next_tick() > self.now, "it asks to be ticked for ever"
            self.bury()
        else:
            raise AssertionError("too many ticks")
        self.now = ends_at
        self.tick()
        self.bury()

    def bury(self) -> None:
        """Have those end that were killed."""
        while self.killed:
            spawn_id = self.killed.pop()
            if spawn_id in self.children:  # else it has ended by itself in the meantime
                self.end(spawn_id, "was killed by signal SIGKILL")

    def tick(self) -> None:
        effects = self.state.tick(self.now)
        for name in self.configs:
            if name not in self.not_before:
                self._note_pause(name)
        self.take(effects)

    # ---- what is there ---------------------------------------------------------------------------

    def live(self, name: str) -> list[Child]:
        children = self.children.values()
        return [c for c in children if c.name == name and not c.was_told_to_end]

    def check(self) -> None:
        """Check the state's tables against what is."""
        processes = {s: p for f in self.state.fleets.values() for s, p in f.processes.items()}
        assert processes.keys() == self.children.keys()
        assert sum(len(f.processes) for f in self.state.fleets.values()) == len(processes)
        taken: Counter[str] = Counter()
        for spawn_id, child in self.children.items():
            process = processes[spawn_id]
            assert process.gpus == child.gpus == self.state.devices.of(spawn_id)
            stopping = child.was_told_to_end
            assert process.state is (ProcessState.STOPPING if stopping else STATES[child.state])
            amount = child.config.gpus
            assert len(child.gpus) == (1 if 0 < amount < 1 else amount)
            taken.update(dict.fromkeys(child.gpus, min(amount, 1.0)))
        assert {*taken} <= {*self.gpus}
        assert [gpu for gpu, _, _ in self.gpus_told] == self.gpus
        for gpu, free, holders in self.gpus_told:
            has = [[s, c.name] for s, c in self.children.items() if gpu in c.gpus]
            assert sorted(holders) == sorted(has), "the broker takes others for who has a GPU"
            assert abs(1 - taken[gpu] - free) < 1e-5
        assert all(part <= 1 + 1e-9 for part in taken.values()), "a GPU is given too often"
        assert {*self.state.devices._taken} <= self.children.keys(), "a GPU is never free again"
        for name in self.state.fleets:
            self._check_fleet(name)

    def _check_fleet(self, name: str) -> None:
        fleet = self.state.fleets[name]
        if self.state.finishing or name in self.refused:
            return
        if name not in self.configs:
            assert fleet.processes, "a calculator is kept that is configured no longer"
            assert name not in self.offered
            return
        assert self.offered[name] == fleet.config.min_workers
        told = self.told[name]
        assert told.spawn_ids == list(fleet.processes), "the broker knows other processes"
        assert bool(told.fatal) is (fleet.health is Health.FATAL)
        queued, _, others = self.demands.get(name, (0, 0.0, 0))
        least = max(fleet.config.min_workers, int(bool(queued and not others)))
        if fleet.health is Health.ACTIVE and len(self.live(name)) < least:
            full = self.total is not None and len(self.children) >= self.total
            assert full or self.state.devices.find(fleet.config.gpus) is None, "room is not used"
            assert told.text, "nobody is told what is waited for"


class Desk:
    """A manager's state, its clock and what it has asked for."""

    def __init__(self, *configs: SpawnConfig, gpus: str = "", total: int | None = None) -> None:
        numbers = itertools.count(1)
        self.now = 0.0
        self.state = ManagerState(
            {config.name: config for config in configs},
            {"pid": 1, "host": "h"},
            gpus.split(),
            total,
            5.0,
            lambda: f"s{next(numbers)}",
        )
        self.starts: list[Start] = []
        self.stops: list[Stop] = []
        self.sent: list[Message] = []
        self.take(self.state.start(0.0))

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Start):
                self.starts.append(effect)
                self.take(self.state.running(effect.spawn_id, self.now))
            elif isinstance(effect, Stop):
                self.stops.append(effect)
            else:
                assert isinstance(effect, Send)
                self.sent.append(effect.message)

    def demand(
        self,
        name: str,
        queued: int,
        workers: tuple[Any, ...] = (),
        seconds: float = 0.0,
        running: int = 0,
    ) -> None:
        message = Demand(name, queued, running, seconds, [list(worker) for worker in workers])
        self.take(self.state.receive(message, self.now))

    def ready(self, name: str, *spawn_ids: str, queued: int = 0, seconds: float = 0.0) -> None:
        self.demand(name, queued, tuple((s, "busy", 0.0) for s in spawn_ids), seconds)

    def exit(self, spawn_id: str, how: str = "ended with exit code 1", lines: str = "") -> None:
        self.take(self.state.exited(spawn_id, how, lines, self.now))

    def wait(self, seconds: float) -> None:
        ends_at = self.now + seconds
        while (due := self.state.next_tick()) <= ends_at:
            self.now = max(self.now, due)
            self.take(self.state.tick(self.now))
        self.now = ends_at
        self.take(self.state.tick(self.now))

    def running(self, name: str) -> list[Process]:
        return list(self.state.fleets[name].processes.values())

    def fleet(self, name: str) -> Fleet:
        return self.state.fleets[name]


def config(name: str = "lj", **options: Any) -> SpawnConfig:
    return SpawnConfig(name, ["aserpc", "worker", name], **options)
