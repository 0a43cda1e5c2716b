"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks.interrupts import Interrupted, ignore_signals, raise_on_signals
from benchmarks.machine import load, machine, overloaded
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line."""
        self.exit(2, f"{self.prog}: {message}\n")


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what is wanted; end with a line and exit code 2 if that can't be."""
    parser = _Parser(
        prog="python -m benchmarks",
        description="Measure what calls cost beyond the calculation, beside others.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller measurements")
    parser.add_argument(
        "--json", type=_writable, metavar="FILE", help="write all figures there, too"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
        help=f"of {', '.join(PARTS)}",
    )  # fmt: skip
    parser.add_argument(
        "--without", nargs="+", choices=CONTENDERS, default=[], metavar="CONTENDER",
        help=f"of {', '.join(CONTENDERS)}",
    )  # fmt: skip
    parser.add_argument(
        "--rounds", type=_positive, help="how often each is measured (9; 3 with --quick)"
    )
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = 3 if options.quick else 9
    return options


def _positive(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")


def _writable(text: str) -> Path:
    """Return a file's path if the file can be written, which is known before measuring."""
    file = Path(text)
    is_new = not file.exists()
    try:
        file.open("a").close()
        if is_new:
            file.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    return file


def measure(options: argparse.Namespace, report: Report) -> int:
    """Measure the parts; return the exit code."""
    done = 0
    try:
        for part in options.only:
            print(f"measuring: {part}", file=sys.stderr)
            _part(part, options, report)
            done += 1
    except Interrupted as signal:
        ignore_signals()
        first, *others = options.only[done:]
        left = ", ".join([f"the rest of {first}", *others])
        report.skip(f"{left}: interrupted by {signal}")
        return 128 + signal.number
    return 0


def _part(part: str, options: argparse.Namespace, report: Report) -> None:
    run = importlib.import_module(f"benchmarks.{PARTS[part]}").run
    with Bench(options.rounds, quick=options.quick, without=options.without) as bench:
        try:
            run(bench, report)
        except BenchmarkError as error:
            report.skip(f"the rest of {part}: {error}")


def main() -> int:
    """Measure, and print what came of it, also if that is not all."""
    options = parsed()
    raise_on_signals()
    report = Report(machine(options.rounds))
    warning = overloaded()
    if warning:
        report.machine["warning"] = warning
        print(f"warning: {warning}", file=sys.stderr)
    try:
        code = measure(options, report)
    finally:
        report.machine["load after"] = load()
        print(report.text(), flush=True)
        if options.json is not None:
            options.json.write_text(report.json() + "\n")
    if code:
        print("interrupted: the report has what was measured until then", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
