"""What one call costs: forces of a calculator that computes nothing."""

from __future__ import annotations

from functools import partial

from benchmarks import contenders
from benchmarks.contenders import OLD, Contender, measured
from benchmarks.processes import Bench, BenchmarkError
from benchmarks.report import Report
from benchmarks.timing import beyond, cpu_times_of, interleave, seconds_of

#: Atoms, and calls in a round.
SIZES = {8: 400, 256: 400, 4096: 100, 100_000: 10}

#: The most that the overhead may be, as a multiple of the floor.
OVER_FLOOR = {8: 1.5, 256: 1.5, 4096: 1.3, 100_000: 1.3}


def run(bench: Bench, report: Report) -> None:
    """Measure all sizes."""
    found = _contenders(bench, report)
    for atoms, calls in SIZES.items():
        _size(bench, report, found, atoms, max(3, calls // 10) if bench.quick else calls)


def _contenders(bench: Bench, report: Report) -> dict[str, Contender]:
    workers = {"null": 1}
    found = {
        "in process": contenders.in_process(bench),
        "floor": contenders.floor(bench, "ipc"),
        "ipc": contenders.ours(bench, workers).contender(bench, "ours, ipc"),
    }
    if "tcp" not in bench.without:
        try:
            found["tcp"] = contenders.ours(bench, workers, "tcp").contender(bench, "ours, tcp")
            found["floor tcp"] = contenders.floor(bench, "tcp")
        except BenchmarkError as error:
            report.skip(f"tcp: {error}")
    if "socket" not in bench.without:
        found["socket"] = contenders.ase_socket(bench)
    service = contenders.try_old(bench, workers, report)
    if service is not None:
        found[OLD] = service.contender(bench, OLD)
    return found


def _size(
    bench: Bench, report: Report, found: dict[str, Contender], atoms: int, calls: int
) -> None:
    what = f"forces, {atoms} atoms"
    tasks = {
        key: partial(
            each.driver.do, "forces", name="null", atoms=atoms, calls=calls, roles=each.roles
        )
        for key, each in found.items()
    }
    rounds = interleave(bench.rounds, tasks)
    for key, contender in found.items():
        measured(report, what, contender, rounds[key])

    seconds, busy = seconds_of(rounds), cpu_times_of(rounds)
    over = beyond(seconds, "in process")
    limit = OVER_FLOOR[atoms]
    report.ratio(f"{what}: overhead over the floor", over["ipc"], seconds["floor"], at_most=limit)
    report.ratio(
        f"{what}: the same of processor time", beyond(busy, "in process")["ipc"], busy["floor"]
    )
    if "socket" in over:
        most = 0.4 if atoms <= 4096 else None
        report.ratio(
            f"{what}: overhead over SocketIOCalculator's",
            over["ipc"],
            over["socket"],
            at_most=most,
        )
    if OLD in over:
        report.ratio(f"{what}: overhead over {OLD}'s", over["ipc"], over[OLD], at_most=0.3)
    if "tcp" in over:
        ours = [one / other for one, other in zip(over["tcp"], over["ipc"], strict=True)]
        bare = [
            one / other for one, other in zip(seconds["floor tcp"], seconds["floor"], strict=True)
        ]
        report.ratio(f"{what}: tcp over ipc, over the floor's", ours, bare, at_most=1.2)
