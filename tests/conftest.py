"""What tests of several kinds need."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from support.processes import Cli
from support.service import Service
from support.waiting import wait_for

# The same histories at each run there: a change is judged by what it does, not by luck.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_xdist_auto_num_workers() -> int:
    """Run one more at a time than there are cores: most tests wait for something."""
    return (os.cpu_count() or 1) + 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests tell by ``record_property("summary", ...)``, also those that pass."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            told = dict(getattr(report, "user_properties", []))
            if "summary" in told and report.when == "call":
                terminalreporter.write_line(told["summary"])


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """A private folder with a path short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="a-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def service(socket_folder: Path, leaves_nothing: None) -> Iterator[Service]:
    """A service without a broker or worker yet, ended with the test."""
    service = Service(socket_folder)
    yield service
    service.close()


@pytest.fixture
def cli(socket_folder: Path, tmp_path: Path, leaves_nothing: None) -> Iterator[Cli]:
    """The command line, in a current folder of its own; what it starts ends with the test."""
    cwd, logs = tmp_path / "cwd", tmp_path / "logs"
    cwd.mkdir()
    logs.mkdir()
    cli = Cli(socket_folder, cwd, logs)
    yield cli
    cli.close()


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """Check that a test leaves neither a thread nor a process."""
    from aserpc.client import blocking

    threads, children = _threads(), _children()
    yield
    blocking.pool().close()
    wait_for(
        lambda: _threads() <= threads,
        what=lambda: f"threads are left: {_threads() - threads}",
    )
    wait_for(
        lambda: _children() <= children,
        what=lambda: f"processes are left: {_children() - children}",
    )


def _threads() -> set[threading.Thread]:
    # pyzmq has one a process, for the memory of large frames that are on their way.
    return {t for t in threading.enumerate() if type(t).__name__ != "GarbageCollectorThread"}


def _children() -> set[str]:
    pid = os.getpid()
    return {
        child
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    }
