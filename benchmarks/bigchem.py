"""Pipelined trivial requests beside BigChem, which is Celery and Redis."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import contenders
from benchmarks.environments import environment_with
from benchmarks.processes import Bench, BenchmarkError, Driver
from benchmarks.report import Report
from benchmarks.timing import interleave

#: The second is what BigChem 0.11 needs and does not ask for.
REQUIREMENTS = ["bigchem==0.11.0", "qcdata==0.18.0"]

#: As BigChem's own manual starts workers: no chatter among them.
QUIET = ["--without-heartbeat", "--without-mingle", "--without-gossip"]


def run(bench: Bench, report: Report) -> None:
    """Measure both with 1 and 2 workers: theirs add two numbers, ours move structures."""
    if "bigchem" in bench.without:
        report.skip("BigChem: not wanted")
        return
    try:
        redis = contenders.redis_server()
        scripts = environment_with("bigchem-0.11", REQUIREMENTS)
    except BenchmarkError as error:
        report.skip(str(error))
        return
    service = contenders.ours(bench, {"null-1": 1, "null-2": 2})
    client = service.driver(bench)
    requests = 200 if bench.quick else 1000

    for workers in (1, 2):
        socket = str(bench.folder / f"redis-{workers}")
        bench.start("redis", [redis, "--port", "0", "--unixsocket", socket, "--save", ""])
        url = f"redis+socket://{socket}"
        # Celery refuses to serve pickles as root; these are our own, by a private folder.
        env = {"BIGCHEM_BROKER_URL": url, "BIGCHEM_BACKEND_URL": url, "C_FORCE_ROOT": "1"}
        celery = [str(scripts / "celery"), "-A", "bigchem.tasks", "worker", "-c", str(workers)]
        bench.start("celery", [*celery, *QUIET, "--loglevel=WARNING"], env=env)
        module = [str(scripts / "python"), "-m", "benchmarks.bigchem_driver"]
        theirs = bench.driver("bigchem", module, env)
        theirs.do("pipelined", requests=1)

        def ask(driver: Driver, **arguments: Any) -> Callable[[], dict[str, Any]]:
            return partial(driver.do, "pipelined", requests=requests, **arguments)

        rounds = interleave(
            bench.rounds,
            {"ours": ask(client, name=f"null-{workers}", atoms=8), "BigChem": ask(theirs)},
        )
        rates = {kind: [1 / each["seconds"] for each in found] for kind, found in rounds.items()}
        what = f"pipelined trivial requests, {workers} workers"
        for kind, found in rates.items():
            report.figure(what, kind, found, "1/s")
        report.ratio(f"{what}: over BigChem's", rates["ours"], rates["BigChem"], at_least=8.0)
