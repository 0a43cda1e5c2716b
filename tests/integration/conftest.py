"""Tests with real third-party programs: none of them may be skipped in CI."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from support.environments import make_environment


@pytest.fixture(scope="session")
def environment() -> Callable[..., Path]:
    """Return a function that makes an environment with aserpc and packages: its ``bin`` folder."""
    return make_environment


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of a skip where all that is needed has to be there."""
    report = yield
    if report.skipped and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"in CI nothing is skipped: {report.longrepr}"
    return report
