"""A broker, workers and clients on hosts of their own compute what one process computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import read

from support.across import Across

STRUCTURES = Path(__file__).parents[1] / "data" / "cuau_triclinic.extxyz"

SCRIPT = """
import json, sys
from ase.io import read
from aserpc import RemoteCalculator
atoms = read(sys.argv[1])
atoms.calc = RemoteCalculator("emt")
stress = atoms.get_stress(voigt=False)
print(json.dumps([atoms.get_potential_energy(), atoms.get_forces().tolist(), stress.tolist()]))
"""


def structure() -> Atoms:
    atoms = read(STRUCTURES)
    assert isinstance(atoms, Atoms)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize("keys", [True, False], ids=["keys", "insecure"])
def test_numbers_are_those_of_one_process(across: Across, keys: bool) -> None:
    if not keys:
        across.set(ASERPC_KEYS_DIR=str(across.folder / "none"))
    across.broker(*(() if keys else ("--insecure",)))
    workers = [across.worker(host, "EMT") for host in ("one", "two")]
    atoms = structure()
    expected = [atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)]
    for host in ("laptop", "head"):
        client = across.on(host).python(SCRIPT, str(STRUCTURES))
        assert client.wait() == 0, client.errors()
        for mine, theirs in zip(json.loads(client.output()), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert across.states() == {worker.pid: "idle" for worker in workers}


def test_commands_reach_a_broker_on_another_host(across: Across) -> None:
    across.broker()
    worker = across.worker("one", "EMT")
    laptop = across.on("laptop")
    done = laptop.run("run", "emt", str(STRUCTURES), "--broker", across.frontend, "--json")
    assert done.code == 0, done.errors
    (result,) = json.loads(done.output)
    assert result["energy"] == pytest.approx(structure().get_potential_energy(), abs=1e-12)
    assert "emt" in laptop.run("list", "--running").output
    assert laptop.run("shutdown", "--all").output == "told 1 worker to shut down\n"
    assert worker.wait() == 0
