"""Everything fails, all the time, and yet each request has one right end and nothing is left.

``CHAOS_MINUTES`` and ``CHAOS_SEED`` make a run longer, and its faults those of another.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable

import pytest

from aserpc.client import blocking
from chaos.faults import ALL, LASTING, Chaos
from chaos.house import PATIENCE, House, UnwellError, descriptors, resident
from chaos.verdict import complaints, summary
from support.processes import Process
from support.waiting import wait_for

MINUTES = float(os.environ.get("CHAOS_MINUTES", "1"))

#: Work that is not done as it should be, in one request of a hundred.
ODD_WORK = {"hold": 1.0, "raise": 1.0, "hang": 0.1, "seize": 0.1, "crash": 0.15}

#: How much more memory a process may have in the end than after a quarter of its time.
GROWTH = 1.1

#: In so many looks in a row, some seconds together, nothing has changed.
STEADY = 200

#: Longer than libzmq waits for the first word on a connection, s.
HANDSHAKE = 40.0

Record = Callable[[str, object], None]


def lasting(house: House) -> dict[str, Process]:
    """Return those that live from a run's middle to its end."""
    assert house.broker is not None
    assert house.manager is not None
    clients = dict(list(house.clients.items())[:2])
    return {"broker": house.broker, "manager": house.manager, **clients}


def measured(house: House) -> dict[str, tuple[int, Counter[str]]]:
    """Return their memory, and their descriptors once no connection is made or closed any more."""
    # Of this process's own questions; how many they take depends on which have been asked.
    blocking.pool().close()
    processes = lasting(house)
    samples: list[dict[str, Counter[str]]] = []

    def rest() -> bool:
        house.attend()
        samples.append({who: descriptors(process) for who, process in processes.items()})
        return len(samples) > STEADY and all(one == samples[-1] for one in samples[-STEADY:])

    wait_for(rest, PATIENCE)
    return {who: (resident(p), samples[-1][who]) for who, p in processes.items()}


@pytest.mark.timeout(MINUTES * 60 + 600)
def test_nothing_is_lost_wrong_or_left(
    make_house: Callable[..., House], record_property: Record
) -> None:
    house = make_house(ODD_WORK)
    run = house.run
    record_property("summary", f"chaos, seed {house.seed}")
    chaos = Chaos(house, pause=0.7)
    quarter = MINUTES * 60 / 8
    try:
        house.start()
        chaos.rage(4 * quarter, ALL)
        house.calm()
        chaos.rage(quarter, LASTING)
        house.calm()
        before = measured(house)
        chaos.rage(3 * quarter, LASTING)
        house.calm()
        after = measured(house)
        for who, process in lasting(house).items():
            # A connection that was never greeted is closed by libzmq after 30 s.
            with contextlib.suppress(AssertionError):
                wait_for(lambda: not descriptors(process) - before[who][1], HANDSHAKE)  # noqa: B023
            after[who] = after[who][0], descriptors(process)
        house.end()
    except UnwellError:
        before = after = {}
    found = complaints(run)
    record_property("summary", summary(run, house.seed))
    for who, (memory, files) in after.items():
        if memory > GROWTH * before[who][0]:
            found.append(f"{who} has {memory} kB of memory, and had {before[who][0]}")
        if files - before[who][1]:  # it may have had a connection then that nobody greeted
            found.append(f"{who} has {files}, and had {before[who][1]}")
    assert not found, "\n".join([summary(run, house.seed), *found])
