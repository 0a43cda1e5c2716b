"""How many structures to compute together, found out by trying (``max_batch = "auto"``)."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties

from aserpc.batchers import BatchCalculator
from aserpc.importing import explain
from aserpc.worker.batching import Limits
from aserpc.worker.computing import check_results, free_memory, is_out_of_memory

logger = logging.getLogger(__name__)

#: Most structures that are tried together.
MOST = 512

#: Time for a trial, without the first calls that choose its crystal, s.
TIME = 30.0

#: How often a size is timed, as another process may be busy meanwhile; the fastest counts.
TIMES = 3

#: A size that has taken so long is not timed again, s: larger ones need the time, too.
LONG = 3.0

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


@dataclass(frozen=True)
class _Sample:
    """A structure that is tried, and the property by which its batches are judged."""

    atoms: Atoms
    asked: str

    def compute(self, batcher: BatchCalculator, number: int) -> Any:
        """Return whatever a batch of so many gives."""
        return batcher.calculate_batch([self.atoms.copy() for _ in range(number)], [self.asked])

    def check(self, found: Any, number: int) -> None:
        """Refuse results of so many that no client could be given."""
        check_results(found, number)
        what = f"the {self.asked} of {self.atoms.get_chemical_formula()}"
        for results in found:
            if self.asked not in results:
                msg = f"{self.asked} is not among the results of a batch"
                raise ValueError(msg)
            value = results[self.asked]
            numbers = np.asarray(value)
            if numbers.dtype.kind not in "iufc":
                msg = f"{what} is {value!r:.60}, with the dtype {numbers.dtype}; numbers are needed"
                raise TypeError(msg)
            if not np.all(np.isfinite(numbers)):
                msg = f"{what} is not finite"
                raise ValueError(msg)


def find_limits(
    batcher: BatchCalculator,
    default: Limits,
    trial: Trial | None = None,
    *,
    most_atoms: int | None = None,
) -> Limits:
    """Return limits by which structures are computed fastest, for which there is the memory.

    Batches of a small, dense crystal are computed, each twice as large as the last one, until there
    is not enough memory, they get no faster a structure, or the time is up.

    Parameters
    ----------
    batcher
        What computes them.
    default
        What to return if nothing can be learnt by that; its `wait` is kept.
    trial
        Clock and memory.
    most_atoms
        How many atoms no batch may have more of, also none that is tried; None: as many as fit.
    """
    trial = trial or Trial()
    sample, why = _sample(batcher, most_atoms)
    if sample is None:
        logger.warning("no trial of batches: none of its crystals can be computed: %s", why)
        return default
    largest = MOST if most_atoms is None else min(MOST, most_atoms // len(sample.atoms))
    times = _measure(batcher, sample, largest, trial)
    formula = sample.atoms.get_chemical_formula()
    measured = ", ".join(f"{number}: {1000 * each:.3g} ms" for number, each in times.items())
    logger.info("trial: a %s takes, of so many together: %s", formula, measured or "-")
    if len(times) < 2:
        return default  # that two can be computed together is known
    best = min(times.values())
    chosen = min(number for number, each in times.items() if each <= best / BETTER)
    return replace(default, structures=chosen, atoms=max(times) * len(sample.atoms))


def _measure(
    batcher: BatchCalculator, sample: _Sample, largest: int, trial: Trial
) -> dict[int, float]:
    """Return the time for each structure of batches, by their size."""
    times: dict[int, float] = {}
    structures, growth, misses, seconds = 1, 0.0, 0, 0.0
    ends_at = trial.clock() + TIME
    while structures <= largest and misses <= PATIENCE:
        before, left = trial.memory()
        # Twice as many take at most twice as much.
        if 2 * growth > PART * left or trial.clock() + 2 * seconds > ends_at:
            break
        try:
            seconds = _time(batcher, sample, structures, ends_at, trial)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- so many can't be computed
            logger.info("a trial with %d structures failed: %s", structures, explain(error))
            lacks_memory = is_out_of_memory(error)
        else:
            each = seconds / structures
            misses = misses + 1 if times and each > BETTER * min(times.values()) else 0
            times[structures] = each
            growth = trial.memory()[0] - before
            structures *= 2
            continue
        if lacks_memory:
            free_memory()
        break
    return times


def _time(
    batcher: BatchCalculator, sample: _Sample, structures: int, ends_at: float, trial: Trial
) -> float:
    """Return the least time that so many structures take, s."""
    found: list[float] = []
    while len(found) < TIMES and sum(found) < LONG:
        if found and trial.clock() + min(found) > ends_at:
            break
        started = trial.clock()
        results = sample.compute(batcher, structures)
        found.append(trial.clock() - started)
        sample.check(results, structures)
        del results  # the next ones are to have its memory
    return min(found)


def _sample(batcher: BatchCalculator, most_atoms: int | None) -> tuple[_Sample | None, str]:
    """Return a small structure of which two can be computed, or why none can.

    Not every model knows every element.
    """
    from ase.build import bulk, molecule  # SciPy with it, which the others here do without

    candidates: Sequence[Atoms] = [
        bulk("Cu", cubic=True) * (1, 1, 2),
        bulk("Si", cubic=True),
        bulk("NaCl", "rocksalt", 5.64, cubic=True),
        molecule("CH3CH2OH", vacuum=5.0),
        molecule("H2O", vacuum=5.0),
    ]
    why = f"two have more atoms than max_batch_atoms = {most_atoms}"
    for atoms in candidates:
        if most_atoms is not None and 2 * len(atoms) > most_atoms:
            continue
        try:
            sample = _Sample(atoms, _asked(batcher))
            # Twice: the first calls of a model take longer.
            for _ in range(2):
                sample.check(sample.compute(batcher, 2), 2)
        except (Exception, SystemExit) as error:
            logger.debug("a trial with %s", atoms.get_chemical_formula(), exc_info=True)
            why = explain(error)
        else:
            return sample, ""
    return None, why


def _asked(batcher: BatchCalculator) -> str:
    """Return the energy, or if there is none a property that is known to be numbers."""
    names = list(getattr(batcher, "implemented_properties", None) or ["energy"])
    return next((name for name in ("energy", *all_properties) if name in names), names[0])


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
