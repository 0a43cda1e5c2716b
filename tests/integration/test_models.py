"""Machine-learned potentials side by side: CHGNet and SevenNet, each in an environment of its own.

The client has neither. `registry_examples/venvs.toml` is served as it stands.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read
from ase.optimize import BFGS

from aserpc import Client
from aserpc.spawn import SpawnConfig
from aserpc.spawn.sources import load_spawn_registry
from support.bits import bits
from support.environments import ROOT, evaluate
from support.processes import Cli
from support.waiting import InThread, wait_for

pytestmark = pytest.mark.heavy

EXAMPLES = ROOT / "registry_examples"
DATA = ROOT / "tests" / "data"
STRUCTURES = ["tio2_rutile.cif", "cuau_triclinic.extxyz", "cu111_co.extxyz"]
MODELS = {"chgnet": "chgnet", "sevennet": "sevenn"}

#: Where an index has several builds of this version, pip takes that for the CPU, if it is there.
TORCH = "torch==2.13.0"


@pytest.fixture(scope="module")
def site(environment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example and the environments that it names."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(EXAMPLES / "venvs.toml", folder)
    (folder / "envs").mkdir()
    pinned = load_spawn_registry(f"{EXAMPLES}/spawn_uvx.toml")
    for name in MODELS:
        binaries = environment(TORCH, *(pinned[name].packages or ()), python="3.11")
        (folder / "envs" / name).symlink_to(binaries.parent)
    return folder


@pytest.fixture(scope="module")
def configs(site: Path) -> dict[str, SpawnConfig]:
    return load_spawn_registry(f"{site}/venvs.toml")


@pytest.fixture(scope="module")
def served(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """Broker and manager from the client's environment, which start the models' workers."""
    sockets, logs = tmp_path_factory.mktemp("s"), tmp_path_factory.mktemp("logs")
    cli = Cli(sockets, site, logs)
    try:
        process = cli.start("up", "venvs.toml", OMP_NUM_THREADS="1")
        wait_for(lambda: "offers 2" in process.errors(), what=process.errors)
        yield cli
    finally:
        cli.close()


@pytest.fixture(scope="module")
def local(configs: dict[str, SpawnConfig]) -> dict[str, Any]:
    """What the models compute without us, in their environments."""
    return {
        name: evaluate([config.venv_folder / "bin/python"], code(config))
        for name, config in configs.items()
    }


def code(config: SpawnConfig) -> str:
    assert config.factory is not None
    module, _, factory = config.factory.partition(":")
    return f"""
        import json
        from ase.io import read
        from ase.optimize import BFGS
        from support.bits import bits
        from {module} import {factory}

        calculator = {factory}(**{config.kwargs or {}})
        found = {{}}
        for name in {STRUCTURES}:
            atoms = read(f"{DATA}/{{name}}")
            atoms.calc = calculator
            atoms.get_potential_energy()
            found[name] = bits(calculator.results)
        atoms = read("{DATA}/tio2_rutile.cif")
        atoms.rattle(0.05, seed=1)
        atoms.calc = calculator
        optimizer = BFGS(atoms, logfile=None)
        optimizer.run(fmax=0.05)
        found["relaxed"] = [
            optimizer.nsteps, float(atoms.get_potential_energy()), atoms.positions.tolist()
        ]
        print(json.dumps(found))
    """


def structure(name: str) -> Atoms:
    atoms = read(DATA / name)
    assert isinstance(atoms, Atoms)
    atoms.info.pop("spacegroup", None)  # an object of ASE's, which has no form on the wire
    return atoms


def test_each_environment_has_its_model_and_the_client_has_none(
    configs: dict[str, SpawnConfig],
) -> None:
    look = "import importlib.util as u, json; print(json.dumps([bool(u.find_spec(n)) for n in {}]))"
    modules = list(MODELS.values())
    assert not any(importlib.util.find_spec(name) for name in modules)
    for name, module in MODELS.items():
        found = evaluate([configs[name].venv_folder / "bin/python"], look.format(modules))
        assert found == [each == module for each in modules]


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("model", MODELS)
def test_numbers_are_those_of_a_local_call_bit_by_bit(
    served: Cli, local: dict[str, Any], model: str, name: str
) -> None:
    atoms = structure(name)
    atoms.calc = served.calculator(model)
    atoms.get_potential_energy()
    assert bits(atoms.calc.results) == local[model][name]
    assert atoms.get_forces().shape == (len(atoms), 3)
    assert atoms.get_stress().shape == (6,)
    if model == "chgnet":
        assert atoms.get_magnetic_moments().shape == (len(atoms),)


@pytest.mark.parametrize("model", MODELS)
def test_clients_share_batches_and_get_what_each_would_alone(served: Cli, model: str) -> None:
    def crystal(number: int) -> Atoms:
        atoms = bulk("NaCl", "rocksalt", 5.5 + 0.05 * number, cubic=number % 3 == 0)
        atoms.rattle(0.05, seed=number)
        return atoms

    def together(number: int) -> tuple[int, dict[str, Any]]:
        atoms = crystal(number)
        atoms.calc = served.calculator(model)
        largest = 0
        for _ in range(3):
            atoms.calc.reset()
            atoms.get_forces()
            largest = max(largest, atoms.calc.provenance["batch_size"])
        return largest, atoms.calc.results

    clients = [InThread(lambda number=number: together(number)) for number in range(12)]  # type: ignore[misc]
    found = [result for client in clients if (result := client.result()) is not None]
    assert max(size for size, _ in found) > 4
    alone = served.calculator(model)
    for number, (_, results) in enumerate(found):
        alone.calculate(crystal(number), ["energy", "forces", "stress"])
        assert alone.provenance["batch_size"] == 1
        assert_near(results, alone.results)


def values(kept: dict[str, list[Any]]) -> dict[str, Any]:
    """Return the numbers of results that `bits` has written."""
    return {
        name: np.frombuffer(bytes.fromhex(data), dtype).reshape(shape)
        for name, (_, dtype, shape, data) in kept.items()
    }


def assert_near(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare results of a batch with those alone: float32 sums in another order."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, np.abs(value).max())
        np.testing.assert_allclose(found[name], value, rtol=0, atol=5e-6 * scale, err_msg=name)


def test_one_client_has_both_at_once(served: Cli, local: dict[str, Any]) -> None:
    atoms = structure(STRUCTURES[0])
    with Client(served.frontend) as client:
        futures = [(model, client.submit(model, atoms)) for _ in range(3) for model in MODELS]
        for model, future in futures:
            # They may be computed together.
            assert_near(future.result(), values(local[model][STRUCTURES[0]]))
    ready = {
        worker["calculator"]: worker["pid"]
        for worker in served.status()["processes"]
        if worker["state"] in ("idle", "busy")
    }
    assert set(ready) == set(MODELS)
    assert len(set(ready.values())) == len(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_provenance_names_the_models_packages(served: Cli, model: str) -> None:
    atoms = structure(STRUCTURES[0])
    atoms.calc = served.calculator(model)
    atoms.get_potential_energy()
    versions = atoms.calc.provenance["versions"]
    assert versions["torch"].startswith("2.13.0")
    assert [module in versions for module in MODELS.values()] == [name == model for name in MODELS]


@pytest.mark.parametrize("model", MODELS)
def test_a_relaxation_ends_where_the_local_one_does(
    served: Cli, local: dict[str, Any], model: str
) -> None:
    atoms = structure("tio2_rutile.cif")
    atoms.rattle(0.05, seed=1)
    atoms.calc = served.calculator(model)
    with BFGS(atoms, logfile=None) as optimizer:
        assert optimizer.run(fmax=0.05)
    steps, energy, positions = local[model]["relaxed"]
    # The optimizer runs with the client's numpy, whose sums may differ in the last bits.
    assert optimizer.nsteps == steps > 3
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-4)
    np.testing.assert_allclose(atoms.positions, positions, atol=1e-3)


def test_the_environments_are_ready(served: Cli) -> None:
    done = served.run("env", "check", "--registry", "venvs.toml")
    assert done.code == 0, done.output
