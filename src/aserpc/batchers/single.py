"""An ASE calculator for what computes batches only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes, all_properties

from aserpc.batchers import BatchCalculator


class BatchOnly(Calculator):
    """Computes a structure as a batch of one.

    Parameters
    ----------
    batcher
        What computes; if it has ``implemented_properties``, those are the calculator's.
    """

    def __init__(self, batcher: BatchCalculator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batcher = batcher
        names = getattr(batcher, "implemented_properties", all_properties)
        self.implemented_properties = list(names)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """See `ase.calculators.calculator.Calculator.calculate`."""
        super().calculate(atoms, list(properties), list(system_changes))  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        (results,) = self.batcher.calculate_batch([self.atoms.copy()], list(properties))
        self.results = dict(results)

    def calculate_batch(
        self, atoms: Sequence[Atoms], properties: Sequence[str]
    ) -> Sequence[Mapping[str, Any]]:
        """See `BatchCalculator.calculate_batch`."""
        return self.batcher.calculate_batch(atoms, properties)
