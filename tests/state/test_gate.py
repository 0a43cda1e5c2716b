"""The gate of a broker that runs out of descriptors; and who counts them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from aserpc import descriptors
from aserpc.broker.gate import LOOK_INTERVAL, Gate, backlog
from aserpc.errors import TooManyFilesError
from aserpc.socket_folder import full_path


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Paths of two sockets."""
    paths = [tmp_path / name for name in ("frontend.ipc", "backend.ipc")]
    for path in paths:
        path.touch()
    return paths


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many descriptors there are, of how many; to be changed."""
    used = {"count": 20, "limit": 1000}
    for name in used:
        monkeypatch.setattr(descriptors, name, lambda name=name: used[name])
    return used


def test_it_closes_before_the_descriptors_run_out_and_opens_again(
    paths: list[Path], used: dict[str, int]
) -> None:
    gate = Gate(paths)
    gate.accepted(499, 10.0)
    assert all(path.exists() for path in paths)
    assert gate.look_at is None
    gate.accepted(500, 10.0)
    assert not any(path.exists() for path in paths)
    assert gate.look_at == 10 + LOOK_INTERVAL
    used["count"] = 490
    gate.look(gate.look_at)
    assert not any(path.exists() for path in paths), "not for one that has left"
    used["count"] = 300
    gate.look(10.6)
    assert not any(path.exists() for path in paths), "not before its time"
    gate.look(11.0)
    assert all(path.exists() for path in paths)
    assert gate.look_at is None
    gate.accepted(600, 12.0)
    assert not any(path.exists() for path in paths)


def test_what_a_killed_broker_has_left_is_removed(paths: list[Path], used: dict[str, int]) -> None:
    Gate(paths).accepted(999, 0.0)
    assert full_path(paths[0]).exists()
    gate = Gate(paths)
    assert not list(paths[0].parent.iterdir())
    for path in paths:
        path.touch()
    gate.accepted(999, 0.0)
    gate.remove()
    assert not list(paths[0].parent.iterdir())


@pytest.mark.parametrize(("limit", "waiting"), [(8, 1), (100, 12), (1000, 100), (65536, 100)])
def test_few_wait_where_there_is_little_room(
    used: dict[str, int], limit: int, waiting: int
) -> None:
    used["limit"] = limit
    assert backlog() == waiting


# ---- descriptors ---------------------------------------------------------------------------------


@pytest.fixture
def few() -> Iterator[int]:
    """Let this process have few descriptors more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 11, hard))
    yield highest + 11
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_are_counted_without_leaving_any(few: int) -> None:
    before = descriptors.count()
    descriptors.check_room(5)
    with pytest.raises(TooManyFilesError, match=f"may have {few} files and connections open"):
        descriptors.check_room(few)
    assert descriptors.count() == before
    with Path(os.devnull).open():
        assert descriptors.count() == before + 1


def test_the_limit_is_raised_to_what_is_allowed(few: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert descriptors.limit() == few
    descriptors.raise_limit()
    assert descriptors.limit() == min(hard, descriptors.ENOUGH)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == hard
