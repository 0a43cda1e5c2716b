"""What the manager keeps of each process and calculator, and what it asks its loop to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aserpc.manager.tables import Health, ProcessState
from aserpc.messages import Message
from aserpc.spawn import SpawnConfig

#: Taken for the time of a calculation, and of a start, where none is known yet, s.
UNKNOWN_TIME = 1.0


@dataclass(slots=True)
class Start:
    """Start a process for a calculator."""

    spawn_id: str
    config: SpawnConfig
    gpu: str | None


@dataclass(slots=True)
class Stop:
    """End a process: TERM, or KILL."""

    spawn_id: str
    kill: bool


@dataclass(slots=True)
class Send:
    """Send to the broker."""

    message: Message


Effect: TypeAlias = Start | Stop | Send


@dataclass(slots=True, eq=False)
class Process:
    """A process that was started, and has not ended."""

    spawn_id: str
    state: ProcessState
    since: float
    config: SpawnConfig
    gpus: tuple[str, ...] = ()
    kill_at: float = float("inf")
    #: Whether it ends because it was idle: what it has got meanwhile it may finish.
    yields: bool = False


@dataclass(slots=True, eq=False)
class Fleet:
    """A calculator with its processes and what is asked of it."""

    config: SpawnConfig
    processes: dict[str, Process] = field(default_factory=dict)
    health: Health = Health.ACTIVE
    failures: int = 0
    reason: str = ""
    retry_at: float = 0.0
    #: Measured time from a start to a worker that is ready, s.
    start_time: float = UNKNOWN_TIME
    queued: int = 0
    seconds: float = 0.0
    #: Workers by spawn id: state, and when they fell idle.
    workers: dict[str, tuple[str, float]] = field(default_factory=dict)
    #: Workers that somebody else started.
    others: int = 0
    #: Why a wanted worker is not started, and how a start gets on, in words.
    held: str = ""
    news: str = ""
    #: Whether it is configured no longer: it is forgotten when its processes have ended.
    retired: bool = False
    told: tuple[Any, ...] = ()

    def live(self) -> list[Process]:
        """Return the processes that serve, or will."""
        return [p for p in self.processes.values() if p.state is not ProcessState.STOPPING]

    def is_busy(self, process: Process) -> bool:
        """Whether a process computes, as the broker has told last."""
        return self.workers.get(process.spawn_id, ("", 0.0))[0] == "busy"

    def surplus(self) -> list[Process]:
        """Return the processes beyond `max_workers` that compute nothing.

        Those that are not ready first, the newest before the others, then those that have been
        idle for longest.
        """
        found = []
        for process in self.live():
            state, since = self.workers.get(process.spawn_id, ("", 0.0))
            if process.state is not ProcessState.RUNNING:
                found.append((0, -process.since, process))
            elif state == "idle":
                found.append((1, since, process))
        found.sort(key=lambda entry: entry[:2])
        number = max(0, len(self.live()) - self.config.max_workers)
        return [process for _, _, process in found[:number]]

    def wanted(self) -> int:
        """Return how many processes there should be: no fewer than there are.

        One more as long as those who wait would wait longer for the present workers than for
        another one to start.
        """
        config, live = self.config, len(self.live())
        if self.retired or self.health is not Health.ACTIVE:
            return live
        wanted = max(live, config.min_workers)
        if self.queued and not live + self.others:
            wanted = max(wanted, 1)
        seconds = self.seconds or UNKNOWN_TIME
        while (
            wanted < config.max_workers
            and self.queued * seconds / max(1, wanted + self.others) > self.start_time
            and self.queued > wanted - live
        ):
            wanted += 1
        return min(wanted, max(live, config.max_workers))
