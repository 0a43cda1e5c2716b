"""A calculator's errors arrive as themselves, and the worker goes on."""

from __future__ import annotations

import builtins
import pickle
from typing import Any

import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators import calculator as ase_calculator

from aserpc.errors import AserpcError, CalculationError, NoWorkersError, WorkerFailedError
from support.calculators import Failing, Spring, Unmakable
from support.service import Service

ASE_ERRORS = [
    "PropertyNotImplementedError",
    "InputError",
    "SCFError",
    "CalculationFailed",
    "CalculatorSetupError",
    "CalculatorError",
    "ReadError",
]
BUILTIN_ERRORS = [
    "ValueError",
    "KeyError",
    "ZeroDivisionError",
    "FileNotFoundError",
    "NotImplementedError",
    "MemoryError",
    "RuntimeError",
    "TimeoutError",
    "AssertionError",
]


def test_errors_arrive_as_themselves_and_the_worker_goes_on(service: Service) -> None:
    service.start_broker()
    worker = service.start_worker("failing", Failing)
    atoms = molecule("H2O")
    atoms.calc = service.calculator("failing", retries=3)
    for name in ASE_ERRORS + BUILTIN_ERRORS:
        atoms.info["error"] = name
        kind = getattr(ase_calculator, name, None) or getattr(builtins, name)
        with pytest.raises(kind) as caught:
            atoms.get_potential_energy()
        error = caught.value
        assert isinstance(error, RuntimeError), name
        assert isinstance(error, CalculationError)
        assert isinstance(error, AserpcError)
        assert f"{name} of the calculator's own" in str(error)
        assert type(error).__name__ == name
        assert "in compute" in error.remote_traceback
        assert error.remote_type.endswith(name)
        assert pickle.loads(pickle.dumps(error)).calculator == "failing"
    del atoms.info["error"]
    assert atoms.get_potential_energy() > 0
    assert worker.requests_handled == len(ASE_ERRORS + BUILTIN_ERRORS) + 1, "none was retried"


def test_sys_exit_in_a_calculator_is_an_error_of_that_calculation(service: Service) -> None:
    service.start_broker()
    service.start_worker("failing", Failing)
    atoms = molecule("H2O")
    atoms.calc = service.calculator("failing")
    atoms.info["error"] = "exit"
    with pytest.raises(ase_calculator.CalculationFailed, match="the end"):
        atoms.get_potential_energy()
    del atoms.info["error"]
    assert atoms.get_potential_energy() > 0


def test_those_who_wait_hear_why_a_calculator_cant_be_made(service: Service) -> None:
    service.start_broker()
    first = service.start_worker("other", Spring)
    service.stop(first)
    calculator = service.calculator("broken")
    atoms = molecule("H2O")
    worker = service.start_worker("broken", Unmakable, wait=False)
    # Whether it is asked before the worker fails or after, the reason is told or nobody is there.
    with pytest.raises((WorkerFailedError, NoWorkersError)):
        calculator.get_property("energy", atoms)
    error = service.join(worker)
    assert isinstance(error, WorkerFailedError)
    assert "the model file is missing" in str(error)


def test_a_name_that_nobody_serves_fails_at_once_and_says_which_there_are(
    service: Service,
) -> None:
    service.start_broker()
    service.start_worker("spring", Spring)
    calculator = service.calculator("lj")
    with pytest.raises(NoWorkersError, match=r"No workers available for 'lj'.*'spring'"):
        calculator.get_property("energy", molecule("H2O"))


class Panic(BaseException):
    """As packages in other languages raise it."""


class Panicking(Spring):
    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        if len(atoms) > 2:
            raise Panic("index out of bounds")
        return super().compute(atoms, properties)


def test_an_exception_of_no_usual_kind_leaves_the_worker_serving(service: Service) -> None:
    service.start_broker()
    service.start_worker("spring", Panicking)
    calculator = service.calculator("spring")
    with pytest.raises(CalculationError, match="index out of bounds"):
        calculator.get_property("energy", molecule("H2O"))
    assert calculator.get_property("energy", molecule("H2")) > 0
