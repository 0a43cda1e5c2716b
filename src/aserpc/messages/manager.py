"""Manager <-> broker, besides what workers exchange with it too."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aserpc.errors import ProtocolError
from aserpc.messages.base import Message, check_name, check_seconds


def _is(entry: object, *types: Any) -> bool:
    """Whether an entry is a list of values of these types; true and false are no numbers."""
    return (
        isinstance(entry, list)
        and len(entry) == len(types)
        and all(
            isinstance(v, t) and not isinstance(v, bool) for v, t in zip(entry, types, strict=True)
        )
    )


@dataclass(slots=True)
class Offer(Message):
    """A manager can start workers of these calculators."""

    KIND = "OFFER"
    #: ``[name, min_workers]`` for each; the broker lets no idle worker go below the minimum.
    calculators: list[Any]
    #: ``pid``, ``host``.
    identity: dict[str, Any]

    def check(self) -> None:
        """See `Message.check`."""
        for entry in self.calculators:
            if not _is(entry, str, int) or entry[1] < 0:
                msg = "an offer is a list of [name, min_workers]"
                raise ProtocolError(msg)
            check_name(entry[0])


@dataclass(slots=True)
class Accept(Message):
    """The answer to an `Offer`."""

    KIND = "ACCEPT"
    #: ``[name, who]`` for each calculator that another manager offers already.
    refused: list[Any] = field(default_factory=list)

    def check(self) -> None:
        """See `Message.check`."""
        for entry in self.refused:
            if not _is(entry, str, str):
                msg = "refused are [name, who]"
                raise ProtocolError(msg)


@dataclass(slots=True)
class Demand(Message):
    """The broker tells how much a calculator is asked for, and who serves it."""

    KIND = "DEMAND"
    calculator: str
    #: Requests that wait, and that are with workers.
    queued: int
    running: int
    #: Mean time of a calculation, s; 0 where there was none yet.
    seconds: float
    #: ``[spawn_id, state, idle seconds]`` of each worker; the id is None for one that nobody
    #: spawned.
    workers: list[Any]

    def check(self) -> None:
        """See `Message.check`."""
        check_name(self.calculator)
        check_seconds(self.seconds)
        for entry in self.workers:
            if not _is(entry, str | None, str, int | float):
                msg = "workers are [spawn_id, state, idle seconds]"
                raise ProtocolError(msg)
            check_seconds(entry[2])


@dataclass(slots=True)
class Spawning(Message):
    """A manager tells what it does for a calculator."""

    KIND = "SPAWNING"
    calculator: str
    #: Spawn ids of the processes that it has started and that have not ended.
    spawn_ids: list[str]
    #: For those who wait, in words.
    text: str
    #: Why no worker will be started until the configuration is loaded again; empty: it may be.
    fatal: str = ""

    def check(self) -> None:
        """See `Message.check`."""
        check_name(self.calculator)
        if not all(isinstance(spawn_id, str) for spawn_id in self.spawn_ids):
            msg = "spawn ids are strings"
            raise ProtocolError(msg)


@dataclass(slots=True)
class Gpus(Message):
    """A manager tells who has its GPUs, whenever that changes."""

    KIND = "GPUS"
    #: ``[id, free part, [[spawn_id, calculator], ...]]`` of each.
    gpus: list[Any]

    def check(self) -> None:
        """See `Message.check`."""
        for entry in self.gpus:
            if (
                not isinstance(entry, list)
                or len(entry) != 3
                or not isinstance(entry[0], str)
                or type(entry[1]) not in (int, float)
                or not 0 <= entry[1] <= 1
                or not isinstance(entry[2], list)
                or not all(_is_pair_of_texts(holder) for holder in entry[2])
            ):
                msg = "GPUs are [id, free part, [[spawn_id, calculator], ...]]"
                raise ProtocolError(msg)


def _is_pair_of_texts(value: object) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)
    )


@dataclass(slots=True)
class WorkerEnded(Message):
    """A manager has seen the end of a worker's process."""

    KIND = "WORKER_ENDED"
    calculator: str
    spawn_id: str
    #: Its end in words, as ``was killed by signal SIGSEGV``.
    how: str
    #: The last lines that it printed.
    output: str = ""
    #: Whether the manager had told it to end: then nothing that it computed is to blame.
    told: bool = False

    def check(self) -> None:
        """See `Message.check`."""
        check_name(self.calculator)


@dataclass(slots=True)
class SpawnFailed(Message):
    """A manager tells those who wait that a start failed, and why."""

    KIND = "SPAWN_FAILED"
    calculator: str
    reason: str

    def check(self) -> None:
        """See `Message.check`."""
        check_name(self.calculator)
