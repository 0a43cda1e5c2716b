"""A contract for batch calculators, for those who write one.

A test module with this passes, if a batcher gives what its calculator gives::

    class TestMyBatcher(BatcherContract):
        def make_calculator(self):
            return MyCalculator()

The adapter is found as a worker finds it; `make_batcher` may return another. Nothing here needs
pytest: `check` runs all of it, in an environment of a model without it, say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.outputs import all_outputs

from aserpc.batchers import BatchCalculator, find_batcher
from aserpc.testing.answers import forget, served

__all__ = ["BatcherContract"]


class BatcherContract:
    """What every batch calculator does, as tests for pytest.

    Subclass it as ``Test...`` and give `make_calculator`; where the model does not know copper and
    rock salt, `make_structures`, too.
    """

    #: How much results may differ from those alone, relative to the largest number of the result
    #: or to `scale`, whichever is larger: float32 sums differ in another order.
    tolerance: float = 5e-6

    #: The least that differences are measured by, in the result's units.
    scale: float = 1.0

    #: Properties that are asked for.
    properties: Sequence[str] = ("energy", "forces")

    def make_calculator(self) -> Any:
        """Return the calculator, or what computes batches only, as a factory does."""
        raise NotImplementedError

    def make_batcher(self, calculator: Any) -> BatchCalculator:
        """Return what computes batches for the calculator."""
        batcher = find_batcher(calculator)
        assert batcher is not None, "no batcher is found for the calculator"
        return batcher

    def make_structures(self) -> list[Atoms]:
        """Return structures of at least two sizes that the calculator can compute."""
        structures = [
            bulk("NaCl", "rocksalt", 5.64),
            bulk("NaCl", "rocksalt", 5.70, cubic=True),
            bulk("Cu"),
            bulk("Cu", cubic=True) * (2, 1, 1),
        ]
        for number, atoms in enumerate(structures):
            atoms.rattle(0.03, seed=number)
        return structures

    def make_bad_structure(self) -> Atoms | None:
        """Return a structure that the calculator refuses; None: it refuses none."""
        return None

    # ---- means -----------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Run all tests without pytest; return their names."""
        names = [name for name in dir(self) if name.startswith("test_")]
        for name in names:
            getattr(self, name)()
        return names

    def alone(self, calculator: Any, atoms: Atoms) -> dict[str, Any]:
        """Return what the calculator computes of a structure."""
        calculator = served(calculator)
        forget(calculator)
        atoms = atoms.copy()
        asked = {name: calculator.get_property(name, atoms) for name in self.properties}
        results: dict[str, Any] = {**getattr(calculator, "results", {}), **asked}
        return {name: _copy(value) for name, value in results.items()}

    def together(
        self, batcher: BatchCalculator, structures: Sequence[Atoms]
    ) -> list[dict[str, Any]]:
        """Return the results of a batch."""
        found = batcher.calculate_batch([s.copy() for s in structures], list(self.properties))
        assert len(found) == len(structures), "one set of results for each structure"
        return [{name: _copy(value) for name, value in results.items()} for results in found]

    def compare(self, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Compare results with those alone."""
        for name in self.properties:
            assert name in found, f"{name} was asked for and is missing"
        for name, value in expected.items():
            assert name in found, f"{name} is among the results alone, and not of a batch"
            self.compare_values(name, found[name], value)

    def compare_values(self, name: str, found: Any, expected: Any) -> None:
        """Compare a result with the one alone."""
        one, other = np.asarray(found), np.asarray(expected)
        assert one.shape == other.shape, f"{name} has the shape {one.shape}, alone {other.shape}"
        if name in all_outputs or other.dtype.kind in "biufc":
            assert one.dtype.kind in "biufc", (
                f"{name} has the dtype {one.dtype}, which is no number's"
            )
        if other.dtype.kind not in "fc":
            assert np.array_equal(one, other), f"{name} differs"
            return
        size = max(self.scale, float(np.abs(other).max(initial=0.0)))
        difference = float(np.abs(one - other).max(initial=0.0)) / size
        assert difference <= self.tolerance, f"{name} differs by {difference:.2g} of {size:.2g}"

    # ---- the tests -------------------------------------------------------------------------------

    def test_results_are_those_of_each_structure_alone(self) -> None:
        """All of them, of structures of several sizes, in their order."""
        calculator = self.make_calculator()
        structures = self.make_structures()
        assert len({len(atoms) for atoms in structures}) > 1, "structures of several sizes"
        expected = [self.alone(calculator, atoms) for atoms in structures]
        found = self.together(self.make_batcher(calculator), structures)
        for pair in zip(found, expected, strict=True):
            self.compare(*pair)

    def test_the_order_is_that_of_the_structures(self) -> None:
        """Whatever it was before."""
        calculator = self.make_calculator()
        batcher = self.make_batcher(calculator)
        structures = self.make_structures()
        found = self.together(batcher, structures)
        backward = self.together(batcher, structures[::-1])
        for pair in zip(backward[::-1], found, strict=True):
            self.compare(*pair)

    def test_one_structure_is_a_batch(self) -> None:
        """Some functions of models return something else for one."""
        calculator = self.make_calculator()
        atoms = self.make_structures()[0]
        expected = self.alone(calculator, atoms)
        (found,) = self.together(self.make_batcher(calculator), [atoms])
        self.compare(found, expected)

    def test_no_structure_is_a_batch(self) -> None:
        """An empty one."""
        assert self.together(self.make_batcher(self.make_calculator()), []) == []

    def test_the_same_structure_may_come_twice(self) -> None:
        """Two clients may ask the same."""
        calculator = self.make_calculator()
        atoms = self.make_structures()[1]
        expected = self.alone(calculator, atoms)
        for found in self.together(self.make_batcher(calculator), [atoms, atoms]):
            self.compare(found, expected)

    def test_results_stay_when_the_next_batch_is_computed(self) -> None:
        """No buffer is used again for them."""
        batcher = self.make_batcher(self.make_calculator())
        structures = self.make_structures()
        found = batcher.calculate_batch([s.copy() for s in structures], list(self.properties))
        kept = [{name: _copy(value) for name, value in results.items()} for results in found]
        self.together(batcher, structures[::-1])
        for results, before in zip(found, kept, strict=True):
            for name, value in before.items():
                assert np.array_equal(np.asarray(results[name]), np.asarray(value)), name

    def test_the_calculator_alone_is_as_it_was(self) -> None:
        """To the last bit: requests that come alone are computed with it."""
        calculator = self.make_calculator()
        structures = self.make_structures()
        before = [self.alone(calculator, atoms) for atoms in structures]
        self.together(self.make_batcher(calculator), structures)
        after = [self.alone(calculator, atoms) for atoms in structures]
        for one, other in zip(before, after, strict=True):
            for name in self.properties:
                assert np.array_equal(np.asarray(one[name]), np.asarray(other[name])), name

    def test_each_property_can_be_asked_for(self) -> None:
        """And is among the results then."""
        calculator = self.make_calculator()
        batcher = self.make_batcher(calculator)
        structures = self.make_structures()
        for name in self.properties:
            for results in batcher.calculate_batch([s.copy() for s in structures], [name]):
                assert name in results

    def test_a_bad_structure_raises_or_spoils_only_itself(self) -> None:
        """A worker then computes each alone; the next batch is as any."""
        calculator = self.make_calculator()
        bad, structures = self.make_bad_structure(), self.make_structures()
        if bad is None:
            return
        expected = [self.alone(calculator, atoms) for atoms in structures]
        batcher = self.make_batcher(calculator)
        mixed = [structures[0], bad, *structures[1:]]
        try:
            found = self.together(batcher, mixed)
        except Exception:  # noqa: BLE001 -- as it may
            found = self.together(batcher, structures)
        else:
            del found[1]
        for pair in zip(found, expected, strict=True):
            self.compare(*pair)


def _copy(value: Any) -> Any:
    return np.array(value, copy=True)
