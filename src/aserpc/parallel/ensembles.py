"""Ensembles: many trajectories at once, each of its own seed.

A trajectory is of its seed alone, whatever else runs beside it: it has its own random numbers, its
own thread and its own calculator. So ten and then ten more are the same as twenty. See
`aserpc.parallel.relaxations` for why there are threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import index
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms

from aserpc.client import Client
from aserpc.client.arguments import function, number_from
from aserpc.parallel.asking import AT_ONCE, FutureCalculator, asking, in_threads, with_results

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

#: What is recorded of each trajectory unless something else is wanted: eV, eV, K.
OBSERVABLES: dict[str, Callable[[Atoms], Any]] = {
    "energy": lambda atoms: atoms.get_potential_energy(),
    "kinetic_energy": lambda atoms: atoms.get_kinetic_energy(),
    "temperature": lambda atoms: atoms.get_temperature(),
}


class Ensemble(dict[str, Array]):
    """What was recorded of trajectories: {observable: array of shape (seeds, frames, ...)}.

    ``one + other`` is both, one after the other.

    Attributes
    ----------
    seeds : list of int
        Of the trajectories.
    steps : numpy.ndarray
        Of the frames.
    atoms : list of ase.Atoms
        The last structure of each trajectory, with momenta and results.
    """

    def __init__(
        self,
        observables: Mapping[str, Array],
        seeds: Iterable[int],
        steps: Array,
        atoms: Iterable[Atoms],
    ) -> None:
        super().__init__(observables)
        self.seeds, self.steps, self.atoms = list(seeds), steps, list(atoms)

    def __add__(self, other: Ensemble) -> Ensemble:
        if not isinstance(other, Ensemble):
            return NotImplemented
        if set(self) != set(other) or not np.array_equal(self.steps, other.steps):
            raise ValueError("the ensembles are of other observables, or of other steps")
        if both := sorted({*self.seeds} & {*other.seeds}):
            raise ValueError(f"both ensembles have the seeds {both}")
        both_arrays = {name: np.concatenate([self[name], other[name]]) for name in self}
        seeds, atoms = self.seeds + other.seeds, self.atoms + other.atoms
        return Ensemble(both_arrays, seeds, self.steps, atoms)


def ensemble(
    atoms: Atoms,
    dynamics: Callable[[Atoms, np.random.Generator], Any],
    seeds: Iterable[int],
    calculator: str | None = None,
    *,
    steps: int,
    client: Client | None = None,
    interval: int = 1,
    observe: Mapping[str, Callable[[Atoms], Any]] | None = None,
    at_once: int = AT_ONCE,
) -> Ensemble:
    """Compute trajectories from one structure, many at a time.

    Parameters
    ----------
    atoms : ase.Atoms
        Where each begins; it is not changed.
    dynamics : callable
        ``dynamics(atoms, rng)`` returns dynamics of ASE for a copy of the structure, such as
        ``Langevin(atoms, 1 * fs, temperature_K=300, friction=0.01 / fs, rng=rng)``. It may draw
        velocities first. All that is random must come from `rng`, of
        ``numpy.random.default_rng(seed)``.
    seeds : iterable of int
        One for each trajectory.
    calculator : str, optional
        Name of the calculator; that of the structure's `RemoteCalculator` by default.
    steps : int
        Of each trajectory.
    client : Client, optional
        Asks the service; by default one is made from the settings.
    interval : int
        How many steps one frame comes after the other; the beginning is the first.
    observe : mapping, optional
        {observable: function of the structure that returns a number or an array}; potential
        energy (eV), kinetic energy (eV) and temperature (K) by default.
    at_once : int
        How many run at a time.

    Returns
    -------
    Ensemble
        An array of shape (seeds, frames, ...) of each observable. Add one with later seeds to
        extend it.

    Raises
    ------
    ValueError
        If there are no seeds, or one comes twice.
    """
    numbers = _seeds(seeds)
    steps = number_from(0, "steps", steps)
    interval = number_from(1, "interval", interval, "a number of steps")
    function("dynamics", dynamics, "a function that makes dynamics of ASE")
    functions = _functions(observe)
    with asking([atoms], calculator, client) as asked:

        def one(seed: int) -> tuple[Atoms, list[int], dict[str, list[Any]]]:
            mine = atoms.copy()
            calc = mine.calc = FutureCalculator(asked)
            moving = dynamics(mine, np.random.default_rng(seed))
            if not (hasattr(moving, "attach") and hasattr(moving, "run")):
                raise TypeError(f"dynamics returns dynamics of ASE, not {moving!r}")
            frames: list[int] = []
            records: dict[str, list[Any]] = {name: [] for name in functions}

            def record() -> None:
                frames.append(moving.nsteps)
                for name, function in functions.items():
                    records[name].append(np.array(function(mine)))  # a copy

            with moving:  # its log, if it has one, is complete at the end
                moving.attach(record, interval=interval)
                moving.run(steps)
            return with_results(mine, asked.name, calc.results), frames, records

        ends: list[Any] = in_threads(asked, one, numbers, at_once)
    return _gathered(numbers, ends)


def _functions(observe: Mapping[str, Any] | None) -> dict[str, Callable[[Atoms], Any]]:
    if observe is None:
        return OBSERVABLES
    if not isinstance(observe, Mapping):
        raise TypeError(f"observe is {{name: function of the structure}}, not {observe!r}")
    for name, observed in observe.items():
        function(f"observe[{name!r}]", observed, "a function of the structure")
    return dict(observe)


def _seeds(seeds: Iterable[int]) -> list[int]:
    try:
        numbers = [index(seed) for seed in seeds]
    except TypeError:
        raise TypeError(f"seeds are whole numbers, such as range(10), not {seeds!r}") from None
    if not numbers:
        raise ValueError("there are no seeds")
    if min(numbers) < 0:
        raise ValueError(f"a seed is a number from 0, not {min(numbers)}")
    if twice := sorted({seed for seed in numbers if numbers.count(seed) > 1}):
        raise ValueError(f"each seed is for one trajectory, but {twice} come more than once")
    return numbers


def _gathered(
    seeds: list[int], ends: list[tuple[Atoms, list[int], dict[str, list[Any]]]]
) -> Ensemble:
    _, steps, records = ends[0]
    if any(frames != steps for _, frames, _ in ends):
        raise ValueError("the trajectories have frames at other steps: they can't be one array")
    arrays = {name: np.array([values[name] for _, _, values in ends]) for name in records}
    return Ensemble(arrays, seeds, np.array(steps), [atoms for atoms, _, _ in ends])
