"""Many relaxations at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE, BFGSLineSearch

from aserpc import Client, RemoteCalculator
from aserpc.parallel import relax
from support.calculators import Failing, Gate, OnDemand
from support.service import Service
from support.waiting import InThread, wait_for


@pytest.fixture
def client(service: Service) -> Client:
    """A client of a broker with two workers of EMT."""
    service.start_broker()
    for _ in range(2):
        service.start_worker("emt", EMT)
    return service.client()


def structures() -> list[Atoms]:
    found: list[Atoms] = [molecule(name) for name in ("H2O", "CH4", "C2H2", "NH3", "CO")]
    found[0].set_constraint(FixAtoms([0]))
    return found


@pytest.mark.parametrize("optimizer", [None, FIRE, BFGSLineSearch])
def test_relaxations_are_those_of_ase(client: Client, optimizer: Any) -> None:
    given = structures()
    relaxed = relax(given, "emt", client=client, optimizer=optimizer, fmax=0.02, at_once=3)
    assert relaxed.converged == [True] * 5
    for there, here, steps in zip(relaxed, given, relaxed.steps, strict=True):
        here.calc = EMT()
        serial = (optimizer or BFGS)(here, logfile=None)
        serial.run(fmax=0.02)
        assert np.array_equal(there.positions, here.positions)
        assert there.get_potential_energy() == here.get_potential_energy()
        assert np.array_equal(there.get_forces(), here.get_forces())
        assert serial.nsteps == steps
        assert there.calc.name == "emt"


def test_those_given_stay_as_they_are(client: Client) -> None:
    given = structures()
    relax(given, "emt", client=client)
    assert given == structures()
    assert all(atoms.calc is None for atoms in given)


def test_cells_relax_too(client: Client) -> None:
    crystals = [bulk("Cu", a=3.5), bulk("Al", a=4.2)]
    for there, here in zip(
        relax(crystals, "emt", client=client, cell_filter=FrechetCellFilter), crystals, strict=True
    ):
        here.calc = EMT()
        target: Any = FrechetCellFilter(here)
        BFGS(target, logfile=None).run(fmax=0.05)
        assert np.array_equal(there.cell, here.cell)
        assert np.array_equal(there.get_stress(), here.get_stress())


def test_steps_are_limited(client: Client) -> None:
    relaxed = relax(structures(), "emt", client=client, steps=1)
    assert set(relaxed.steps) <= {0, 1}
    assert False in relaxed.converged
    assert all(
        converged == bool(np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.05)
        for atoms, converged in zip(relaxed, relaxed.converged, strict=True)
    )


def test_a_relaxed_structure_is_a_beginning(client: Client) -> None:
    given = structures()
    for atoms in given:
        atoms.calc = RemoteCalculator("emt", client.broker)
    rough = relax(given, fmax=0.5)
    fine = relax(rough, "emt", client=client, fmax=0.01)
    assert all(
        a.get_potential_energy() <= b.get_potential_energy()
        for a, b in zip(fine, rough, strict=True)
    )


def test_forces_energy_and_what_else_a_step_needs_are_one_request(
    service: Service,
) -> None:
    service.start_broker()
    made = OnDemand()
    service.start_worker("spring", lambda: made)
    relaxed = relax([Atoms("H", [(1, 0, 0)])], "spring", client=service.client(), fmax=1e-6)
    assert len(made.asked) == relaxed.steps[0] + 1


def test_all_that_may_are_relaxed_at_once(service: Service, tmp_path: Path) -> None:
    service.start_broker()
    barrier = threading.Barrier(3, timeout=20)

    class Together(OnDemand):
        def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
            barrier.wait()
            return super().compute(atoms, properties)

    for _ in range(3):
        service.start_worker("together", Together)
    at_rest = [Atoms("H") for _ in range(6)]
    assert relax(at_rest, "together", client=service.client(), at_once=3).steps == [0] * 6


def test_the_first_failure_ends_the_rest(service: Service, tmp_path: Path) -> None:
    service.start_broker()
    service.start_worker("gate", lambda: Gate(str(tmp_path)))
    service.start_worker("failing", Failing)
    client = service.client()
    fails = Atoms("H", info={"error": "SCFError"})

    def submit(calculator: str, atoms: Atoms, properties: Sequence[str]) -> Any:
        name = "failing" if atoms.info else "gate"
        return Client.submit(client, name, atoms, properties)

    client.submit = submit  # type: ignore[assignment]
    with pytest.raises(Exception, match="of the calculator's own"):
        relax([*(Atoms("H") for _ in range(4)), fails], "both", client=client)
    wait_for(lambda: not service.status()["pending_requests"].get("gate"))
    (tmp_path / "go").touch()


def test_failures_are_returned_in_their_places(client: Client) -> None:
    relaxed = relax(
        [molecule("H2O"), molecule("HF"), molecule("CO")],
        "emt",
        client=client,
        return_exceptions=True,
    )
    assert isinstance(relaxed[1], NotImplementedError)
    assert [isinstance(one, Atoms) for one in relaxed] == [True, False, True]
    assert relaxed.converged == [True, False, True]
    with pytest.raises(NotImplementedError, match="No EMT-potential for F"):
        relax([molecule("H2O"), molecule("HF")], "emt", client=client)


def test_a_client_that_is_closed_ends_it(service: Service, tmp_path: Path) -> None:
    service.start_broker()
    service.start_worker("gate", lambda: Gate(str(tmp_path)))
    client = service.client()
    relaxing = InThread(lambda: relax([Atoms("H")] * 4, "gate", client=client))
    wait_for(lambda: list(tmp_path.glob("started-*")))
    client.close()
    with pytest.raises(BaseException) as error:  # noqa: PT011 -- asked for below
        relaxing.result()
    assert type(error.value).__name__ == "CancelledError"
    (tmp_path / "go").touch()


def test_mistakes_are_told(client: Client, service: Service) -> None:
    atoms = molecule("H2O")
    with pytest.raises(ValueError, match="no structures to relax"):
        relax([], "emt", client=client)
    for options, message in [
        ({"fmax": -1}, "fmax is a positive number"),
        ({"steps": 1.5}, "steps is a number from 0"),
        ({"at_once": 0}, "at_once is a number from 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            relax([atoms], "emt", client=client, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"an ase\.Atoms"):
        relax([atoms, None], "emt", client=client)  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"write \[atoms\]"):
        relax(atoms, "emt", client=client)
    with pytest.raises(TypeError, match=r"such as ase\.optimize\.FIRE, not 'FIRE'"):
        relax([atoms], "emt", client=client, optimizer="FIRE")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"cell_filter is a class such as .*, not 'Frechet'"):
        relax([atoms], "emt", client=client, cell_filter="Frechet")  # type: ignore[arg-type]
    one, other = molecule("H2O"), molecule("CO")
    one.calc = RemoteCalculator("emt", client.broker)
    with pytest.raises(ValueError, match="whom to ask"):
        relax([one, other])
    service.start_worker("unstressed", OnDemand)
    with pytest.raises(PropertyNotImplementedError):
        relax([bulk("Cu")], "unstressed", client=client, cell_filter=FrechetCellFilter)
