"""The benchmark runs and says what it measured; its figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def quick(part: str, file: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """Measure a part; return what was printed and what was written."""
    options = ("--quick", "--rounds", "1", "--only", part, "--json", str(file))
    done = benchmark(*options, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def test_a_quick_run_prints_tables_and_writes_all_figures(tmp_path: Path) -> None:
    printed, report = quick("scale", tmp_path / "figures.json")
    assert "OMP_NUM_THREADS=1" in printed
    assert [(ratio["target"], ratio["met"] is None) for ratio in report["ratios"]] == [
        ("", True),
        ("<= 1.2", False),
    ]
    shown = [line for line in printed.splitlines() if line.startswith("| ")]
    assert len(shown) == len(report["figures"]) + len(report["ratios"]) + 4  # heads and rules


@pytest.mark.slow
@pytest.mark.timeout(180)  # eight processes of Python begin
def test_contenders_are_asked_in_processes_of_their_own(tmp_path: Path) -> None:
    others = ("--without", "aserpc-0.1.3", "tcp", "socket")
    printed, report = quick("latency", tmp_path / "figures.json", *others)
    assert "| forces, 8 atoms: overhead over the floor " in printed
    assert "left out: aserpc-0.1.3: not wanted" in printed
    of_8 = {f["contender"]: f for f in report["figures"] if f["what"] == "forces, 8 atoms"}
    assert set(of_8) == {"in process", "floor, ipc", "ours, ipc"}
    ours = of_8["ours, ipc"]
    assert 0 < of_8["in process"]["value"]["median"] < ours["value"]["median"]
    assert all(ours["cpu"][role] > 0 for role in ("client", "broker", "worker"))


def test_a_part_that_is_unknown_is_said_so() -> None:
    done = benchmark("--only", "everything")
    assert done.returncode == 2
    assert "invalid choice: 'everything'" in done.stderr
    assert "latency" in done.stderr
