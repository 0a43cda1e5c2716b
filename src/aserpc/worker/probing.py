"""How many structures to compute together, found out by trying (``max_batch = "auto"``)."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from aserpc.batchers import BatchCalculator
from aserpc.worker.batching import Limits
from aserpc.worker.computing import free_memory, is_out_of_memory

logger = logging.getLogger(__name__)

#: Most structures that are tried together.
MOST = 512

#: When no larger batch is begun any more, s.
TIME = 30.0

#: A batch is better than smaller ones if a structure of it takes less than this part of their time.
BETTER = 0.95

#: Twice as many structures that are not better, and this often again, end the trial.
PATIENCE = 2

#: The part of the memory that is left which a batch may be expected to take.
PART = 0.5


@dataclass
class Trial:
    """What is measured; made-up ones have no machine around them."""

    clock: Callable[[], float] = time.perf_counter
    #: Returns the most memory that the process has had, and what the machine has left, bytes.
    memory: Callable[[], tuple[float, float]] = lambda: (_peak(), _available())


def find_limits(batcher: BatchCalculator, default: Limits, trial: Trial | None = None) -> Limits:
    """Return limits by which structures are computed fastest, for which there is the memory.

    Batches of a small, dense crystal are computed, each twice as large as the last one, until there
    is not enough memory or they get no faster a structure.

    Parameters
    ----------
    batcher
        What computes them.
    default
        What to return if it computes none of the crystals that are tried; its `wait` is kept.
    trial
        Clock and memory.
    """
    trial = trial or Trial()
    sample = _sample(batcher)
    if sample is None:
        logger.warning("no trial of batches: none of its crystals can be computed")
        return default
    times: dict[int, float] = {}
    structures, growth, misses = 1, 0.0, 0
    began = trial.clock()
    while structures <= MOST and misses <= PATIENCE and trial.clock() < began + TIME:
        before, left = trial.memory()
        if 2 * growth > PART * left:
            break
        started = trial.clock()
        try:
            batcher.calculate_batch([sample.copy() for _ in range(structures)], ["energy"])
        except Exception as error:  # noqa: BLE001 -- whatever: so many can't be computed
            logger.info("a trial with %d structures failed: %s", structures, error)
            lacks_memory = is_out_of_memory(error)
        else:
            lacks_memory = False
            each = (trial.clock() - started) / structures
            misses = misses + 1 if times and each > BETTER * min(times.values()) else 0
            times[structures] = each
            growth = trial.memory()[0] - before
            structures *= 2
            continue
        if lacks_memory:
            free_memory()
        break
    if not times:
        return default
    best = min(times.values())
    chosen = min(number for number, each in times.items() if each <= best / BETTER)
    return Limits(chosen, max(times) * len(sample), default.wait)


def _sample(batcher: BatchCalculator) -> Atoms | None:
    """Return a small structure that can be computed: not every model knows every element."""
    from ase.build import bulk, molecule  # SciPy with it, which the others here do without

    candidates: Sequence[Atoms] = [
        bulk("Cu", cubic=True) * (1, 1, 2),
        bulk("Si", cubic=True),
        bulk("NaCl", "rocksalt", 5.64, cubic=True),
        molecule("CH3CH2OH", vacuum=5.0),
        molecule("H2O", vacuum=5.0),
    ]
    for atoms in candidates:
        try:
            # Twice: the first calls of a model take longer.
            for _ in range(2):
                found = batcher.calculate_batch([atoms.copy(), atoms.copy()], ["energy"])
        except Exception:
            logger.debug("a trial with %s", atoms.get_chemical_formula(), exc_info=True)
            continue
        if all(np.all(np.isfinite(results["energy"])) for results in found):
            return atoms
    return None


def _peak() -> float:
    # In KiB, on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _available() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    return float(sizes.get("MemAvailable", "inf").split()[0]) * 1024.0
