"""Trajectories of many seeds."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.units import fs

from aserpc import Client
from aserpc.parallel import Ensemble, ensemble
from support.calculators import Failing, OnDemand
from support.service import Service


class ForcesOnly(OnDemand):
    """Has no energy."""

    implemented_properties: list[str] = ["forces"]  # noqa: RUF012 -- as in ASE

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        return {"forces": -atoms.get_positions()}


@pytest.fixture
def client(service: Service) -> Client:
    """A client of a broker with two workers of Lennard-Jones, which remembers nothing."""
    service.start_broker()
    for _ in range(2):
        service.start_worker("lj", LennardJones)
    return service.client()


def cluster() -> Atoms:
    return Atoms("Ar4", [(0, 0, 0), (1.1, 0, 0), (0.5, 1, 0), (0.5, 0.3, 0.9)])


def dynamics(atoms: Atoms, rng: np.random.Generator) -> Langevin:
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)))
    return langevin(atoms, rng)


def langevin(atoms: Atoms, rng: np.random.Generator) -> Langevin:
    return Langevin(atoms, 2 * fs, temperature_K=300, friction=0.02 / fs, fixcm=False, rng=rng)


def serial(seed: int, steps: int, interval: int) -> tuple[list[float], Atoms]:
    """Return the energies of a trajectory computed here, and its end."""
    atoms = cluster()
    atoms.calc = LennardJones()
    energies: list[float] = []
    moving = dynamics(atoms, np.random.default_rng(seed))
    moving.attach(lambda: energies.append(atoms.get_potential_energy()), interval=interval)
    moving.run(steps)
    return energies, atoms


def test_trajectories_are_those_of_ase_one_array_per_observable(client: Client) -> None:
    # Five of two at a time: the last one is alone.
    found = ensemble(
        cluster(), dynamics, range(5), "lj", client=client, steps=20, interval=5, at_once=2
    )
    assert sorted(found) == ["energy", "kinetic_energy", "temperature"]
    assert found["energy"].shape == found["temperature"].shape == (5, 5)
    assert found.seeds == [0, 1, 2, 3, 4]
    assert found.steps.tolist() == [0, 5, 10, 15, 20]
    for seed in range(5):
        energies, end = serial(seed, 20, 5)
        assert found["energy"][seed].tolist() == energies
        assert np.array_equal(found.atoms[seed].positions, end.positions)
        assert np.array_equal(found.atoms[seed].get_momenta(), end.get_momenta())
        assert found.atoms[seed].get_potential_energy() == energies[-1]
    assert len({*found["energy"][:, -1]}) == 5


def test_later_seeds_extend_an_ensemble(client: Client) -> None:
    def run(seeds: Any) -> Ensemble:
        return ensemble(cluster(), dynamics, seeds, "lj", client=client, steps=6)

    whole, parts = run(range(7)), run(range(4)) + run(range(4, 7))
    assert whole.seeds == parts.seeds
    for name, values in whole.items():
        assert np.array_equal(values, parts[name])
    assert [atoms.positions.tolist() for atoms in whole.atoms] == [
        atoms.positions.tolist() for atoms in parts.atoms
    ]
    assert np.array_equal(run([6, 1])["energy"], whole["energy"][[6, 1]])
    with pytest.raises(ValueError, match=r"both ensembles have the seeds \[3\]"):
        run([3]) + parts
    with pytest.raises(ValueError, match="of other steps"):
        parts + ensemble(cluster(), dynamics, [9], "lj", client=client, steps=5)


def test_an_ensemble_can_be_kept(client: Client) -> None:
    found = ensemble(cluster(), dynamics, [3], "lj", client=client, steps=2)
    again = pickle.loads(pickle.dumps(found))
    assert again.seeds == [3]
    assert np.array_equal(again["energy"], found["energy"])
    assert len(again + ensemble(cluster(), dynamics, [4], "lj", client=client, steps=2)) == 3


def test_own_observables(client: Client) -> None:
    found = ensemble(
        cluster(),
        dynamics,
        [1, 2],
        "lj",
        client=client,
        steps=4,
        interval=2,
        observe={"positions": lambda atoms: atoms.positions, "number": len},
    )
    assert sorted(found) == ["number", "positions"]
    assert found["positions"].shape == (2, 3, 4, 3)
    assert np.array_equal(found["positions"][0, 0], cluster().positions)
    assert not np.array_equal(found["positions"][0, 0], found["positions"][0, 2])
    assert (found["number"] == 4).all()


def test_the_structure_given_stays_as_it_is(client: Client) -> None:
    atoms = cluster()
    ensemble(atoms, dynamics, [1], "lj", client=client, steps=2)
    assert atoms == cluster()
    assert not atoms.has("momenta")


def test_emt_with_ten_of_eleven_at_a_time(client: Client, service: Service) -> None:
    service.start_worker("emt", EMT)
    found = ensemble(
        bulk("Cu") * (2, 2, 2),
        langevin,
        range(11),
        "emt",
        client=client,
        steps=3,
        at_once=10,
    )
    assert found["energy"].shape == (11, 4)


def test_dynamics_without_chance(client: Client) -> None:
    def verlet(atoms: Atoms, rng: np.random.Generator) -> VelocityVerlet:
        return VelocityVerlet(atoms, 1 * fs)

    found = ensemble(cluster(), verlet, [1, 2], "lj", client=client, steps=3)
    assert np.array_equal(found["energy"][0], found["energy"][1])


def test_a_calculator_that_has_only_forces_is_enough(service: Service) -> None:
    service.start_broker()
    made = ForcesOnly()
    service.start_worker("forces", lambda: made)
    found = ensemble(
        Atoms("H", [(1, 0, 0)]),
        lambda atoms, rng: VelocityVerlet(atoms, 1 * fs),
        [1],
        "forces",
        steps=4,
        client=service.client(),
        observe={"x": lambda atoms: atoms.positions[0, 0]},
    )
    assert (np.diff(found["x"][0]) < 0).all()
    assert len(made.asked) == 5


def test_mistakes_are_told(client: Client, service: Service) -> None:
    def run(atoms: Any = None, seeds: Any = (1,), steps: Any = 1, **options: Any) -> Ensemble:
        atoms = cluster() if atoms is None else atoms
        return ensemble(atoms, dynamics, seeds, "lj", client=client, steps=steps, **options)

    for options, message in [
        ({"seeds": []}, "no seeds"),
        ({"seeds": [1, 2, 1]}, r"\[1\] come more than once"),
        ({"seeds": [-1]}, "a seed is a number from 0"),
        ({"steps": -1}, "steps is a number from 0"),
        ({"interval": 0}, "interval is a number of steps from 1"),
        ({"at_once": 0}, "at_once is a number from 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(**options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seeds are whole numbers"):
        run(seeds=[0.5])
    with pytest.raises(TypeError, match="seeds are whole numbers"):
        run(seeds=3)
    with pytest.raises(ValueError, match="steps is a number from 0, not None"):
        run(steps=None)
    with pytest.raises(TypeError, match=r"observe is \{name: function of the structure\}, not <"):
        run(observe=len)
    with pytest.raises(TypeError, match=r"observe\['x'\] is a function of the structure, not 3"):
        run(observe={"x": 3})
    for wrong, message in [
        ("Langevin", "dynamics is a function that makes dynamics of ASE, not 'Langevin'"),
        (lambda atoms, rng: None, "dynamics returns dynamics of ASE, not None"),
    ]:
        with pytest.raises(TypeError, match=message):
            ensemble(cluster(), wrong, [1], "lj", client=client, steps=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="steps"):
        ensemble(cluster(), dynamics, [1], "lj", client=client)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"an ase\.Atoms"):
        run([molecule("H2O")])
    service.start_worker("failing", Failing)
    atoms = cluster()
    atoms.info["error"] = "SCFError"
    with pytest.raises(Exception, match="of the calculator's own"):
        ensemble(atoms, dynamics, range(9), "failing", client=client, steps=1)
