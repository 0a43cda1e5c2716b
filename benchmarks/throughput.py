"""How many calls a second go through, and whether clients get equal shares."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import contenders
from benchmarks.calculators import SLEEP
from benchmarks.contenders import OLD, Service
from benchmarks.processes import Bench, Driver, together
from benchmarks.report import Report
from benchmarks.timing import interleave


def run(bench: Bench, report: Report) -> None:
    """Measure clients that wait for each call, workers that sleep, and requests without waiting."""
    clients, workers = ((1, 4), (1, 2)) if bench.quick else ((1, 4, 16), (1, 2, 4))
    served = {f"null-{count}": count for count in workers} | {"sleep": 4}
    services = {"ours": contenders.ours(bench, served)}
    before = contenders.try_old(bench, served, report)
    if before is not None:
        services[OLD] = before
    drivers = {
        kind: [service.driver(bench) for _ in range(max(clients))]
        for kind, service in services.items()
    }
    for count in workers:
        for number in clients:
            _blocking(bench, report, drivers, count, number)
    bare = contenders.sleeping_floor(bench, 4, max(clients))
    for number in clients:
        if number >= 4:
            _sleeping(bench, report, {**drivers, "bare sockets": bare}, number)
    for count in workers:
        _pipelined(bench, report, services, drivers, count)


def _windows(
    bench: Bench, drivers: dict[str, list[Driver]], name: str, clients: int, seconds: float
) -> dict[str, list[list[int]]]:
    """Return the calls of each client, by contender and round."""

    def window(found: list[Driver]) -> list[int]:
        answers = together(found[:clients], "window", name=name, atoms=8, seconds=seconds)
        return [answer["count"] for answer in answers]

    return interleave(bench.rounds, {kind: partial(window, each) for kind, each in drivers.items()})


def _blocking(
    bench: Bench, report: Report, drivers: dict[str, list[Driver]], workers: int, clients: int
) -> None:
    seconds = 0.3 if bench.quick else 1.0
    what = f"calls, {workers} workers, {clients} clients"
    rounds = _windows(bench, drivers, f"null-{workers}", clients, seconds)
    rates = {kind: [sum(each) / seconds for each in found] for kind, found in rounds.items()}
    for kind, found in rates.items():
        report.figure(what, kind, found, "1/s")
        if clients > 1:
            shares = [min(each) / max(1, *each) for each in rounds[kind]]
            report.figure(f"{what}: least over most of a client", kind, shares, "")
    if OLD in rates:
        least = 3.0 if clients == 16 and workers in (1, 4) else None
        report.ratio(f"{what}: over {OLD}'s", rates["ours"], rates[OLD], at_least=least)


def _sleeping(bench: Bench, report: Report, drivers: dict[str, list[Driver]], clients: int) -> None:
    seconds = 1.0 if bench.quick else 3.0
    rounds = _windows(bench, drivers, "sleep", clients, seconds)
    ideal = 4 / SLEEP
    for kind, found in rounds.items():
        rates = [sum(each) / seconds for each in found]
        what = f"4 workers that sleep {SLEEP * 1000:g} ms, {clients} clients"
        report.figure(what, kind, rates, "1/s")
        least = 0.95 if kind == "ours" else None
        of = "" if kind == "ours" else f" ({kind})"
        report.ratio(f"{what}: of the ideal{of}", rates, [ideal] * len(rates), at_least=least)


def _pipelined(
    bench: Bench,
    report: Report,
    services: dict[str, Service],
    drivers: dict[str, list[Driver]],
    workers: int,
) -> None:
    requests = 300 if bench.quick else 2000
    what = f"pipelined, {workers} workers"

    def task(kind: str) -> Callable[[], dict[str, Any]]:
        name = f"null-{workers}"
        return partial(drivers[kind][0].do, "pipelined", name=name, atoms=8, requests=requests)

    rounds = interleave(bench.rounds, {kind: task(kind) for kind in services})
    rates = {kind: [1 / each["seconds"] for each in found] for kind, found in rounds.items()}
    for kind, found in rates.items():
        report.figure(what, kind, found, "1/s")
    if OLD in rates:
        report.ratio(f"{what}: over 16 threads of {OLD}", rates["ours"], rates[OLD], at_least=5.0)
