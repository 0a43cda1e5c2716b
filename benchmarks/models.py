"""A model's structures alone and in batches, in its own environment: prints JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from ase import Atoms
from ase.build import bulk

#: How each model is made, of a package with its weights.
FACTORIES = {
    "chgnet": "chgnet.model.dynamics:CHGNetCalculator",
    "sevennet": "sevenn.calculator:SevenNetCalculator",
}

#: Small crystals: an element or two, the structure and the edge, Å.
CRYSTALS = (
    ("NaCl", "rocksalt", 5.64),
    ("MgO", "rocksalt", 4.21),
    ("Si", "diamond", 5.43),
    ("GaAs", "zincblende", 5.65),
)


def crystal(number: int) -> Atoms:
    """Return a crystal of two or four atoms, moved a little."""
    name, kind, edge = CRYSTALS[number % len(CRYSTALS)]
    atoms: Atoms = bulk(name, kind, edge) * (1 + number // len(CRYSTALS) % 2, 1, 1)
    atoms.rattle(0.05, seed=number)
    return atoms


def _timed(call: Callable[[], Any]) -> dict[str, float]:
    start, cpu = time.perf_counter(), time.process_time()
    call()
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}


def main(model: str, structures: int, rounds: int) -> dict[str, Any]:
    """Compute structures one by one, and in batches of several sizes, in turn."""
    import torch

    from aserpc.batchers import find_batcher
    from aserpc.entries import load_factory

    calculator = load_factory(FACTORIES[model])()
    batcher = find_batcher(calculator)
    assert batcher is not None
    systems = [crystal(number) for number in range(structures)]

    def alone() -> None:
        for atoms in systems:
            calculator.calculate(atoms.copy(), ["energy", "forces"], ["positions"])

    def batches(size: int) -> None:
        for start in range(0, structures, size):
            chosen = [atoms.copy() for atoms in systems[start : start + size]]
            batcher.calculate_batch(chosen, ["energy", "forces"])

    sizes = [size for size in (4, 16, 64) if size <= structures]
    for call in (alone, lambda: batches(sizes[0]), lambda: batches(sizes[-1])):
        call()  # a model's first calls take longer
    found: dict[str, list[dict[str, float]]] = {str(size): [] for size in sizes}
    found["alone"] = []
    for _ in range(rounds):
        found["alone"].append(_timed(alone))
        for size in sizes:
            found[str(size)].append(_timed(lambda size=size: batches(size)))  # type: ignore[misc]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"device": device, "rounds": found}


if __name__ == "__main__":
    name, count, number = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # models print when they are made
    print(json.dumps(main(name, int(count), int(number))), file=answers)
