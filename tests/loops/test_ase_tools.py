"""ASE's own tools with remote calculators: the numbers and files of local ones, bit by bit.

Two workers share the work, so the calculator is one whose results do not depend on what it computed
before; the neighbour lists of EMT do, in the last bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.db import connect
from ase.filters import FrechetCellFilter, StrainFilter, UnitCellFilter
from ase.io import read, write
from ase.io.trajectory import Trajectory
from ase.md.langevin import Langevin
from ase.mep import NEB, interpolate
from ase.optimize import BFGS, FIRE, LBFGS, MDMin
from ase.phonons import Phonons
from ase.units import fs
from ase.vibrations import Vibrations

from support.asking import Elapsed
from support.calculators import Spring
from support.service import Service

#: Makes a calculator.
Make: TypeAlias = Callable[[], Any]


@pytest.fixture
def remote(service: Service) -> Make:
    """Makes remote calculators of a service with two workers."""
    service.start_broker()
    for _ in range(2):
        service.start_worker("lj", argon)
    return lambda: service.calculator("lj")


def argon() -> LennardJones:
    return LennardJones(epsilon=0.01, sigma=3.4, rc=6.0, smooth=True)


def cluster() -> Atoms:
    atoms = Atoms("Ar4", 3.4 * np.array([(0, 0, 0), (1.1, 0, 0), (0.5, 1, 0), (0.5, 0.3, 0.9)]))
    atoms.rattle(0.1, seed=1)
    return atoms


def crystal() -> Atoms:
    atoms: Atoms = bulk("Ar", a=5.3, cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.mark.parametrize("optimizer", [BFGS, LBFGS, FIRE, MDMin])
def test_optimizers(remote: Make, optimizer: Any) -> None:
    def relaxed(make: Make) -> Any:
        atoms = cluster()
        atoms.calc = make()
        done = optimizer(atoms, logfile=None)
        done.run(fmax=0.001, steps=40)
        return done.nsteps, atoms.positions.tolist(), atoms.get_forces().tolist()

    assert relaxed(remote) == relaxed(argon)


@pytest.mark.parametrize("cell_filter", [FrechetCellFilter, UnitCellFilter, StrainFilter])
def test_cell_filters(remote: Make, cell_filter: Any) -> None:
    def relaxed(make: Make) -> Any:
        atoms = crystal()
        atoms.calc = make()
        BFGS(cell_filter(atoms), logfile=None).run(fmax=0.001, steps=30)
        return atoms.positions.tolist(), atoms.cell.tolist(), atoms.get_stress().tolist()

    assert relaxed(remote) == relaxed(argon)


def test_langevin(remote: Make) -> None:
    def moved(make: Make) -> Any:
        atoms = crystal()
        atoms.calc = make()
        rng = np.random.default_rng(1)
        options: dict[str, Any] = {
            "temperature_K": 40,
            "friction": 0.01 / fs,
            "fixcm": False,
            "rng": rng,
        }
        energies = []
        moving = Langevin(atoms, 5 * fs, **options)
        moving.attach(lambda: energies.append(atoms.get_potential_energy()))
        moving.run(25)
        return energies, atoms.positions.tolist(), atoms.get_momenta().tolist()

    assert moved(remote) == moved(argon)


def test_vibrations(remote: Make, tmp_path: Path) -> None:
    def found(make: Make) -> Any:
        atoms = cluster()
        atoms.calc = make()
        vib = Vibrations(atoms, name=str(tmp_path / f"{make is remote}"), nfree=4)
        vib.run()
        return vib.get_vibrations().get_hessian()

    assert np.array_equal(found(remote), found(argon))


def test_phonons(remote: Make, tmp_path: Path) -> None:
    def found(make: Make) -> Any:
        atoms = bulk("Ar", a=5.3)
        done = Phonons(atoms, make(), (2, 2, 2), name=str(tmp_path / f"{make is remote}"))
        done.run()
        done.read(acoustic=True)
        path = atoms.cell.bandpath("GXL", npoints=9)
        return done.get_band_structure(path).energies

    assert np.array_equal(found(remote), found(argon))


@pytest.mark.parametrize("parallel", [False, True])
def test_nudged_elastic_band(remote: Make, parallel: bool) -> None:
    def relaxed(make: Make, *, parallel: bool) -> Any:
        images = [cluster() for _ in range(6)]
        images[-1].positions[3, 2] *= -1
        interpolate(images)
        for image in images:
            image.calc = make()
        band: Any = NEB(images, parallel=parallel, method="improvedtangent", climb=True)
        optimizer: Any = MDMin
        optimizer(band, logfile=None).run(fmax=0.001, steps=20)
        return [
            (image.positions.tolist(), image.get_forces().tolist(), image.get_potential_energy())
            for image in images
        ]

    assert relaxed(remote, parallel=parallel) == relaxed(argon, parallel=False)


def test_files_are_the_same(remote: Make, tmp_path: Path) -> None:
    def written(make: Make) -> Any:
        folder = tmp_path / f"{make is remote}"
        folder.mkdir()
        atoms = crystal()
        atoms.calc = make()
        with Trajectory(folder / "it.traj", "w", atoms) as trajectory:
            optimizing = BFGS(atoms, logfile=None)
            optimizing.attach(trajectory)
            optimizing.run(fmax=0.001, steps=5)
        atoms.get_stress()
        write(folder / "it.extxyz", atoms)
        with connect(folder / "it.db") as database:
            database.write(atoms, relaxed=True)
            row = database.get(relaxed=True)
        frames = read(folder / "it.traj", index=":")
        return (
            (folder / "it.extxyz").read_text(),
            [(f.get_potential_energy(), f.get_forces().tolist()) for f in frames],
            (row.energy, row.forces.tolist(), row.stress.tolist(), row.fmax, row.formula),
        )

    there, here = written(remote), written(argon)
    assert there == here
    assert len(here[1]) == 6


def test_a_score_that_is_written_down_leaves_the_results(remote: Make, tmp_path: Path) -> None:
    # As ase-ga has it: the score is in what the database is given with the structure.
    atoms = cluster()
    atoms.calc = remote()
    score = -atoms.get_potential_energy()
    atoms.info["key_value_pairs"] = {"raw_score": score}
    with connect(tmp_path / "it.db") as database:
        database.write(atoms, key_value_pairs=atoms.info["key_value_pairs"])
        row = database.get(raw_score=score)
        assert row.toatoms().get_potential_energy() == -score


def test_the_images_of_a_band_are_computed_by_as_many_workers_as_there_are(
    service: Service, record_property: Callable[[str, object], None]
) -> None:
    class Slow(Spring):
        def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
            threading.Event().wait(0.1)
            return super().compute(atoms, properties)

    images = [Atoms("H", [(x, 1, 0)]) for x in np.linspace(-1, 1, 10)]
    service.start_broker()
    seconds: list[float] = []
    for workers in (1, 1, 2):
        for _ in range(workers):
            service.start_worker("slow", Slow)
        for image in images:
            image.calc = service.calculator("slow")
        with Elapsed() as elapsed:
            NEB(images, parallel=True, method="improvedtangent").get_forces()
        seconds.append(elapsed.seconds)
    record_property(
        "summary",
        "8 images of 0.1 s with 1, 2 and 4 workers: {:.2f}, {:.2f}, {:.2f} s".format(*seconds),
    )
    # The two ends come one after the other: 10, 6 and 4 times 0.1 s.
    assert seconds[0] > seconds[1] > seconds[2]
