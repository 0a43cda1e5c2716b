"""The benchmark runs and says what it measured; its figures are not judged here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine
from benchmarks.__main__ import parsed
from support.waiting import wait_for

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
    assert {"load before", "load after"} <= set(report["machine"])
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


def processes_with(folder: Path) -> list[str]:
    """Return the numbers of the processes that have a folder in their environment."""
    wanted = str(folder).encode()
    return [
        process.name for process in Path("/proc").glob("[0-9]*") if wanted in environ_of(process)
    ]


def environ_of(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it has ended, or is somebody else's
        return b""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_reports_what_it_has_and_leaves_no_process(
    socket_folder: Path, number: signal.Signals
) -> None:
    file = socket_folder / "figures.json"
    options = ("--quick", "--rounds", "1", "--only", "scale", "scale-sockets", "startup")
    run = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *options, "--json", str(file)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(socket_folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.stderr is not None
        while "scale-sockets" not in (line := run.stderr.readline()):
            assert line, "it ended before"
        wait_for(lambda: len(processes_with(socket_folder)) > 1)  # a broker runs
        run.send_signal(number)
        printed, complained = run.communicate(timeout=30)
    assert run.returncode == 128 + number
    assert complained.splitlines() == ["interrupted: the report has what was measured until then"]
    report = json.loads(file.read_text())
    assert {figure["what"] for figure in report["figures"]} >= {"a message, without sockets"}
    left = f"the rest of scale-sockets, startup: interrupted by {number.name}"
    assert report["skipped"] == [left]
    assert f"left out: {left}" in printed
    assert processes_with(socket_folder) == []
    assert [path.name for path in socket_folder.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "everything"), "--only: invalid choice: 'everything' (choose from 'latency'"),
        (("--rounds", "0"), "--rounds: '0' is not 1 or more"),
        (("--rounds", "-3"), "--rounds: '-3' is not 1 or more"),
        (("--json", "/nonexistent/f.json"), "--json: /nonexistent/f.json: No such file"),
        (("--json", "/"), "--json: /: Is a directory"),
    ],
    ids=["a part", "no rounds", "fewer", "a folder that is not there", "a folder"],
)
def test_what_cannot_be_done_is_said_in_one_line_before_anything_is_measured(
    arguments: tuple[str, ...], said: str
) -> None:
    done = benchmark(*arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"python -m benchmarks: argument {said}")


def test_a_file_that_will_be_written_is_left_as_it_is_until_then(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text("earlier")
    assert parsed(["--json", str(kept)]).json == kept
    assert kept.read_text() == "earlier"
    assert parsed(["--json", str(tmp_path / "new.json")]).json == tmp_path / "new.json"
    assert list(tmp_path.iterdir()) == [kept]


def test_as_many_rounds_as_the_help_says() -> None:
    assert (parsed([]).rounds, parsed(["--quick"]).rounds) == (9, 3)
    assert parsed(["--quick", "--rounds", "1"]).rounds == 1
    printed = benchmark("--help").stdout
    assert "(9; 3 with --quick)" in printed
    assert "`" not in printed
    assert printed.count("--quick]") == 1


@pytest.mark.parametrize(("wanted", "warns"), [(2.0, False), (2.1, True)])
def test_a_busy_machine_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, wanted: float, warns: bool
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (wanted, 9.0, 9.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert ("the load was 2.1 on 2 processors" in machine.overloaded()) is warns
    assert bool(machine.overloaded()) is warns
