"""A remote calculator gives the numbers of a local one, with no more requests than it needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from support.calculators import OnDemand, Picky, Spring
from support.service import Service


def copper() -> Atoms:
    atoms: Atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(0.1, seed=1)
    return atoms


SYSTEMS = [
    pytest.param(EMT, copper(), id="EMT"),
    pytest.param(EMT, molecule("CH3CH2OH"), id="EMT molecule"),
    pytest.param(LennardJones, molecule("H2O"), id="LJ"),
    pytest.param(MorsePotential, bulk("Ar", "fcc", 5.3) * 2, id="Morse"),
]


@pytest.mark.parametrize(("kind", "atoms"), SYSTEMS)
def test_numbers_are_bitwise_those_of_a_local_calculator(
    service: Service, kind: Any, atoms: Atoms
) -> None:
    service.start_broker()
    service.start_worker("it", kind)
    names = ["energy", "forces"] + ["stress"] * bool(atoms.cell.rank == 3)
    local, remote = atoms.copy(), atoms.copy()
    local.calc, remote.calc = kind(), service.calculator("it")
    for _ in range(3):
        for name in names:
            here, there = (a.calc.get_property(name, a) for a in (local, remote))
            assert np.array_equal(here, there)
            assert np.asarray(there).dtype == np.asarray(here).dtype
        local.rattle(0.01, seed=3)
        remote.rattle(0.01, seed=3)


def test_a_relaxation_makes_a_request_a_step_and_one(service: Service) -> None:
    service.start_broker()
    worker = service.start_worker("emt", EMT)
    atoms, local = copper(), copper()
    atoms.calc, local.calc = service.calculator("emt"), EMT()
    with BFGS(atoms, logfile=None) as remote_opt, BFGS(local, logfile=None) as local_opt:
        remote_opt.run(fmax=0.05, steps=50)
        local_opt.run(fmax=0.05, steps=50)
    assert remote_opt.nsteps > 5
    assert np.array_equal(atoms.positions, local.positions)
    assert worker.requests_handled <= remote_opt.nsteps + 1


def test_fifty_logged_md_steps_make_51_requests(service: Service) -> None:
    service.start_broker()
    worker = service.start_worker("emt", EMT)
    atoms = copper()
    atoms.calc = service.calculator("emt")
    logged = []
    with VelocityVerlet(atoms, 2 * units.fs) as dynamics:
        dynamics.attach(
            lambda: logged.append((atoms.get_potential_energy(), atoms.get_kinetic_energy()))
        )
        dynamics.run(50)
    assert len(logged) == 51
    assert worker.requests_handled == 51


def test_energy_forces_and_stress_of_a_geometry_are_one_request(service: Service) -> None:
    service.start_broker()
    worker = service.start_worker("emt", EMT)
    atoms = copper()
    atoms.calc = service.calculator("emt")
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    atoms.get_potential_energy(force_consistent=True)
    assert worker.requests_handled == 1


def asked_of(service: Service, kind: type[Spring], name: str = "it") -> list[list[str]]:
    """Start a worker; return the list to which it adds what each calculation is asked for."""
    calculator = kind()
    service.start_worker(name, lambda: calculator)
    return calculator.asked


def test_what_costs_extra_is_not_computed_until_it_is_asked_for(service: Service) -> None:
    service.start_broker()
    asked = asked_of(service, OnDemand)
    atoms = molecule("H2O")
    atoms.calc = service.calculator("it")
    for _ in range(4):
        atoms.positions += 0.1
        atoms.get_potential_energy()
    assert asked == [["energy"]] * 4


def test_what_a_script_needs_of_each_geometry_becomes_one_request(service: Service) -> None:
    service.start_broker()
    asked = asked_of(service, OnDemand)
    atoms = molecule("H2O")
    atoms.calc = service.calculator("it")
    for _ in range(3):
        atoms.positions += 0.1
        atoms.get_potential_energy()
        atoms.get_forces()
        atoms.get_dipole_moment()
    first, rest = asked[:3], asked[3:]
    assert [len(names) for names in first] == [1, 1, 1]
    assert [sorted(names) for names in rest] == [["dipole", "energy", "forces"]] * 2


def test_a_property_that_three_geometries_did_not_need_is_forgotten(service: Service) -> None:
    service.start_broker()
    asked = asked_of(service, OnDemand)
    atoms = molecule("H2O")
    atoms.calc = service.calculator("it")
    atoms.get_dipole_moment()
    for _ in range(6):
        atoms.positions += 0.1
        atoms.get_potential_energy()
    assert ["dipole" in names for names in asked] == [True] * 4 + [False] * 3


def test_when_the_larger_request_fails_the_property_is_asked_for_alone(service: Service) -> None:
    service.start_broker()
    asked = asked_of(service, Picky)
    atoms = molecule("H2O")
    atoms.calc = service.calculator("it")
    atoms.get_dipole_moment()
    atoms.info["odd"] = True
    assert atoms.get_potential_energy() == pytest.approx((atoms.positions**2).sum() / 2)
    assert [sorted(names) for names in asked] == [["dipole"], ["dipole", "energy"], ["energy"]]


def test_an_unknown_property_costs_no_calculation(service: Service) -> None:
    service.start_broker()
    worker = service.start_worker("emt", EMT)
    atoms = copper()
    atoms.calc = service.calculator("emt")
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_dipole_moment()
    assert worker.requests_handled == 0
    atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_dipole_moment()
    assert worker.requests_handled == 1


def test_it_implements_what_the_worker_does(service: Service) -> None:
    service.start_broker()
    service.start_worker("emt", EMT)
    assert service.calculator("emt").implemented_properties == list(EMT.implemented_properties)


def test_it_says_where_results_come_from(service: Service) -> None:
    service.start_broker()
    service.start_worker("emt", EMT)
    atoms = copper()
    atoms.calc = service.calculator("emt")
    atoms.get_potential_energy()
    provenance = atoms.calc.provenance
    assert "EMT" in provenance["factory"]
    assert {"args", "kwargs", "versions", "host", "pid", "python"} <= provenance.keys()
    assert provenance["versions"]["ase"]
    assert provenance["seconds"] > 0


def test_the_callers_atoms_are_never_changed(service: Service) -> None:
    service.start_broker()
    service.start_worker("it", Spring)
    atoms = molecule("H2O")
    atoms.info["nested"] = {"list": [1, 2]}
    atoms.set_array("extra", np.arange(3, dtype=np.int32))
    before = atoms.copy()
    calculator = service.calculator("it")
    atoms.calc = calculator
    forces = atoms.get_forces()
    forces[:] = 17.0
    assert atoms == before
    assert atoms.info == before.info
    assert list(atoms.arrays) == list(before.arrays)
    assert all(atoms.arrays[name].dtype == before.arrays[name].dtype for name in atoms.arrays)
    assert atoms.calc is calculator
    assert not np.array_equal(atoms.get_forces(), forces), "what is returned is the caller's own"


class WithDipole(Spring):
    implemented_properties: list[str] = ["energy", "forces", "dipole"]  # noqa: RUF012 -- as in ASE

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        return {**super().compute(atoms, properties), "dipole": np.ones(3)}


def test_what_is_implemented_is_what_is_served_now(service: Service) -> None:
    service.start_broker()
    first = service.start_worker("it", Spring)
    atoms = molecule("H2O")
    atoms.calc = service.calculator("it")
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_dipole_moment()
    service.stop(first)
    service.start_worker("it", WithDipole)
    assert list(atoms.get_dipole_moment()) == [1, 1, 1]
