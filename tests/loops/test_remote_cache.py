"""The cache sees every change that a result can depend on, in the client and in the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms

from support.calculators import Charged, Spring
from support.service import Service


def water() -> Atoms:
    atoms: Atoms = molecule("H2O")
    atoms.info["charge"] = 0
    atoms.info["nested"] = {"field": np.zeros(3)}
    atoms.set_array("labels", np.arange(3))
    return atoms


def change_nested_info(atoms: Atoms) -> None:
    atoms.info["nested"]["field"][1] = 0.5


def change_array(atoms: Atoms) -> None:
    atoms.arrays["labels"][0] = 7


CHANGES: dict[str, Callable[[Atoms], Any]] = {
    "numbers": lambda a: a.set_atomic_numbers([8, 1, 2]),
    "positions": lambda a: a.positions.__setitem__((0, 0), 1e-9),
    "cell": lambda a: a.set_cell([9, 9, 9]),
    "pbc": lambda a: a.set_pbc([True, False, False]),
    "celldisp": lambda a: a.set_celldisp([0, 0, 1.0]),
    "tags": lambda a: a.set_tags([1, 2, 3]),
    "masses": lambda a: a.set_masses([16, 2, 2]),
    "initial charges": lambda a: a.set_initial_charges([1, 0, 0]),
    "initial magmoms": lambda a: a.set_initial_magnetic_moments([1, 0, 0]),
    "a custom array": change_array,
    "another custom array": lambda a: a.set_array("more", np.ones(3)),
    "info": lambda a: a.info.update(charge=1),
    "info inside": change_nested_info,
    "info gone": lambda a: a.info.pop("charge"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_computed_anew(service: Service, change: Callable[[Atoms], Any]) -> None:
    service.start_broker()
    calculator = Spring()
    worker = service.start_worker("it", lambda: calculator)
    atoms = water()
    atoms.calc = service.calculator("it")
    atoms.get_potential_energy()
    change(atoms)
    atoms.get_potential_energy()
    assert worker.requests_handled == 2, "the client saw it"
    assert len(calculator.asked) == 2, "the worker saw it"


KEPT: dict[str, Callable[[Atoms], Any]] = {
    "nothing": lambda a: None,
    "momenta": lambda a: a.set_momenta(np.ones((3, 3))),
    "constraints": lambda a: a.set_constraint(FixAtoms([0])),
    "an equal copy of the cell": lambda a: a.set_cell(a.cell.array.copy()),
}


@pytest.mark.parametrize("change", KEPT.values(), ids=KEPT)
def test_what_no_result_depends_on_is_no_change(
    service: Service, change: Callable[[Atoms], Any]
) -> None:
    service.start_broker()
    worker = service.start_worker("it", Spring)
    atoms = water()
    atoms.calc = service.calculator("it")
    atoms.get_potential_energy()
    change(atoms)
    atoms.get_potential_energy()
    assert worker.requests_handled == 1


def test_another_client_never_gets_the_result_of_another_info(service: Service) -> None:
    service.start_broker()
    service.start_worker("charged", Charged)
    one, other = water(), water()
    one.calc, other.calc = service.calculator("charged"), service.calculator("charged")
    for charge in (1, 2, 1):
        one.info["charge"], other.info["charge"] = charge, -charge
        assert one.get_potential_energy() == charge
        assert other.get_potential_energy() == -charge


def test_a_worker_gives_a_known_system_again_without_computing(service: Service) -> None:
    service.start_broker()
    calculator = Spring()
    worker = service.start_worker("it", lambda: calculator)
    for _ in range(3):
        atoms = water()
        atoms.calc = service.calculator("it")
        atoms.get_potential_energy()
    assert worker.requests_handled == 3
    assert len(calculator.asked) == 1


def test_reset_forgets(service: Service) -> None:
    service.start_broker()
    worker = service.start_worker("it", Spring)
    atoms = water()
    atoms.calc = service.calculator("it")
    atoms.get_potential_energy()
    atoms.calc.reset()
    atoms.get_potential_energy()
    assert worker.requests_handled == 2


class MyAtoms(Atoms):
    """A structure of the user's own class."""


def plain() -> Atoms:
    atoms = water()
    atoms.set_constraint(FixAtoms([0]))
    atoms.set_momenta(np.ones((3, 3)))
    return atoms


def recorded() -> Atoms:
    atoms = water()
    atoms.info["key_value_pairs"] = {"raw_score": 1.5}
    return atoms


@pytest.mark.parametrize("make", [plain, recorded, lambda: MyAtoms(water())])
def test_the_calculator_keeps_a_copy_of_what_it_has_calculated(
    service: Service, make: Callable[[], Atoms]
) -> None:
    service.start_broker()
    service.start_worker("it", Spring)
    calculator, atoms = service.calculator("it"), make()
    atoms.calc = calculator
    atoms.get_potential_energy()
    expected = atoms.copy()
    atoms.positions += 1.0
    atoms.info["charge"] = 5
    kept = calculator.atoms
    assert type(kept) is type(atoms)
    assert kept == expected
    assert kept.arrays.keys() == expected.arrays.keys()
    assert kept.info.keys() == expected.info.keys()
    assert kept.info["charge"] == 0
    assert [c.todict() for c in kept.constraints] == [c.todict() for c in expected.constraints]
    assert calculator.atoms is kept
    calculator.reset()  # type: ignore[no-untyped-call]
    assert calculator.atoms is None
