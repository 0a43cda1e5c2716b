"""Readers of other people's bytes: with random ones, and with those that once broke one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.fuzzed import TARGETS, quiet

CORPUS = Path(__file__).parents[1] / "data" / "corpus"


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Keep the log empty: much of what is read is dropped with a line there."""
    with quiet():
        yield


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    TARGETS[name](data)


FOUND = sorted(path for path in CORPUS.glob("*/*") if path.parent.name in TARGETS)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_broke_a_reader_does_no_more(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_there_is_a_corpus() -> None:
    assert {path.parent.name for path in FOUND} >= {"atoms", "header", "roster", "spawned", "owner"}
