"""What a chaos run is: its seed, its length, and where it tells of itself."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.house import House
from chaos.records import Chronicle
from support.processes import Cli


@pytest.fixture
def seed() -> str:
    """Of all that is random: CHAOS_SEED, or a new one."""
    return os.environ.get("CHAOS_SEED") or secrets.token_hex(4)


@pytest.fixture
def make_house(cli: Cli, seed: str) -> Iterator[Callable[..., House]]:
    """Make the service of a run; it ends with the test."""
    houses = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:

        def make(percent: dict[str, float], breaks: str = "") -> House:
            house = House(cli, Chronicle(Path(folder)), seed, percent, breaks)
            houses.append(house)
            return house

        yield make
        for house in houses:
            house.close()
