"""What the conformance kit finds, and what it does not complain of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError, SCFError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.calculators.tip3p import TIP3P
from ase.stress import voigt_6_to_full_3x3_stress

from aserpc.errors import BusyError, PoisonError
from aserpc.remote_error import rebuild, report
from aserpc.testing import (
    CalculatorContract,
    Conformance,
    Finding,
    Tolerances,
    Verdict,
    standard_structures,
)
from aserpc.testing.answers import differences, error_difference, type_differences
from support.calculators import Failing, Spring
from support.conforming import Pairs, PairsTogether, Shared

ALONE = {"translated", "rotated", "permuted", "slopes"}


def faulty(findings: Iterable[Finding]) -> set[str]:
    """Return the checks that found something."""
    return {finding.check for finding in findings if finding.verdict is Verdict.DIFFERS}


def texts(findings: Iterable[Finding], check: str) -> str:
    return "; ".join(text for f in findings if f.check == check for text in f.texts)


# ---- what is right -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [EMT, LennardJones, MorsePotential, Pairs])
@pytest.mark.parametrize("alone", [True, False])
def test_nothing_is_wrong_with_a_right_calculator(make: Any, alone: bool) -> None:
    findings = [*Conformance(make(), None if alone else make()).run()]
    assert faulty(findings) == set()
    assert {f.verdict for f in findings} <= {Verdict.OK, Verdict.NOTHING}
    assert {f.structure for f in findings} == {*standard_structures()}


def test_single_precision_is_no_difference() -> None:
    class Single(Pairs):
        def compute(self, atoms: Atoms) -> dict[str, Any]:
            found = super().compute(atoms)
            kept = ("energy", "forces", "stress")
            return {k: np.float32(v) if k in kept else v for k, v in found.items()}

    assert faulty(Conformance(Single()).run()) == set()
    assert faulty(Conformance(Single(), Pairs()).run()) == {"types"}


def test_a_stress_may_be_a_whole_tensor() -> None:
    class Whole(Pairs):
        def compute(self, atoms: Atoms) -> dict[str, Any]:
            found = super().compute(atoms)
            if "stress" in found:
                found["stress"] = voigt_6_to_full_3x3_stress(found["stress"])
            return found

    assert faulty(Conformance(Whole()).run()) == set()
    for fault, check in (("axis", "rotated"), ("pressure", "slopes")):
        assert "stress" in texts(Conformance(Whole(fault)).run([check]), check)


# ---- planted faults ------------------------------------------------------------------------------

#: Each fault, with the checks that find it against a right calculator, and alone.
FAULTS: dict[str, tuple[set[str], set[str]]] = {
    "charge": ({"values"}, set()),
    "order": ({"values"}, {"permuted", "slopes"}),
    "stale": ({"cache"}, {"rotated", "slopes"}),
    "stale charges": ({"cache"}, {"cache"}),
    "forgetful": ({"cache"}, {"cache"}),
    "memory": ({"values", "again"}, ALONE | {"again"}),
    "axis": ({"values"}, {"rotated", "slopes"}),
    "place": ({"values"}, {"translated", "rotated", "slopes"}),
    "slopes": ({"values"}, {"slopes"}),
    "pressure": ({"values"}, {"slopes"}),
    "dtype": ({"types"}, set()),
    "shape": ({"values", "types"}, {"types"}),
    "missing": ({"values"}, set()),
    "refuses charges": ({"errors"}, set()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_against_a_right_calculator(fault: str) -> None:
    found = faulty(Conformance(Pairs(fault), Pairs()).run())
    assert FAULTS[fault][0] <= found, found


@pytest.mark.parametrize("fault", [fault for fault, (_, alone) in FAULTS.items() if alone])
def test_a_fault_shows_without_another_calculator(fault: str) -> None:
    found = faulty(Conformance(Pairs(fault)).run())
    assert FAULTS[fault][1] <= found, found


def test_a_charge_that_does_not_matter_is_told() -> None:
    assert Conformance(Pairs()).unseen() == {}
    assert Conformance(Pairs("charge")).unseen() == {"charged": "charge"}
    told = Conformance(EMT()).unseen()
    assert told == {"charged": "charge", "magnetic": "magnetic moments"}


def test_an_array_that_is_handed_out_shows() -> None:
    findings = [*Conformance(Shared()).run(["cache"])]
    assert "forces changes with the array that was returned" in texts(findings, "cache")


def test_a_batch_that_is_mixed_up_shows() -> None:
    for fault, expected in (("", set()), ("batch", {"together"})):
        calculator = PairsTogether(fault)
        # Of one size: what belongs to another structure has the right shape.
        cells = {f"{a:g}": bulk("Cu", a=a, cubic=True) for a in (3.5, 3.6, 3.7)}
        conformance = Conformance(calculator, None, cells, calculator.calculate_batch)
        assert faulty(conformance.run(["together"])) == expected


def test_an_error_in_a_batch_shows() -> None:
    def together(structures: Any, names: Any) -> list[Any]:
        return [PoisonError("it died")] + [Pairs().compute(s) for s in structures[1:]]

    findings = [*Conformance(Pairs(), None, None, together).run(["together"])]
    assert "1 of 3: PoisonError: it died" in texts(findings, "together")
    assert len([f for f in findings if f.verdict is Verdict.DIFFERS]) == 1


def test_a_change_of_info_has_to_be_noticed_only_where_it_is_said() -> None:
    # As with any calculator of ASE.
    assert faulty(Conformance(Pairs()).run(["cache"])) == set()
    findings = [*Conformance(Pairs(), notices_info=True).run(["cache"])]
    assert "after another charge in atoms.info, energy" in texts(findings, "cache")


# ---- what can't be computed ----------------------------------------------------------------------


def test_what_is_refused_is_no_difference() -> None:
    findings = [*Conformance(Pairs("refuses charges")).run()]
    refused = {f.structure for f in findings if f.verdict is Verdict.REFUSED}
    assert refused == {"charged"}
    assert faulty(findings) == set()


def test_the_same_refusal_of_both_is_none_either() -> None:
    conformance = Conformance(Pairs("refuses charges"), Pairs("refuses charges"))
    assert faulty(conformance.run()) == set()
    (found,) = [f for f in conformance.run(["values"]) if f.verdict is Verdict.REFUSED]
    assert found.texts == ("ValueError: no charged structures",)


def test_a_worker_that_dies_is_a_difference() -> None:
    class Deadly(Pairs):
        def compute(self, atoms: Atoms) -> dict[str, Any]:
            if len(atoms) == 1:
                raise PoisonError("two workers died of it")
            return super().compute(atoms)

    calculator = Deadly()
    findings = [*Conformance(calculator, None, {"atom": Atoms("H")}).run()]
    assert {f.verdict for f in findings} == {Verdict.DIFFERS}
    assert calculator.calculations == 1, "one death is enough"


def test_what_the_service_can_not_do_is_raised() -> None:
    class Busy(Pairs):
        def compute(self, atoms: Atoms) -> dict[str, Any]:
            raise BusyError("too many wait")

    with pytest.raises(BusyError):
        list(Conformance(Busy()).run())


def test_a_calculator_of_no_property_shows_nothing() -> None:
    class Empty(Spring):
        implemented_properties: list[str] = []  # noqa: RUF012 -- as in ASE

    findings = [*Conformance(Empty()).run()]
    assert {f.verdict for f in findings} == {Verdict.NOTHING}


# ---- single differences --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected", "told"),
    [
        (1.0, 1.0 + 1e-7, ""),
        (1.0, 1.1, "x is 1, not 1.1"),
        (1e6, 1e6 + 1, ""),
        ([1.0, 2.0], [1.0, 3.0], "x [1] is 2, not 3"),
        ([1.0], [1.0, 2.0], "x has the shape (1,), not (2,)"),
        ([1.0, np.nan], [1.0, np.nan], ""),
        ([1.0, np.nan], [1.0, 2.0], "x is finite in other places"),
        (1 + 1j, 1 + 2j, "x is 1+1j, not 1+2j"),
        (True, True, ""),
        (True, False, "x is True, not False"),
        ("PBE", "PBE0", "x is 'PBE', not 'PBE0'"),
        ({"a": 1.0}, {"a": 2.0}, "x.a is 1, not 2"),
        ([[1.0], [1.0, 2.0]], [[1.0], [1.0, 3.0]], "x is [[1.0], [1.0, 2.0]], not"),
        (None, None, ""),
    ],
)
def test_values_that_differ(found: Any, expected: Any, told: str) -> None:
    said = "; ".join(differences({"x": found}, {"x": expected}, 5e-6))
    assert said.startswith(told)
    assert bool(said) == bool(told)


def test_types_that_differ() -> None:
    found = {"energy": 1.0, "forces": np.zeros((2, 3), np.float32), "name": "PBE"}
    expected = {"energy": np.float64(1), "forces": np.zeros((2, 3)), "name": "B3LYP"}
    told = list(type_differences(found, expected))
    assert told == ["forces has the dtype float32, not float64"]


def remote(error: Exception) -> Exception:
    """Return an error as it comes from a worker."""
    return rebuild(report(error))


class OwnError(Exception):
    """One that no client knows."""


def test_errors_that_differ() -> None:
    same = [
        (remote(SCFError("no convergence")), SCFError("no convergence")),
        (remote(OwnError("in /tmp/a/1 at 0x7f00")), OwnError("in /home/b at 0x7f11")),
        (remote(PropertyNotImplementedError("x")), PropertyNotImplementedError("y")),
        (PropertyNotImplementedError("x"), PropertyNotImplementedError("y")),
    ]
    assert [error_difference(*pair) for pair in same] == [""] * 4
    assert "ValueError: b, not ValueError: a" in error_difference(
        remote(ValueError("b")), ValueError("a")
    )
    assert error_difference(remote(ValueError("a")), OwnError("a"))
    assert error_difference(None, ValueError("a")) == "no error, not ValueError: a"


# ---- the contract --------------------------------------------------------------------------------


class TestPairs(CalculatorContract):
    def make_calculator(self) -> Any:
        return Pairs()


class TestPairsTogether(CalculatorContract):
    def make_calculator(self) -> Any:
        return PairsTogether()

    def make_reference(self) -> Any:
        return Pairs()


class PairsOnlyTogether:
    """No calculator of ASE's."""

    implemented_properties = tuple(Pairs.implemented_properties)

    def calculate_batch(self, atoms: Any, properties: Any) -> Any:
        return PairsTogether().calculate_batch(atoms, properties)


class TestPairsOnlyTogether(TestPairsTogether):
    def make_calculator(self) -> Any:
        return PairsOnlyTogether()


class TestWater(CalculatorContract):
    # Its forces come from a cutoff by molecules.
    tolerances = Tolerances(symmetry=1e-3)

    def make_calculator(self) -> Any:
        return TIP3P()

    def make_structures(self) -> dict[str, Atoms]:
        return {"water": molecule("H2O"), "not water": molecule("CO")}

    def test_results_come_in_the_order_of_the_atoms(self) -> None:
        """Not with this one, which wants each molecule in an order of its own."""


@pytest.mark.parametrize("fault", ["order", "memory", "shape", "forgetful"])
def test_the_contract_fails_for_a_fault(fault: str) -> None:
    class Contract(CalculatorContract):
        def make_calculator(self) -> Any:
            return Pairs(fault)

    with pytest.raises(AssertionError):
        Contract().check()


def test_the_contract_fails_where_nothing_is_computed() -> None:
    class Contract(CalculatorContract):
        def make_calculator(self) -> Any:
            return Failing()

        def make_structures(self) -> dict[str, Atoms]:
            return {"bad": Atoms("H", info={"error": "SCFError"})}

    with pytest.raises(AssertionError, match="computes none: bad: SCFError"):
        Contract().check()
