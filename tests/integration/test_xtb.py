"""Real quantum chemistry in an environment of its own: tblite (GFN2-xTB) and dftd4.

The client's environment has neither package; the worker's has both.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io import read
from ase.optimize import BFGS

from aserpc import CalculationError, RemoteCalculator, list_calculators
from support.bits import bits
from support.environments import ONE_THREAD, evaluate
from support.waiting import wait_for

DATA = Path(__file__).parents[1] / "data"
QUIET = json.dumps({"verbosity": 0})


@pytest.fixture(scope="module")
def binaries(environment: Callable[..., Path]) -> Path:
    return environment("tblite", "dftd4")


@pytest.fixture
def broker(binaries: Path, socket_folder: Path) -> Iterator[str]:
    """A broker from the client's environment, with a tblite and a dftd4 worker from theirs."""
    frontend, backend = (f"ipc://{socket_folder}/{side}.ipc" for side in ("front", "back"))
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "aserpc", "broker", "--frontend", frontend, "--backend", backend],
        [binaries / "aserpc", "worker", "tblite", "--kwargs", QUIET, "--broker", backend],
        [binaries / "aserpc", "worker", "dftd4", "--broker", backend],
    ]
    with (socket_folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen(command, cwd=socket_folder, stdout=log, stderr=log, env=ONE_THREAD)
            for command in commands
        ]
    try:
        wait_for(lambda: (socket_folder / "front.ipc").exists())
        wait_for(
            lambda: {"tblite", "dftd4"} <= set(list_calculators(frontend)),
            what=(socket_folder / "log").read_text,
        )
        yield frontend
    finally:
        for process in reversed(processes):
            process.terminate()
        codes = [process.wait(20) for process in reversed(processes)]
    assert codes == [0, 0, 0], (socket_folder / "log").read_text()


def local(binaries: Path, code: str) -> Any:
    """Run code in the worker's environment."""
    return evaluate([binaries / "python"], code)


def g2(number: int) -> Atoms:
    atoms = read(DATA / "g2.extxyz", index=number)
    assert isinstance(atoms, Atoms)
    return atoms


def test_the_two_environments_differ(binaries: Path) -> None:
    assert importlib.util.find_spec("tblite") is None
    assert local(binaries, "import tblite; print('true')") is True


@pytest.mark.parametrize("number", [0, 1, 9])
def test_numbers_are_those_of_a_local_call_bit_by_bit(
    broker: str, binaries: Path, number: int
) -> None:
    expected = local(
        binaries,
        f"""
        import json
        from ase.io import read
        from support.bits import bits
        from tblite.ase import TBLite
        atoms = read({str(DATA / "g2.extxyz")!r}, index={number})
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        atoms.get_potential_energy()
        print(json.dumps(bits(atoms.calc.results)))
        """,
    )
    atoms = g2(number)
    atoms.calc = RemoteCalculator("tblite", broker)
    atoms.get_potential_energy()
    found = bits(atoms.calc.results)
    assert found == expected
    assert {"charges", "dipole", "bond-orders"} <= set(found)


def test_a_charge_counts(broker: str) -> None:
    atoms = molecule("OH")
    atoms.calc = RemoteCalculator("tblite", broker)
    neutral = atoms.get_potential_energy()
    charges = np.zeros(2)
    charges[0] = -1
    atoms.set_initial_charges(charges)
    atoms.set_initial_magnetic_moments([0, 0])
    anion = atoms.get_potential_energy()
    assert atoms.get_charges().sum() == pytest.approx(-1, abs=1e-6)
    assert anion != pytest.approx(neutral)


def test_a_relaxation_ends_where_the_local_one_does(broker: str, binaries: Path) -> None:
    expected = local(
        binaries,
        """
        from ase.build import molecule
        from ase.optimize import BFGS
        from tblite.ase import TBLite
        atoms = molecule("CH3OH")
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        optimizer = BFGS(atoms, logfile=None)
        optimizer.run(fmax=0.01)
        print([optimizer.nsteps, float(atoms.get_potential_energy())])
        """,
    )
    atoms = molecule("CH3OH")
    atoms.calc = RemoteCalculator("tblite", broker)
    with BFGS(atoms, logfile=None) as optimizer:
        optimizer.run(fmax=0.01)
    assert optimizer.nsteps == expected[0]
    assert atoms.get_potential_energy() == pytest.approx(expected[1], abs=1e-7)


def test_an_scf_that_fails_is_an_error_with_the_calculators_words(broker: str) -> None:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]])
    atoms.calc = RemoteCalculator("tblite", broker)
    with pytest.raises(CalculationError) as caught:
        atoms.get_potential_energy()
    assert "tblite" in caught.value.remote_traceback
    good = molecule("H2")
    good.calc = atoms.calc
    assert good.get_potential_energy() < 0


def test_provenance_names_the_workers_packages(broker: str) -> None:
    atoms = molecule("H2O")
    atoms.calc = RemoteCalculator("tblite", broker)
    atoms.get_potential_energy()
    provenance = atoms.calc.provenance
    assert provenance["factory"] == "tblite.ase:TBLite"
    assert provenance["kwargs"]["verbosity"] == 0
    assert "tblite" in provenance["versions"]


def test_a_dispersion_correction_from_another_worker_adds_up(broker: str) -> None:
    from ase.calculators.mixing import SumCalculator

    atoms = molecule("C6H6")
    xtb, d4 = RemoteCalculator("tblite", broker), RemoteCalculator("dftd4", broker)
    parts = [calc.get_property("energy", atoms) for calc in (xtb, d4)]
    assert parts[1] < 0
    atoms.calc = SumCalculator([xtb, d4])
    assert atoms.get_potential_energy() == pytest.approx(sum(parts))
    with pytest.raises(PropertyNotImplementedError):
        d4.get_property("magmoms", atoms)
