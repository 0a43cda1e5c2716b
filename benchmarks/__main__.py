"""``python -m benchmarks [--quick] [--json FILE] [--only PART ...] [--without CONTENDER ...]``."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.processes import Bench, BenchmarkError
from benchmarks.report import Report

#: Parts, and the modules whose `run` measures them.
PARTS = {
    "latency": "latency",
    "scripts": "scripts",
    "throughput": "throughput",
    "fairness": "fairness",
    "bigchem": "bigchem",
    "scale": "scale",
    "scale-sockets": "scale_sockets",
    "startup": "startup",
    "batching": "batching",
}

CONTENDERS = ("aserpc-0.1.3", "bigchem", "socket", "tcp", "chgnet", "sevennet")


def main() -> int:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller measurements")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
        help=f"of {', '.join(PARTS)}",
    )  # fmt: skip
    parser.add_argument(
        "--without", nargs="+", choices=CONTENDERS, default=[], metavar="CONTENDER",
        help=f"of {', '.join(CONTENDERS)}",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, help="how often each is measured (3 or 9)")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 9)

    # As Ctrl-C: the processes end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    report = Report(machine(rounds))
    for part in options.only:
        print(f"measuring: {part}", file=sys.stderr)
        run = importlib.import_module(f"benchmarks.{PARTS[part]}").run
        with Bench(rounds, quick=options.quick, without=options.without) as bench:
            try:
                run(bench, report)
            except BenchmarkError as error:
                report.skip(f"the rest of {part}: {error}")
    print(report.text())
    if options.json is not None:
        options.json.write_text(report.json() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
