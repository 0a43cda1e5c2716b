"""How long somebody waits who works at a script, beside somebody who computes hundreds."""

from __future__ import annotations

import time
from functools import partial
from random import Random
from typing import Any

import numpy as np

from aserpc import Client, RemoteCalculator
from benchmarks import contenders
from benchmarks.calculators import SLEEP
from benchmarks.processes import Bench
from benchmarks.report import Report
from benchmarks.tasks import STEP, structure
from benchmarks.timing import interleave

#: Jobs that wait, by the name of what is asked: a batch has 16.
JOBS = {"sleep": 500, "together": 4000}


def run(bench: Bench, report: Report) -> None:
    """Measure one worker that computes structures alone, and one that does 16 together."""
    service = contenders.ours(bench, dict.fromkeys(JOBS, 1))
    questions = 20 if bench.quick else 60
    for name, worker in (("sleep", "a plain worker"), ("together", "a worker with batches of 16")):
        tasks = {
            who: partial(_question, service.address, name, questions, thinks=thinks)
            for who, thinks in (("at once again", False), ("thinks meanwhile", True))
        }
        for who, rounds in interleave(bench.rounds, tasks).items():
            what = f"a question beside {JOBS[name]} jobs, {worker}, {who}"
            late = [float(np.percentile(each["times"], 95)) for each in rounds]
            units = [float(np.median(each["alone"])) for each in rounds]
            report.figure(f"{what}: 95th in 100", "ours", late)
            # Who asks at once does so when another calculation has just begun: both are waited for.
            most = 2.0 if name == "sleep" else None
            report.ratio(f"{what}: 95th in 100 over one alone", late, units, at_most=most)


def _question(address: str, name: str, questions: int, *, thinks: bool) -> dict[str, Any]:
    """Return how long questions took while jobs waited, and before, with nobody else there."""
    pauses = Random(questions)  # the same each time
    remote, atoms = RemoteCalculator(name, address), structure(8)

    def ask() -> float:
        atoms.positions[0, 0] += STEP
        start = time.perf_counter()
        remote.get_property("forces", atoms)
        return time.perf_counter() - start

    alone = [ask() for _ in range(10)]
    times = []
    with Client(address) as client:
        many = [structure(8) for _ in range(JOBS[name])]
        for number, one in enumerate(many):
            one.positions[1, 0] += STEP * (number + 1)
        futures = [client.submit(name, one) for one in many]
        futures[0].result()
        for _ in range(questions):
            if thinks:
                time.sleep(pauses.random() * SLEEP)
            times.append(ask())
    return {"times": times, "alone": alone}
