"""Tests across hosts, which are network namespaces: none of them may be skipped in CI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ssh_server
from support.across import Across
from support.hosts import network, why_not
from support.skips import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def networks() -> None:
    """See that there can be hosts here."""
    reason = why_not()
    if reason:
        pytest.skip(f"there can be no other hosts here: {reason}")


@pytest.fixture(scope="session")
def can_log_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    """See that there can be an ssh server here."""
    reason = ssh_server.why_not(tmp_path_factory.mktemp("ssh"))
    if reason:
        pytest.skip(f"nobody can log in here: {reason}")


@pytest.fixture
def across(
    networks: None, socket_folder: Path, tmp_path: Path, leaves_nothing: None
) -> Iterator[Across]:
    """A service whose broker is on one host, on a network with others."""
    with network("head", "one", "two", "laptop") as hosts:
        across = Across(hosts, socket_folder, tmp_path)
        yield across
        across.close()
