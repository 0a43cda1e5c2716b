"""The chaos run finds what a broken broker does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.faults import Chaos
from chaos.house import WORKER_TIMEOUT, House, UnwellError
from chaos.verdict import complaints


@pytest.mark.timeout(300)  # as long as the service may take to start on a busy machine
@pytest.mark.parametrize(
    ("breaks", "weights", "told"),
    [
        ("forget a requeue", {"kill worker": 1.0}, "never answered"),
        ("drop an id check", {"kill client": 1.0}, "wrong, "),
    ],
)
def test_it_finds_what_a_broken_broker_does(
    make_house: Callable[..., House], breaks: str, weights: dict[str, float], told: str
) -> None:
    house = make_house({"hold": 20.0}, breaks)
    with pytest.raises(UnwellError):  # noqa: PT012 -- whichever of them sees it
        house.start()
        for _ in range(10):
            Chaos(house, pause=0.3).rage(2.0, weights)
            house.calm(patience=WORKER_TIMEOUT)
            if any(told in complaint for complaint in complaints(house.run)):
                raise UnwellError
    assert any(told in complaint for complaint in complaints(house.run)), complaints(house.run)
