"""Equations of state and strains over workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.eos import EquationOfState, calculate_eos

from aserpc import Client
from aserpc.parallel import eos, strain
from support.calculators import OnDemand
from support.service import Service


@pytest.fixture
def client(service: Service) -> Client:
    """A client of a broker with two workers of EMT."""
    service.start_broker()
    for _ in range(2):
        service.start_worker("emt", EMT)
    return service.client()


@pytest.fixture
def crystal() -> Atoms:
    """A crystal whose atoms are not where symmetry holds them."""
    atoms: Atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def strained(atoms: Atoms, tensor: Any) -> Atoms:
    """Return a structure under a strain, with EMT."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + np.asarray(tensor)), scale_atoms=True)
    atoms.calc = EMT()
    return atoms


def test_an_equation_of_state_is_that_of_ase(client: Client, crystal: Atoms) -> None:
    there = eos(crystal, "emt", client=client, npoints=7, eps=0.05)
    crystal.calc = EMT()
    here = calculate_eos(crystal, npoints=7, eps=0.05)
    assert isinstance(there, EquationOfState)
    assert there.v.tolist() == here.v.tolist()
    assert there.e.tolist() == here.e.tolist()
    assert there.fit() == here.fit()


def test_another_equation_is_fitted(client: Client, crystal: Atoms) -> None:
    there = eos(crystal, "emt", client=client, equation="birchmurnaghan")
    here = EquationOfState(there.v, there.e, "birchmurnaghan")
    assert there.fit() == here.fit()
    assert there.fit() != eos(crystal, "emt", client=client).fit()


def test_mistakes_in_an_equation_of_state_are_told(client: Client, crystal: Atoms) -> None:
    with pytest.raises(ValueError, match="npoints is a number from 4"):
        eos(crystal, "emt", client=client, npoints=3)
    for eps in (0, 1, float("nan")):
        with pytest.raises(ValueError, match="eps is between 0 and 1"):
            eos(crystal, "emt", client=client, eps=eps)
    with pytest.raises(ValueError, match="'H2O' has no cell with a volume"):
        eos(molecule("H2O"), "emt", client=client)
    for equation in ("ideal-gas", "np"):
        with pytest.raises(ValueError, match="equation is one of"):
            eos(crystal, "emt", client=client, equation=equation)


def test_strains_in_voigts_order(client: Client, crystal: Atoms) -> None:
    voigt = np.array([[0.01, 0.02, -0.03, 0.04, 0.05, 0.06], np.zeros(6)])
    tensor = [[0.01, 0.03, 0.025], [0.03, 0.02, 0.02], [0.025, 0.02, -0.03]]
    there = strain(crystal, voigt, "emt", client=client)
    for found, expected in zip(there, [tensor, np.zeros((3, 3))], strict=True):
        here = strained(crystal, expected)
        assert np.allclose(found.cell, here.cell, rtol=0, atol=1e-14)
        assert found.get_potential_energy() == pytest.approx(here.get_potential_energy(), 1e-12)
        assert np.allclose(found.get_stress(), here.get_stress(), rtol=0, atol=1e-12)
        assert found.calc.name == "emt"


def test_strains_as_tensors_are_those_of_a_loop(client: Client, crystal: Atoms) -> None:
    tensors = np.random.default_rng(1).normal(0, 0.02, (9, 3, 3))
    there = strain(crystal, tensors, "emt", client=client, properties=["energy", "forces"])
    for found, tensor in zip(there, tensors, strict=True):
        here = strained(crystal, tensor)
        assert found.get_potential_energy() == here.get_potential_energy()
        assert np.array_equal(found.get_forces(), here.get_forces())


@pytest.mark.parametrize(
    ("component", "indices"),
    [("xx", [(0, 0)]), ("xy", [(0, 1), (1, 0)]), ("volume", [(0, 0), (1, 1), (2, 2)])],
)
def test_one_component(client: Client, crystal: Atoms, component: str, indices: Any) -> None:
    values = [-0.02, 0.0, 0.02]
    there = strain(crystal, values, "emt", client=client, component=component)
    for found, value in zip(there, values, strict=True):
        tensor = np.zeros((3, 3))
        for index in indices:
            tensor[index] = value
        assert found.get_potential_energy() == strained(crystal, tensor).get_potential_energy()


def test_mistakes_in_strains_are_told(client: Client, crystal: Atoms, service: Service) -> None:
    for strains, component, message in [
        ([0.1], None, r"shape \(n, 6\) or \(n, 3, 3\), not \(1,\)"),
        ([], "xx", "no strains"),
        ([0.1], "xX", "component is one of xx, yy"),
        ([[0.1]], "xx", "a list of numbers"),
        ([-1.0], "xx", "no volume"),
        ([float("nan")], "xx", "no volume"),
    ]:
        with pytest.raises(ValueError, match=message):
            strain(crystal, strains, "emt", client=client, component=component)
    service.start_worker("unstressed", OnDemand)
    with pytest.raises(PropertyNotImplementedError):
        strain(crystal, [0.1], "unstressed", client=client, component="xx")
