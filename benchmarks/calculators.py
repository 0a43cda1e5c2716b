"""Calculators that all contenders serve; needs only ASE, in any version."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

#: How long `Sleep` takes, s.
SLEEP = 0.02


class Null(Calculator):
    """A calculator that computes nothing."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 -- as in ASE

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Return zeros."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        forces = np.zeros((len(atoms), 3))
        self.results = {"energy": 0.0, "forces": forces, "stress": np.zeros(6)}


class Together(Null):
    """One that could compute many structures in one call."""

    def calculate_batch(
        self, atoms: Sequence[Any], properties: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return zeros for each."""
        found = []
        for one in atoms:
            self.calculate(one, properties)
            found.append(self.results)
        return found


class Sleep(Null):
    """A calculator that takes `SLEEP` and no processor."""

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Sleep, and return zeros."""
        time.sleep(SLEEP)
        super().calculate(atoms, properties, system_changes)


class SleepTogether(Sleep):
    """One that takes `SLEEP` for a batch."""

    def calculate_batch(
        self, atoms: Sequence[Any], properties: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Sleep, and return zeros for each."""
        time.sleep(SLEEP)
        found = []
        for one in atoms:
            Null.calculate(self, one, properties)
            found.append(self.results)
        return found


#: By the word before the first ``-`` of the name that they are served under.
FACTORIES = {"null": Null, "sleep": Sleep, "emt": EMT}


def factory(name: str) -> Any:
    """Return what makes the calculator that is served under a name."""
    return FACTORIES[name.partition("-")[0]]
