"""Messages that are right in form, in any order, from whoever: no state breaks or keeps them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aserpc.messages import FROM_CLIENT, FROM_WORKER, TO_CLIENT, TO_MANAGER, TO_WORKER
from support.choices import Choices
from support.fuzzed import quiet

from .any_messages import TARGETS, Side, any_message


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Log nothing: much goes wrong here."""
    with quiet():
        yield


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=500))
def test_any_history_is_survived(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("side", [FROM_CLIENT, FROM_WORKER, TO_CLIENT, TO_WORKER, TO_MANAGER])
def test_messages_of_all_kinds_are_made(side: Side) -> None:
    rng = random.Random(1)
    made = {
        type(any_message(Choices(bytes([kind]) + rng.randbytes(60)), side))
        for kind in range(len(side))
        for _ in range(50)
    }
    assert made >= set(side)
