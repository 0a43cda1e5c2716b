"""That the parallel functions keep several workers busy at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from ase import Atoms
from ase.md.verlet import VelocityVerlet

from aserpc import Client, parallel
from support.calculators import Spring
from support.service import Service

WORKERS = 3


def atom(x: float = 0.5) -> Atoms:
    return Atoms("H", [(x, 0.1, 0.2)], cell=[3, 3, 3], pbc=True)


def verlet(atoms: Atoms, rng: Any) -> VelocityVerlet:
    atoms.set_momenta(rng.random((1, 3)))
    return VelocityVerlet(atoms, 1.0)


CALLS: dict[str, Callable[[Client], Any]] = {
    "hessian": lambda client: parallel.hessian(atom(), "meeting", client=client),
    "vibrations": lambda client: parallel.vibrations(atom(), "meeting", client=client),
    "phonons": lambda client: parallel.phonons(
        atom(), "meeting", supercell=(1, 1, 1), client=client
    ),
    "eos": lambda client: parallel.eos(atom(), "meeting", client=client),
    "strain": lambda client: parallel.strain(
        atom(), [0.0, 0.01, 0.02], "meeting", component="xx", client=client
    ),
    "relax": lambda client: parallel.relax([atom(x) for x in range(3)], "meeting", client=client),
    "neb": lambda client: parallel.neb(
        [atom(x) for x in range(3)], "meeting", steps=1, client=client
    ),
    "ensemble": lambda client: parallel.ensemble(
        atom(), verlet, range(3), "meeting", steps=1, client=client
    ),
}


@pytest.mark.parametrize("name", [name for name in parallel.__all__ if name.islower()])
def test_all_workers_compute_at_the_same_time(service: Service, name: str) -> None:
    met = threading.Barrier(WORKERS, timeout=20)
    lock, begun = threading.Lock(), []

    class Meeting(Spring):
        """The first calculations go on when one has begun on each worker."""

        def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
            with lock:
                begun.append(atoms)
                first = len(begun) <= WORKERS
            if first:
                met.wait()
            return super().compute(atoms, properties)

    service.start_broker()
    for _ in range(WORKERS):
        service.start_worker("meeting", Meeting)
    CALLS[name](service.client())
    assert len(begun) >= WORKERS
