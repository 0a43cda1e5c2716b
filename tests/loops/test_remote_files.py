"""ASE's file formats record a remote calculator's results as they do a local one's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.db import connect
from ase.io import read, write
from ase.io.trajectory import Trajectory

from support.calculators import Generous
from support.service import Service


@pytest.fixture
def water(service: Service) -> Atoms:
    """Atoms whose calculator returns arrays and dicts of its own, computed."""
    service.start_broker()
    service.start_worker("generous", Generous)
    atoms: Atoms = molecule("H2O", vacuum=3)
    atoms.calc = service.calculator("generous")
    atoms.get_forces()
    return atoms


@pytest.fixture(params=["json", "db"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A database of ASE, in a file."""
    with connect(tmp_path / f"it.{request.param}") as database:
        yield database


def test_all_results_arrive_with_dtypes_and_shapes(water: Atoms) -> None:
    results = water.calc.results
    assert results["descriptors"].dtype == np.float32
    assert results["descriptors"].shape == (3, 2, 2)
    assert results["uncertainty"]["energy"] == 0.1
    assert results["uncertainty"]["forces"].shape == (3, 3)
    assert results["converged"] is True
    assert results["steps"] == 7
    assert results["free_energy"] == 1.5


def check(read_back: Any, atoms: Atoms) -> None:
    assert isinstance(read_back, Atoms)
    assert read_back.get_potential_energy() == atoms.get_potential_energy()
    assert np.allclose(read_back.get_forces(), atoms.get_forces())


def test_trajectory(water: Atoms, tmp_path: Path) -> None:
    path = tmp_path / "it.traj"
    with Trajectory(path, "w", water) as trajectory:
        trajectory.write()
        water.rattle(0.1)
        trajectory.write()
        water.get_forces()
        trajectory.write()
    first, uncomputed, last = read(path, ":")
    assert first.calc.name == "generous"
    assert not uncomputed.calc or not uncomputed.calc.results, "nothing stale is recorded"
    check(last, water)


def test_database(water: Atoms, database: Any) -> None:
    number = database.write(water, note="first")
    row = database.get(number)
    assert row.calculator == "generous"
    assert row.calculator_parameters["calc_name"] == "generous"
    check(row.toatoms(), water)


@pytest.mark.parametrize("suffix", ["extxyz", "xyz", "json", "traj"])
def test_written_by_ase_io(water: Atoms, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"it.{suffix}"
    write(path, water)
    check(read(path), water)
