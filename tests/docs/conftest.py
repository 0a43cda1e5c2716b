"""What the tests of the documentation need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.reader import Reader


@pytest.fixture
def reader() -> Iterator[Reader]:
    """Give a reader with a folder of its own."""
    with Reader() as reader:
        yield reader
