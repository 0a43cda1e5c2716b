"""The worked examples, served as they stand to a client that has none of their packages."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import molecule

from aserpc.spawn import SpawnConfig
from aserpc.spawn.sources import load_spawn_registry
from aserpc.spawn.uvx import find_call, find_uv
from support import readme_of_0_1_3
from support.bits import bits
from support.environments import CACHE, ROOT, evaluate
from support.processes import Cli, Process
from support.waiting import wait_for

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "registry_examples"

#: A first `uvx` downloads; what it has waits in uv's cache for the next run, s.
DOWNLOADING = 600


def serve(cli: Cli, *arguments: str, **env: str) -> Process:
    """Start broker and manager, and wait until they serve."""
    process = cli.start("up", *arguments, OMP_NUM_THREADS="1", **env)
    wait_for(lambda: "offers" in process.errors() or not process.runs(), what=process.errors)
    assert process.runs(), process.errors()
    return process


def ask(cli: Cli, name: str, atoms: Atoms) -> Any:
    """Return the results for a structure, and where they come from."""
    atoms.calc = cli.calculator(name)
    atoms.get_potential_energy()
    return atoms.calc.results, atoms.calc.provenance


def evaluate_there(config: SpawnConfig, code: str) -> Any:
    """Run code in the environment that uv makes for a calculator's workers."""
    call = find_call(config.render(broker="", spawn_id="").command)
    assert call is not None
    return evaluate(call.command(None, tool=["python"]), code)


# -------------------------------------------------------------------- environments made by uv


@pytest.mark.timeout(DOWNLOADING)
@pytest.mark.parametrize("name", ["gfn2", "d4_pbe"])
def test_numbers_are_those_of_a_local_call_bit_by_bit(cli: Cli, name: str) -> None:
    example = f"{EXAMPLES}/spawn_uvx.toml"
    config = load_spawn_registry(example)[name]
    module, _, factory = (config.factory or "").partition(":")
    assert importlib.util.find_spec(module.partition(".")[0]) is None
    serve(cli, example)
    results, provenance = ask(cli, name, molecule("CH3OH"))
    assert bits(results) == evaluate_there(
        config,
        f"""
        import json
        from ase.build import molecule
        from support.bits import bits
        from {module} import {factory}
        atoms = molecule("CH3OH")
        atoms.calc = {factory}(**{config.kwargs})
        atoms.get_potential_energy()
        print(json.dumps(bits(atoms.calc.results)))
        """,
    )
    for package in config.packages or ():
        distribution, _, version = package.partition("==")
        assert provenance["versions"][distribution] == version


MACE = """
from ase.calculators.emt import EMT

def mace_mp(model=None):
    assert model == "medium"
    return EMT()
"""


@pytest.fixture
def stand_in() -> Path:
    """A folder with a package that uv takes for mace-torch, as its version is the highest.

    It always has the same place and content: uv keeps an environment for each that it meets.
    """
    info = "mace_torch-999.dist-info"
    files = {
        "mace/__init__.py": "",
        "mace/calculators.py": MACE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: mace-torch\nVersion: 999\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    folder = CACHE / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "mace_torch-999-py3-none-any.whl"
    new = wheel.with_suffix(f".{os.getpid()}")
    with zipfile.ZipFile(new, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    if wheel.exists() and wheel.read_bytes() == new.read_bytes():
        new.unlink()
    else:
        new.rename(wheel)
    return folder


@pytest.mark.timeout(DOWNLOADING)
def test_the_readme_of_0_1_3_works_verbatim(cli: Cli, stand_in: Path) -> None:
    registry = f"{readme_of_0_1_3.__file__}:get_spawn_configs"
    cli.broker()
    manager = cli.start("manager", "--registry", registry, UV_FIND_LINKS=str(stand_in))
    wait_for(lambda: len(cli.status()["manager"]["spawnable"]) == 2, what=manager.errors)
    _, provenance = ask(cli, "mace_mp", molecule("CH3OH"))
    assert provenance["factory"] == "mace.calculators:mace_mp"
    assert provenance["kwargs"] == {"model": "medium"}
    assert provenance["versions"]["mace-torch"] == "999"
    _, provenance = ask(cli, "lj", molecule("N2"))
    assert provenance["factory"] == "ase.calculators.lj:LennardJones"


# ------------------------------------------------------------------- the manager's environment


def test_configurations_in_python(cli: Cli) -> None:
    serve(cli, f"{EXAMPLES}/spawn.py:get_spawn_configs")
    factories = {name: ask(cli, name, molecule("N2"))[1]["factory"] for name in ("lj", "argon")}
    assert set(factories.values()) == {"ase.calculators.lj:LennardJones"}
    assert ask(cli, "copper", molecule("CO"))[1]["factory"] == "ase.calculators.emt:EMT"


def test_a_registry_without_a_word_to_the_manager(cli: Cli) -> None:
    serve(cli, f"{EXAMPLES}/calculators.toml")
    assert ask(cli, "argon", molecule("N2"))[1]["kwargs"]["sigma"] == 3.4
    assert ask(cli, "copper", molecule("CO"))[1]["factory"] == "ase.calculators.emt:EMT"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the example package, installed."""
    folder = tmp_path / "packages"
    options = ["--quiet", "--no-deps", "--python", sys.executable, "--target", str(folder)]
    example = str(EXAMPLES / "aserpc-example")
    subprocess.run([find_uv("uv"), "pip", "install", *options, example], check=True)
    return folder


def test_a_package_with_entry_points_is_served_without_a_file(cli: Cli, installed: Path) -> None:
    serve(cli, PYTHONPATH=str(installed))
    results, provenance = ask(cli, "harmonic-trap", Atoms("Ar", [[1.0, 2.0, 2.0]]))
    assert results["energy"] == 4.5
    assert provenance["factory"] == "aserpc_example.trap:HarmonicTrap"
