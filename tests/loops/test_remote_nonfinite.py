"""NaN and infinity: what goes to a calculator, and what comes back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.optimize import BFGS

from aserpc import RemoteCalculator
from aserpc.client.guards import is_finite
from aserpc.errors import AserpcError, CalculationError, NonFiniteError, ServiceError
from support.asking import atom, energy_at
from support.calculators import Spring
from support.service import Service

NAN, INF = float("nan"), float("inf")


class Returns(Spring):
    """Returns what it is given, for any system."""

    def __init__(self, **results: Any) -> None:
        super().__init__()
        self.given = results

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        """See `Spring.compute`."""
        return {**super().compute(atoms, properties), **self.given}


@pytest.fixture
def spring(service: Service) -> Spring:
    """The calculator that is served as ``spring``."""
    service.start_broker()
    served = Spring()
    service.start_worker("spring", lambda: served)
    return served


def returns(service: Service, **results: Any) -> RemoteCalculator:
    """Serve results and return a calculator that gets them."""
    service.start_broker()
    service.start_worker("it", lambda: Returns(**results))
    return service.calculator("it", retries=3)


# ---- on the way to a calculator ------------------------------------------------------------------


def odd_systems() -> dict[str, Atoms]:
    cell = np.diag([5.0, INF, 5.0])
    return {
        r"atoms\.positions\[1\] is \[nan, 0\.0, 0\.0\]": Atoms("H2", [(0, 0, 0), (NAN, 0, 0)]),
        r"atoms\.positions\[0\] is \[0\.0, -inf, 0\.0\] \(and 1 more atoms\)": Atoms(
            "H2", [(0, -INF, 0), (0, 0, INF)]
        ),
        r"atoms\.cell is \[\[5\.0, 0\.0, 0\.0\], \[0\.0, inf": Atoms("H", cell=cell),
    }


@pytest.mark.parametrize("told", odd_systems())
def test_positions_and_cells_are_refused_before_they_are_sent(
    service: Service, spring: Spring, told: str
) -> None:
    atoms = odd_systems()[told]
    calculator = service.calculator("spring", retries=3)
    with pytest.raises(NonFiniteError, match=told):
        calculator.get_property("energy", atoms)
    with pytest.raises(NonFiniteError, match=told):
        calculator.calculate(atoms, ["energy"])
    with pytest.raises(NonFiniteError, match=told) as caught:
        service.client().submit("spring", atoms)
    assert isinstance(caught.value, ValueError)
    assert not isinstance(caught.value, ServiceError | CalculationError)
    assert not spring.asked
    assert energy_at(calculator, 2) == 2, "it can be used as before"


def test_what_was_known_stays_known(service: Service, spring: Spring) -> None:
    atoms = atom(2)
    atoms.calc = calculator = service.calculator("spring")
    atoms.get_potential_energy()
    before = calculator.provenance
    atoms.positions[0, 0] = NAN
    with pytest.raises(NonFiniteError):
        atoms.get_potential_energy()
    atoms.positions[0, 0] = 2
    assert atoms.get_potential_energy() == 2
    assert len(spring.asked) == 1
    assert calculator.provenance == before


def test_everything_else_may_be_what_it_is(service: Service, spring: Spring) -> None:
    atoms = atom(2)
    atoms.info["charge"] = NAN
    atoms.set_momenta([[INF, 0, 0]])
    atoms.set_initial_magnetic_moments([NAN])
    atoms.set_array("weights", np.array([INF]))
    assert service.calculator("spring").get_property("energy", atoms) == 2
    assert service.client().submit("spring", atoms).result(20)["energy"] == 2


def test_they_are_sent_where_that_is_wanted(service: Service, spring: Spring) -> None:
    atoms = Atoms("H", [(INF, 0, 0)])
    calculator = service.calculator("spring", allow_nonfinite=True)
    assert calculator.get_property("energy", atoms) == INF
    assert service.client(allow_nonfinite=True).submit("spring", atoms).result(20)["energy"] == INF


# ---- on the way back -----------------------------------------------------------------------------

ODD: dict[str, dict[str, Any]] = {
    r"energy \(nan\)": {"energy": NAN},
    r"energy \(-inf\)": {"energy": np.float32(-INF)},
    r"forces \(2 of 3 numbers, the first at \[0, 1\]\)": {"forces": np.array([[0, NAN, INF]])},
    r"energy \(nan\), stress \(6 of 6": {"energy": NAN, "stress": np.full(6, NAN, np.float16)},
    r"own \(1 of 2 numbers, the first at \[1\]\)": {"own": np.array([0, complex(0, INF)])},
}


@pytest.mark.parametrize("told", ODD)
def test_results_are_an_error_that_names_them(service: Service, told: str) -> None:
    calculator = returns(service, **ODD[told])
    periodic = Atoms("H", [(2, 0, 0)], cell=(9, 9, 9), pbc=True)
    told = rf"'it' returned what is not finite: {told}"
    with pytest.raises(NonFiniteError, match=told) as caught:
        calculator.get_property("energy", periodic)
    assert not isinstance(caught.value, ServiceError | CalculationError)
    assert not calculator.results
    assert calculator.provenance == {}
    assert isinstance(service.client().submit("it", periodic).exception(20), NonFiniteError)


@pytest.mark.parametrize("told", ODD)
def test_results_are_taken_where_that_is_wanted(service: Service, told: str) -> None:
    returns(service, **ODD[told])
    calculator = service.calculator("it", allow_nonfinite=True)
    calculator.get_property("energy", atom(2))
    for name, value in ODD[told].items():
        assert np.array_equal(calculator.results[name], value, equal_nan=True)
        found = service.client(allow_nonfinite=True).submit("it", atom(2)).result(20)
        assert np.array_equal(found[name], value, equal_nan=True)


def test_they_are_asked_for_once(service: Service) -> None:
    service.start_broker()
    served = Returns(energy=NAN)
    service.start_worker("it", lambda: served)
    with pytest.raises(NonFiniteError):
        service.calculator("it", retries=3).get_property("energy", atom(2))
    assert len(served.asked) == 1


def test_an_undefined_stress_disturbs_only_those_who_ask_for_it(service: Service) -> None:
    calculator = returns(service, stress=np.full(6, NAN))
    assert calculator.get_property("energy", atom(2)) == 2
    assert "stress" not in calculator.results
    with pytest.raises(NonFiniteError, match="stress"):
        calculator.get_property("stress", atom(2))
    client = service.client()
    assert set(client.submit("it", atom(2)).result(20)) == {"energy", "forces"}
    assert isinstance(client.submit("it", atom(2), ["stress"]).exception(20), NonFiniteError)


def test_results_that_hold_no_such_numbers_are_left_alone(service: Service) -> None:
    own = {"words": np.array(["nan"]), "count": 7, "nested": {"std": NAN}, "none": None}
    calculator = returns(service, **own, empty=np.zeros((0, 3)))
    assert calculator.get_property("energy", atom(2)) == 2
    assert {"words", "count", "nested", "none", "empty"} <= calculator.results.keys()


def test_an_optimizer_stops_where_the_numbers_do(service: Service) -> None:
    atoms = atom(2)
    atoms.calc = returns(service, forces=np.array([[NAN, 0, 0]]))
    with BFGS(atoms, logfile=None) as optimizer, pytest.raises(AserpcError, match="forces"):
        optimizer.run(steps=3)
    assert np.isfinite(atoms.positions).all()


@pytest.mark.parametrize(
    "value",
    [1.0, 7, True, None, "nan", {"a": NAN}, [NAN], 1j, np.float64(1), np.int64(1), np.zeros(0)],
)
def test_what_is_finite(value: object) -> None:
    assert is_finite(value)


@pytest.mark.parametrize(
    "value",
    [NAN, -INF, complex(0, NAN), np.float16(INF), np.array(NAN), np.array([1, INF]), math.inf],
)
def test_what_is_not_finite(value: object) -> None:
    assert not is_finite(value)
