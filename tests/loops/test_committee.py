"""Several served calculators as one."""

from __future__ import annotations

import pickle
import threading
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.db import connect
from ase.io import read, write
from ase.optimize import BFGS
from ase.stress import voigt_6_to_full_3x3_stress

from aserpc import CommitteeCalculator
from aserpc.errors import CalculationError, NoWorkersError
from support.calculators import Charged, Failing, Generous, OnDemand, Spring
from support.service import Service


class Stiff(OnDemand):
    """E = Σ x², and no dipole."""

    implemented_properties: list[str] = ["energy", "forces", "charges"]  # noqa: RUF012 -- as in ASE

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        return {name: 2 * value for name, value in super().compute(atoms, properties).items()}


LOCAL: dict[str, Any] = {"emt": EMT, "lj": LennardJones, "morse": MorsePotential}


@pytest.fixture
def served(service: Service) -> Service:
    """A broker with one worker of each of our calculators."""
    service.start_broker()
    for name, factory in {**LOCAL, "one": OnDemand, "two": Stiff}.items():
        service.start_worker(name, factory)
    return service


def committee(service: Service, *names: str, **options: Any) -> CommitteeCalculator:
    made = CommitteeCalculator(names, service.frontend, 10_000, **options)
    service._clients.append(made._client)
    return made


def test_mean_deviation_and_members(served: Service) -> None:
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.1, seed=1)
    crystal.calc = committee(served, *LOCAL)
    energies, forces, stresses = [], [], []
    for factory in LOCAL.values():
        local = crystal.copy()
        local.calc = factory()
        energies.append(local.get_potential_energy())
        forces.append(local.get_forces())
        stresses.append(local.get_stress())
    assert crystal.get_potential_energy() == np.mean(energies)
    assert np.array_equal(crystal.get_forces(), np.mean(forces, axis=0))
    assert np.array_equal(crystal.get_stress(), np.mean(stresses, axis=0))
    results = crystal.calc.results
    assert results["energy_std"] == np.std(energies)
    assert isinstance(results["energy_std"], float)
    assert np.array_equal(results["forces_std"], np.std(forces, axis=0))
    assert results["energies_committee"].tolist() == energies
    assert np.array_equal(results["forces_committee"], forces)
    assert np.array_equal(results["stress_committee"], stresses)


def test_members_may_return_stresses_as_tensors(served: Service) -> None:
    class Whole(LennardJones):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            super().calculate(*args, **kwargs)  # type: ignore[no-untyped-call]
            for name in {"stress", "stresses"} & {*self.results}:
                self.results[name] = voigt_6_to_full_3x3_stress(self.results[name])

    served.start_worker("whole", Whole)
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.1, seed=1)
    local = crystal.copy()
    local.calc = LennardJones()
    crystal.calc = committee(served, "whole", "lj")
    assert np.array_equal(crystal.get_stress(), local.get_stress())
    assert np.array_equal(crystal.get_stresses(), local.get_stresses())
    assert not crystal.calc.results["stress_std"].any()
    assert crystal.calc.results["stress_committee"].shape == (2, 6)


def test_the_energies_of_atoms_are_no_energies_of_members(served: Service) -> None:
    atoms = bulk("Cu")
    atoms.calc = committee(served, "emt", "lj")
    atoms.get_potential_energies()
    assert atoms.calc.results["energies_committee"].shape == (2,)
    assert atoms.calc.results["atomic_energies_committee"].shape == (2, 1)


def test_the_sample_deviation_is_there_too(served: Service) -> None:
    atoms = Atoms("H", [(2, 0, 0)])
    atoms.calc = committee(served, "one", "two", ddof=1)
    atoms.get_potential_energy()
    assert atoms.calc.results["energy_std"] == np.std([2, 4], ddof=1)


def test_all_members_are_asked_at_the_same_time(service: Service) -> None:
    service.start_broker()
    barrier = threading.Barrier(3, timeout=20)

    class Together(Spring):
        def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
            barrier.wait()
            return super().compute(atoms, properties)

    for name in "abc":
        service.start_worker(name, Together)
    atoms = Atoms("H", [(2, 0, 0)])
    atoms.calc = committee(service, "a", "b", "c")
    assert atoms.get_potential_energy() == 2


def test_nothing_is_computed_twice(service: Service) -> None:
    service.start_broker()
    members = {"one": OnDemand(), "two": Stiff()}
    service.start_worker("one", lambda: members["one"])
    service.start_worker("two", lambda: members["two"])
    atoms = Atoms("H", [(2, 0, 0)])
    atoms.calc = committee(service, "one", "two")
    for _ in range(3):
        assert atoms.get_potential_energy() == 3
        assert atoms.get_forces().tolist() == [[-3, 0, 0]]
        assert atoms.get_charges().tolist() == [3]
    assert [len(member.asked) for member in members.values()] == [3, 3]
    atoms.positions += 1
    atoms.get_potential_energy()
    atoms.get_charges()
    assert [len(member.asked) for member in members.values()] == [4, 4], "together from now on"


def test_information_of_a_structure_counts(served: Service) -> None:
    served.start_worker("charged", Charged)
    atoms = Atoms("H", info={"charge": 2})
    atoms.calc = committee(served, "charged", "one")
    assert atoms.get_potential_energy() == 1
    atoms.info["charge"] = 4
    assert atoms.get_potential_energy() == 2


def test_what_all_members_have_is_implemented(served: Service) -> None:
    atoms = Atoms("H", [(2, 0, 0)])
    atoms.calc = committee(served, "one", "two")
    assert atoms.calc.implemented_properties == ["energy", "forces", "charges"]
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_dipole_moment()
    assert atoms.get_potential_energy() == 3


def test_results_that_only_some_have_are_left_out(served: Service) -> None:
    served.start_worker("generous", Generous)
    atoms = Atoms("H", [(2, 0, 0)])
    atoms.calc = committee(served, "generous", "one")
    atoms.get_forces()
    assert {key.partition("_")[0] for key in atoms.calc.results} == {
        "energy",
        "energies",
        "forces",
    }


def test_an_error_of_a_member_is_raised_and_the_next_call_goes_on(served: Service) -> None:
    served.start_worker("failing", Failing)
    atoms = Atoms("H", [(2, 0, 0)], info={"error": "SCFError"})
    atoms.calc = committee(served, "one", "failing")
    with pytest.raises(CalculationError, match="of the calculator's own") as caught:
        atoms.get_potential_energy()
    assert caught.value.calculator == "failing"
    assert atoms.calc.results == {}
    del atoms.info["error"]
    assert atoms.get_potential_energy() == 2
    atoms.calc = committee(served, "one", "nobody")
    with pytest.raises(NoWorkersError):
        atoms.get_potential_energy()


def test_it_relaxes_as_a_local_mean_does(served: Service) -> None:
    water = molecule("CO")
    water.calc = committee(served, "emt", "morse")
    assert BFGS(water, logfile=None).run(fmax=0.01)

    class Mean(Spring):
        implemented_properties: list[str] = ["energy", "forces"]  # noqa: RUF012 -- as in ASE

        def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
            made = [EMT(), MorsePotential()]
            return {
                name: np.mean([one.get_property(name, atoms) for one in made], axis=0)
                for name in ("energy", "forces")
            }

    local = molecule("CO")
    local.calc = Mean()
    BFGS(local, logfile=None).run(fmax=0.01)
    assert np.array_equal(water.positions, local.positions)


def test_files_record_the_mean(served: Service, tmp_path: Path) -> None:
    atoms = molecule("H2O", vacuum=3)
    atoms.calc = committee(served, "emt", "lj")
    forces = atoms.get_forces()
    write(tmp_path / "it.extxyz", atoms)
    write(tmp_path / "it.traj", atoms)
    for name in ("it.extxyz", "it.traj"):
        back = read(tmp_path / name)
        assert isinstance(back, Atoms)
        assert np.allclose(back.get_forces(), forces)
    with connect(tmp_path / "it.db") as database:
        database.write(atoms)
        row = database.get(id=1)
    assert row.energy == atoms.get_potential_energy()
    assert row.calculator == "emt+lj"
    assert row.calculator_parameters["names"] == ["emt", "lj"]


def test_provenance_is_by_member(served: Service) -> None:
    atoms = molecule("H2O")
    with committee(served, "emt", "lj") as calc:
        atoms.calc = calc
        assert calc.provenance == {}
        atoms.get_potential_energy()
        assert calc.provenance["lj"]["seconds"] > 0
        assert sorted(calc.provenance) == ["emt", "lj"]
    assert atoms.get_forces().shape == (3, 3), "it stays usable"


def test_pickled_and_copied(served: Service) -> None:
    atoms = molecule("H2O")
    atoms.calc = committee(served, "emt", "lj")
    energy = atoms.get_potential_energy()
    for again in (pickle.loads(pickle.dumps(atoms)), deepcopy(atoms)):
        assert again.get_potential_energy() == energy
        again.positions += 0.01
        assert again.get_potential_energy() == pytest.approx(energy)
        again.calc.close()


def test_mistakes_are_told(served: Service) -> None:
    for names, message in [
        ([], "two or more members"),
        (["emt"], "two or more members"),
        (["emt", "emt"], "another calculator"),
        (["emt", ""], "no calculator name"),
    ]:
        with pytest.raises(ValueError, match=message):
            CommitteeCalculator(names, served.frontend)
    with pytest.raises(TypeError, match="a list of calculators' names, not 'emt'"):
        CommitteeCalculator("emt", served.frontend)
    with pytest.raises(ValueError, match="ddof"):
        CommitteeCalculator(["emt", "lj"], served.frontend, ddof=2)
    with pytest.raises(ConnectionError):
        CommitteeCalculator(["emt", "lj"], f"ipc://{served.folder}/nobody.ipc")
    with pytest.raises(ValueError, match="no system yet"):
        committee(served, "emt", "lj").calculate()
