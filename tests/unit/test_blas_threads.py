"""Where many threads do linear algebra, each does it alone."""

from __future__ import annotations

import sys
from unittest.mock import Mock

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from aserpc import blas_threads
from aserpc.parallel.asking import in_threads


def teams() -> set[int]:
    """Return how many threads numpy's linear algebra takes."""
    np.linalg.eigh(np.eye(2))  # loaded by now
    return {team["num_threads"] for team in threadpool_info() if team["user_api"] == "blas"}


def test_numpy_has_one_thread_while_many_of_ours_compute() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        before = teams()
        assert in_threads(Mock(), lambda _: teams(), [1, 2, 3], 2) == [{1}] * 3
        assert teams() == before


def test_without_threadpoolctl_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = teams()
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with blas_threads.one_each():
        assert teams() == before
