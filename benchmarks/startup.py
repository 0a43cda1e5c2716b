"""How long it takes to begin: imports, the command line, a worker."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import zmq

from aserpc import transport
from aserpc.header import unpack_header
from aserpc.messages import FROM_WORKER, Ready
from benchmarks.processes import Bench, BenchmarkError, environment
from benchmarks.report import Report
from benchmarks.timing import interleave

#: How long a worker may take to register, s.
PATIENCE = 60.0

CALCULATOR = "benchmarks.calculators:EMT"


def run(bench: Bench, report: Report) -> None:
    """Measure whole processes, from their start to their end; of a worker, to its registration."""
    python = [sys.executable, "-c"]
    command = str(Path(sysconfig.get_path("scripts")) / "aserpc")
    own_import = "from benchmarks.calculators import EMT; EMT()"
    tasks: dict[str, Callable[[], float]] = {
        "python": partial(_process, bench, [*python, "pass"]),
        "import aserpc": partial(_process, bench, [*python, "import aserpc"]),
        "import RemoteCalculator": partial(
            _process, bench, [*python, "from aserpc import RemoteCalculator"]
        ),
        "import typer, rich": partial(_process, bench, [*python, "import typer, rich"]),
        "aserpc --help": partial(_process, bench, [command, "--help"]),
        "import of EMT": partial(_process, bench, [*python, own_import]),
        "worker of EMT, to its registration": partial(_worker, bench, command),
    }
    for task in tasks.values():
        task()  # files are read and compiled
    rounds = interleave(bench.rounds, tasks)
    for what, found in rounds.items():
        report.figure("start", what, found)
    report.ratio(
        "aserpc --help, over import typer, rich",
        rounds["aserpc --help"],
        rounds["import typer, rich"],
        at_most=1.5,
    )
    report.ratio("import aserpc, over python alone", rounds["import aserpc"], rounds["python"])
    report.ratio(
        "worker of EMT, over the import of EMT",
        rounds["worker of EMT, to its registration"],
        rounds["import of EMT"],
    )


def _process(bench: Bench, command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        command, env=environment(bench.folder), cwd=bench.folder, capture_output=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"{command}: {done.stderr.decode(errors='replace')[-500:]}")
    return time.perf_counter() - start


def _worker(bench: Bench, command: str) -> float:
    """Return how long a worker takes until a broker, which is us, hears that it is ready."""
    address = f"ipc://{bench.subfolder()}/b"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        sock = context.socket(zmq.ROUTER)
        sock.bind(address)
        start = time.perf_counter()
        worker = bench.start("worker", [command, "worker", CALCULATOR, "--broker", address])
        while sock.poll(int(PATIENCE * 1000)):
            _, header, *_ = transport.receive(sock)
            if isinstance(unpack_header(header, FROM_WORKER), Ready):
                seconds = time.perf_counter() - start
                worker.kill()
                return seconds
        raise BenchmarkError(f"a worker did not register: {worker.errors()}")
    finally:
        context.destroy(linger=0)
