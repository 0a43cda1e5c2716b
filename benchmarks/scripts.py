"""What scripts do: properties one after the other, a relaxation, dynamics, a band."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks import contenders
from benchmarks.contenders import OLD, Contender, measured
from benchmarks.processes import Bench
from benchmarks.report import Report
from benchmarks.timing import beyond, interleave, seconds_of


def run(bench: Bench, report: Report) -> None:
    """Measure all scripts."""
    workers = {"null": 1, "emt": 1, "emt-2": 2}
    found = {
        "in process": contenders.in_process(bench),
        "ours": contenders.ours(bench, workers).contender(bench, "ours, ipc"),
    }
    service = contenders.try_old(bench, workers, report)
    if service is not None:
        found[OLD] = service.contender(bench, OLD)
    single = dict(found)
    if "socket" not in bench.without:
        single["socket"] = contenders.ase_socket(bench)

    calls, steps = (30, 50) if bench.quick else (200, 1000)
    names = {"name": "null", "atoms": 8, "calls": calls}
    _compare(
        bench, report, "energy, forces, stress, 8 atoms", single, "properties", names, at_most=0.15
    )
    _compare(bench, report, "a step of BFGS with EMT", single, "bfgs", {"name": "emt"})
    _compare(
        bench, report, f"a step of {steps} of MD with EMT", single, "md",
        {"name": "emt", "steps": steps},
    )  # fmt: skip
    # A SocketIOCalculator serves one image.
    band = {"name": "emt-2", "images": 16, "calls": 2 if bench.quick else 10}
    _compare(bench, report, "forces of 16 images, 2 workers", found, "neb", band)


def _compare(
    bench: Bench,
    report: Report,
    what: str,
    found: dict[str, Contender],
    task: str,
    arguments: dict[str, Any],
    *,
    at_most: float | None = None,
) -> None:
    rounds = interleave(
        bench.rounds,
        {
            key: partial(each.driver.do, task, roles=each.roles, **arguments)
            for key, each in found.items()
        },
    )
    for key, contender in found.items():
        measured(report, what, contender, rounds[key])
    seconds = seconds_of(rounds)
    report.ratio(f"{what}: time over in process", seconds["ours"], seconds["in process"])
    over = beyond(seconds, "in process")
    if "socket" in over:
        report.ratio(f"{what}: overhead over SocketIOCalculator's", over["ours"], over["socket"])
    # Where a second worker computes too there is no overhead to speak of.
    if OLD in over and task != "neb":
        report.ratio(f"{what}: overhead over {OLD}'s", over["ours"], over[OLD], at_most=at_most)
    elif OLD in over:
        report.ratio(f"{what}: time over {OLD}'s", seconds["ours"], seconds[OLD])
