"""Time and processor time; of this process and of others."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

#: Rounds of measurements, as `measure` returns them, by contender.
Rounds = Mapping[str, Sequence[Mapping[str, Any]]]

#: Processes by what they do.
Roles = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Spread:
    """A median, and the quartiles around it."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Iterable[float]) -> Spread:
    """Return the median of some rounds' values with its quartiles."""
    found = sorted(values)
    if len(found) < 2:
        return Spread(found[0], found[0], found[0], len(found))
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return Spread(median, low, high, len(found))


def interleave(rounds: int, contenders: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Measure all contenders in turn, so that what else the machine does hits all alike.

    Each round begins with the next of them.
    """
    names = list(contenders)
    found: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            found[name].append(contenders[name]())
    return found


def cpu_of_self() -> float:
    """Return the processor time of this process, s, also of threads that have ended."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cpu_of(pids: Sequence[int]) -> float | None:
    """Return the processor time of the threads of other processes, s; None where it is unknown.

    The kernel counts it there in ns; `resource` tells only of ended children.
    """
    total = 0
    try:
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return total / 1e9


def memory_of(pid: int | str = "self") -> float:
    """Return the resident memory of a process, bytes; not-a-number where it is unknown."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float("nan")


def measure(call: Callable[[], Any], calls: int, warm: int, roles: Roles) -> dict[str, Any]:
    """Call something again and again.

    Returns
    -------
    dict
        ``seconds``: the median of a call; ``cpu``: the processor time of a call in seconds, of
        ``client`` (this process) and of the other processes by their role.
    """
    for _ in range(warm):
        call()
    before = {role: cpu_of(pids) for role, pids in roles.items()}
    mine = cpu_of_self()
    times = []
    clock = time.perf_counter
    for _ in range(calls):
        start = clock()
        call()
        times.append(clock() - start)
    cpu = {"client": (cpu_of_self() - mine) / calls}
    for role, pids in roles.items():
        first, last = before[role], cpu_of(pids)
        if first is not None and last is not None:
            cpu[role] = (last - first) / calls
    return {"seconds": statistics.median(times), "cpu": cpu}


def seconds_of(rounds: Rounds) -> dict[str, list[float]]:
    """Return the time of a call, by contender and round."""
    return {key: [each["seconds"] for each in found] for key, found in rounds.items()}


def cpu_times_of(rounds: Rounds) -> dict[str, list[float]]:
    """Return the processor time of a call in all processes, by contender and round."""
    return {key: [sum(each["cpu"].values()) for each in found] for key, found in rounds.items()}


def beyond(seconds: Mapping[str, Sequence[float]], own: str) -> dict[str, list[float]]:
    """Return what each contender takes beyond `own`, whose median it is: a small part of most."""
    base = statistics.median(seconds[own])
    return {key: [each - base for each in found] for key, found in seconds.items()}
