"""Somebody who works at a script is not kept waiting by somebody who computes hundreds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from support.batches import Together
from support.calculators import PAUSE
from support.service import Service
from support.waiting import wait_for

#: Jobs of the one, by the most structures in a batch, and questions of the other.
MANY, FEW = {1: 500, 16: 3000}, 60

#: Percentage of the questions that are held to it: the machine may keep one from the broker while
#: a calculation ends.
MOST = 80

#: How long a calculation takes, s. Counted are calculations: nothing here depends on the machine.
SECONDS = 0.03


class Slow(Together):
    """Takes its time, alone or for a batch; keeps who was in each calculation."""

    def __init__(self) -> None:
        super().__init__()
        #: Tokens of the structures of each calculation that has ended.
        self.ended: list[list[Any]] = []

    def calculate(self, atoms: Any = None, *args: Any, **kwargs: Any) -> None:
        """See `Spring.calculate`."""
        PAUSE.wait(SECONDS)
        super().calculate(atoms, *args, **kwargs)
        self.ended.append([atoms.info["token"]])

    def calculate_batch(
        self, atoms: Sequence[Atoms], properties: Sequence[str]
    ) -> list[dict[str, Any]]:
        """See `Together.calculate_batch`."""
        PAUSE.wait(SECONDS)
        found = super().calculate_batch(atoms, properties)
        self.ended.append([one.info["token"] for one in atoms])
        return found


def structure(token: object, x: float) -> Atoms:
    return Atoms("H", [(x, 0, 0)], info={"token": token})


#: By the most structures in a batch, how many calculations may end until a question is answered:
#: what is computed when it comes, with batches also what has gathered behind it, and its own.
WITHIN = {1: 2, 16: 3}


@pytest.mark.parametrize("max_batch", WITHIN)
def test_a_question_beside_hundreds_waits_for_what_is_computed(
    service: Service, max_batch: int, record_property: Callable[[str, object], None]
) -> None:
    service.start_broker()
    calculator = Slow()
    service.start_worker("it", lambda: calculator, max_batch=max_batch)
    client, remote = service.client(), service.calculator("it")
    many = [
        client.submit("it", structure("many", float(n)), ["energy"]) for n in range(MANY[max_batch])
    ]
    wait_for(lambda: calculator.ended)

    counts, times = [], []
    begun_at, begun = time.monotonic(), len(calculator.ended)
    for number in range(FEW):
        before, asked_at = len(calculator.ended), time.monotonic()
        remote.get_property("energy", structure(number, 1000.0 + number))
        times.append(time.monotonic() - asked_at)
        (mine,) = (n for n, tokens in enumerate(calculator.ended) if number in tokens)
        counts.append(mine + 1 - before)
        if all(future.done() for future in many):
            break
    unit = (time.monotonic() - begun_at) / (len(calculator.ended) - begun)
    left = sum(not future.done() for future in many)

    worker = "a plain worker" if max_batch == 1 else f"batches of up to {max_batch}"
    record_property(
        "summary",
        f"fairness, {worker}: of {len(counts)} questions beside {MANY[max_batch]} jobs the {MOST}th"
        f" in 100 was answered after {np.percentile(counts, MOST):.0f} calculations,"
        f" {np.percentile(times, MOST) / unit:.2f} times as long as one took; {left} were left",
    )
    assert np.percentile(counts, MOST) <= WITHIN[max_batch]
    assert len(counts) >= FEW // 2
    assert max_batch > 1 or left, "it was alone for some of the time"
