"""A contract for calculators, for those who write one.

A test module with this passes, if its calculator does what scripts and workers rely on::

    class TestMyCalculator(CalculatorContract):
        def make_calculator(self):
            return MyCalculator()

Nothing here needs pytest: `check` runs all of it, in an environment of a model without it, say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ase import Atoms

from aserpc.batchers import find_batcher
from aserpc.testing.answers import served
from aserpc.testing.conformance import Conformance, Tolerances, Verdict
from aserpc.testing.structures import standard_structures

__all__ = ["CalculatorContract"]


class CalculatorContract:
    """What every calculator does, as tests for pytest.

    Subclass it as ``Test...`` and give `make_calculator`; where it can't compute the standard
    structures, `make_structures` too. What it refuses of them is left out, but not all may be.
    """

    #: How much numbers may differ.
    tolerances = Tolerances()

    def make_calculator(self) -> Any:
        """Return the calculator, as a factory of the registry does."""
        raise NotImplementedError

    def make_reference(self) -> Any:
        """Return another calculator that it must agree with; None: there is none."""
        return None

    def make_structures(self) -> dict[str, Atoms]:
        """Return structures by name."""
        return standard_structures()

    def together(
        self, calculator: Any, structures: Sequence[Atoms], names: Sequence[str]
    ) -> Sequence[Mapping[str, Any] | Exception]:
        """Compute structures at once, if there is a batcher for the calculator."""
        batcher = find_batcher(calculator)
        assert batcher is not None
        return batcher.calculate_batch(structures, names)

    # ---- means -----------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Run all tests without pytest; return their names."""
        names = [name for name in dir(self) if name.startswith("test_")]
        for name in names:
            getattr(self, name)()
        return names

    @cached_property
    def conformance(self) -> Conformance:
        """The checks of a new calculator."""
        calculator = served(self.make_calculator())

        def together(structures: Sequence[Atoms], names: Sequence[str]) -> Any:
            return self.together(calculator, structures, names)

        return Conformance(
            calculator,
            self.make_reference(),
            self.make_structures(),
            together if find_batcher(calculator) is not None else None,
            self.tolerances,
        )

    def passes(self, check: str) -> None:
        """Do a check on all structures."""
        conformance = self.conformance
        if check not in conformance.checks:
            return
        found = list(conformance.run([check]))
        wrong = [
            f"{f.structure}: {text}"
            for f in found
            if f.verdict is Verdict.DIFFERS
            for text in f.texts
        ]
        assert not wrong, f"{check}: {'; '.join(wrong)}"

    # ---- the tests -------------------------------------------------------------------------------

    def test_some_structure_is_computed(self) -> None:
        """Else nothing would be shown."""
        verdicts = [*self.conformance.run(["again"])]
        refusals = [
            f"{f.structure}: {f.texts[0]}" for f in verdicts if f.verdict is Verdict.REFUSED
        ]
        assert len(refusals) < len(verdicts), f"it computes none: {'; '.join(refusals)}"

    def test_values_are_those_of_the_reference(self) -> None:
        """All of them, within the tolerance."""
        self.passes("values")

    def test_types_are_those_of_the_reference(self) -> None:
        """Dtypes and shapes."""
        self.passes("types")

    def test_errors_are_those_of_the_reference(self) -> None:
        """For what can't be computed."""
        self.passes("errors")

    def test_a_translation_changes_nothing(self) -> None:
        """Of what does not depend on where the structure is."""
        self.passes("translated")

    def test_a_rotation_turns_the_results(self) -> None:
        """And leaves the energy."""
        self.passes("rotated")

    def test_results_come_in_the_order_of_the_atoms(self) -> None:
        """Whatever that is."""
        self.passes("permuted")

    def test_forces_and_stress_are_slopes_of_the_energy(self) -> None:
        """By finite differences."""
        self.passes("slopes")

    def test_what_is_known_is_kept_until_something_changes(self) -> None:
        """And not longer."""
        self.passes("cache")

    def test_the_same_structure_has_the_same_results_later(self) -> None:
        """With others in between."""
        self.passes("again")

    def test_structures_together_have_their_results_alone(self) -> None:
        """Where there is a batcher."""
        self.passes("together")
