"""Relaxations: many optimizers at once.

An optimizer of ASE asks for forces in the middle of its step, some of them several times (line
searches, SciPy's), so that it can't be stepped from outside between question and answer. Each has a
thread, which does nothing while a worker computes. All threads ask by the futures of one client:
there is one socket, workers that batch get their structures together, and when one fails, or with
Ctrl-C, what the others wait for is cancelled and they end at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ase import Atoms

from aserpc.client import Client
from aserpc.client.arguments import function, number_from, optimizer_maker, positive
from aserpc.client.windows import several
from aserpc.parallel.asking import AT_ONCE, FutureCalculator, asking, in_threads, with_results


class Relaxed(list[Any]):
    """Relaxed structures, in the order of those given.

    Attributes
    ----------
    converged : list of bool
        Of each, whether its forces came below `fmax`.
    steps : list of int
        Of each, the steps of its optimizer.
    """

    def __init__(
        self, ends: Iterable[Any], converged: Iterable[bool], steps: Iterable[int]
    ) -> None:
        super().__init__(ends)
        self.converged, self.steps = list(converged), list(steps)


def relax(
    structures: Sequence[Atoms],
    calculator: str | None = None,
    *,
    client: Client | None = None,
    fmax: float = 0.05,
    steps: int | None = None,
    optimizer: Callable[..., Any] | None = None,
    cell_filter: Callable[[Atoms], Any] | None = None,
    at_once: int = AT_ONCE,
    return_exceptions: bool = False,
) -> Relaxed:
    """Relax structures, many at a time.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        They are not changed.
    calculator : str, optional
        Name of the calculator; that of the structures' `RemoteCalculator` by default.
    client : Client, optional
        Asks the service; by default one is made from the settings.
    fmax : float
        Where to stop, eV/Å.
    steps : int, optional
        The most steps; as many as it takes by default.
    optimizer : callable, optional
        ASE's optimizer, `ase.optimize.BFGS` by default; called with a structure, or its filter,
        and ``logfile=None``.
    cell_filter : callable, optional
        Such as `ase.filters.FrechetCellFilter`, to relax cells too.
    at_once : int
        How many are relaxed at a time.
    return_exceptions : bool
        Return the exception in place of a structure that failed. By default the first one is
        raised and the rest given up.

    Returns
    -------
    Relaxed
        A list of the relaxed structures with their results; ``converged`` and ``steps`` tell how
        each ended.
    """
    several(structures)
    structures = list(structures)
    if not structures:
        raise ValueError("there are no structures to relax")
    positive("fmax", fmax)
    limit = step_limit(steps)
    if optimizer is None:
        from ase.optimize import BFGS

        optimizer = BFGS
    make = optimizer_maker("optimizer", optimizer)
    if cell_filter is not None:
        function("cell_filter", cell_filter, "a class such as ase.filters.FrechetCellFilter")
    with asking(structures, calculator, client) as asked:

        def one(given: Atoms) -> tuple[Atoms, bool, int]:
            atoms = given.copy()
            calc = atoms.calc = FutureCalculator(asked)
            target = atoms if cell_filter is None else cell_filter(atoms)
            with make(target, logfile=None) as optimizing:
                converged = optimizing.run(fmax=fmax, **limit)
            atoms.get_forces()  # of the last positions; they are known unless it ended elsewhere
            atoms.get_potential_energy()
            return with_results(atoms, asked.name, calc.results), bool(converged), optimizing.nsteps

        ends = in_threads(asked, one, structures, at_once, return_exceptions=return_exceptions)
    failed = (False, 0)
    told = [(end, *failed) if isinstance(end, Exception) else end for end in ends]
    return Relaxed(*zip(*told, strict=True))


def step_limit(steps: int | None) -> dict[str, int]:
    """Return what to give to an optimizer's ``run``; raise ValueError for what is no number."""
    return {} if steps is None else {"steps": number_from(0, "steps", steps)}
