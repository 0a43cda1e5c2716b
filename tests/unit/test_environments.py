"""What workers' processes get, and environments that are ready or not."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aserpc.messages import PROTOCOL_VERSION
from aserpc.spawn import SpawnConfig
from aserpc.spawn.environments import check, child_environment, prepare_command
from aserpc.spawn.own import own_requirement
from aserpc.spawn.uvx import find_call

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
REPOSITORY = Path(__file__).parents[2]
OWN = f"{Path(sys.executable).parent}:{sys.base_prefix}/bin"


def child(
    config: SpawnConfig, environ: dict[str, str], cores: int = 8, gpu: str | None = None
) -> dict[str, str]:
    rendered = config.render(broker="ipc:///b", spawn_id="i", gpu=gpu)
    return child_environment(environ, rendered, config, cores)


# ----------------------------------------------------------------------- a child's environment


@pytest.mark.parametrize(("workers", "threads"), [(1, "8"), (2, "4"), (3, "2"), (20, "1")])
def test_threads_are_shared(workers: int, threads: str) -> None:
    found = child(SpawnConfig("n", ["c"], max_workers=workers), {})
    assert [found[key] for key in THREADS] == [threads] * 3


def test_threads_that_are_set_stay() -> None:
    config = SpawnConfig("n", ["c"], {"MKL_NUM_THREADS": "3"}, max_workers=2)
    found = child(config, {"OPENBLAS_NUM_THREADS": "5"})
    assert [found[key] for key in THREADS] == ["4", "3", "5"]


@pytest.mark.parametrize("where", ["environ", "config"])
def test_the_others_follow_omp_where_that_is_set(where: str) -> None:
    variables = {"OMP_NUM_THREADS": "1"}
    config = SpawnConfig("n", ["c"], variables if where == "config" else None)
    found = child(config, variables if where == "environ" else {})
    assert [found.get(key) for key in THREADS] == ["1", None, None]


def test_variables_of_mpi_and_of_the_managers_python_are_not_passed_on() -> None:
    dropped = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PRTE_X", "ORTE_X", "PMI_RANK"]
    dropped += ["VIRTUAL_ENV", "PYTHONHOME", "__PYVENV_LAUNCHER__"]
    kept = ["HOME", "CONDA_PREFIX", "UV_INDEX", "HF_TOKEN", "PMIND"]
    found = child(SpawnConfig("n", ["c"]), dict.fromkeys([*dropped, *kept], "x"))
    assert set(kept) <= set(found)
    assert not set(dropped) & set(found)


def test_what_the_configuration_says_comes_last() -> None:
    config = SpawnConfig("n", ["c"], {"OMPI_MCA_btl": "self", "HOME": "/h"})
    found = child(config, {"OMPI_MCA_btl": "tcp", "HOME": "/root", "ASERPC_IPC_BACKEND": "x"})
    assert (found["OMPI_MCA_btl"], found["HOME"]) == ("self", "/h")
    assert found["ASERPC_IPC_BACKEND"] == "ipc:///b"


def test_programs_beside_the_manager_and_its_python_are_found_last() -> None:
    path = f"/a:/b:{OWN}"
    assert child(SpawnConfig("n", ["c"]), {"PATH": "/a:/b"})["PATH"] == path
    assert child(SpawnConfig("n", ["c"]), {"PATH": path})["PATH"] == path


def test_packages_of_another_python_are_kept_out_of_environments_of_their_own() -> None:
    environ = {"PYTHONPATH": "/mine:/apps/lib/python3.10/site-packages"}
    own = child(SpawnConfig("n"), environ)
    isolated = child(SpawnConfig("n", packages=[]), environ)
    assert own["PYTHONPATH"] == environ["PYTHONPATH"]
    assert isolated["PYTHONPATH"] == "/mine"


def test_gpus_are_counted_as_nvidia_smi_does() -> None:
    config = SpawnConfig("n", ["c"], gpus=1)
    found = child(config, {"CUDA_VISIBLE_DEVICES": "0,1,2"}, gpu="2")
    assert (found["CUDA_VISIBLE_DEVICES"], found["CUDA_DEVICE_ORDER"]) == ("2", "PCI_BUS_ID")
    assert "CUDA_DEVICE_ORDER" not in child(SpawnConfig("n", ["c"]), {})


# --------------------------------------------------------------------------- ready or not ready


def test_our_own_environment_is_ready() -> None:
    for config in (SpawnConfig("EMT"), SpawnConfig("n", ["aserpc", "worker", "EMT"])):
        state = check(config)
        assert state.ready, state
        assert state.text.startswith("aserpc ")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (SpawnConfig("n", factory="no_such.module:f"), "it has no module no_such"),
        (SpawnConfig("nosuch"), "no calculator 'nosuch' installed; there are "),
        (SpawnConfig("n", ["no-such-program"]), "there is no program no-such-program"),
        (SpawnConfig("n", ["./no-such"]), "there is no program ./no-such"),
        (SpawnConfig("n", venv="/no/such"), "its venv /no/such is no folder"),
        (SpawnConfig("n", ["c"], cwd="/no/such"), "its cwd /no/such is no folder"),
    ],
)
def test_why_an_environment_is_not_ready(config: SpawnConfig, problem: str) -> None:
    state = check(config)
    assert not state.ready
    assert state.text.startswith(problem)


def test_a_command_of_its_own_is_its_own_affair(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    config = SpawnConfig("n", ["./run.sh"], cwd=str(tmp_path))
    assert check(config).text == "./run.sh is there; its environment is its own affair"
    assert prepare_command(config) == []


def test_a_file_that_hides_the_package_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "aserpc.py").write_text("raise SystemExit(1)")
    (tmp_path / "mine.py").touch()
    config = SpawnConfig("n", factory="mine:f", cwd=str(tmp_path))
    assert check(config).ready, check(config)


def a_venv(folder: Path, package: str = "") -> str:
    """Make what looks like a virtual environment, whose Python finds only `package`."""
    binaries = folder / "env" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "aserpc").touch()
    library = folder / "library"
    library.mkdir()
    if package:
        (library / "aserpc").mkdir()
        (library / "aserpc/__init__.py").touch()
        (library / "aserpc/registry.py").write_text("def resolve(name): pass\n")
        (library / "aserpc/messages.py").write_text(package)
        (library / "aserpc-7.dist-info").mkdir()
        (library / "aserpc-7.dist-info/METADATA").write_text("Name: aserpc\nVersion: 7\n")
    python = binaries / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={library} exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    return str(folder / "env")


@pytest.mark.parametrize(
    ("package", "text"),
    [
        ("", "it has no aserpc"),
        ("# nothing", "its aserpc 7 speaks another protocol; ours speaks protocol "),
        ("PROTOCOL_VERSION = 77", "its aserpc 7 speaks protocol 77; ours speaks protocol "),
        ("boom(", "its Python fails: SyntaxError"),
    ],
)
def test_a_venv_with_another_aserpc(package: str, text: str, tmp_path: Path) -> None:
    state = check(SpawnConfig("n", venv=a_venv(tmp_path, package)))
    assert not state.ready
    assert state.text.startswith(text)


def test_a_venv_with_another_version_of_the_same_protocol(tmp_path: Path) -> None:
    venv = a_venv(tmp_path, f"PROTOCOL_VERSION = {PROTOCOL_VERSION}")
    state = check(SpawnConfig("n", venv=venv))
    assert state.ready
    assert state.text.startswith("aserpc 7, Python 3.")


# ------------------------------------------------------------------------------- with the real uv


@pytest.fixture
def local_package(tmp_path: Path) -> Path:
    """A package with a factory, which no index has."""
    folder = tmp_path / "calc"
    (folder / "localcalc").mkdir(parents=True)
    (folder / "localcalc/__init__.py").write_text("from ase.calculators.emt import EMT\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "localcalc"\nversion = "1.0"\n'
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("by_hand", [False, True])
def test_uvx_runs_our_own_aserpc_beside_the_package(local_package: Path, by_hand: bool) -> None:
    config = SpawnConfig("n", packages=[str(local_package)], factory="localcalc:EMT")
    if by_hand:
        config = SpawnConfig("n", config.render_command())
    rendered = config.render(broker="ipc:///b", spawn_id="i")
    environ = child_environment(os.environ, rendered, config, 1)
    built = subprocess.run(
        prepare_command(config), env=environ, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout.splitlines()[-1])[1:3] == [PROTOCOL_VERSION, ""]
    state = check(config)
    assert state.ready, state

    call = find_call(rendered.command)
    assert call is not None
    asked = call.command(None, tool=["python", "-c", "import aserpc; print(aserpc.__file__)"])
    where = subprocess.run(asked, env=environ, capture_output=True, text=True, check=True).stdout
    if own_requirement().is_tree:
        assert where.strip() == str(REPOSITORY / "src/aserpc/__init__.py")


@pytest.mark.slow
def test_uvx_says_what_is_not_built() -> None:
    config = SpawnConfig("n", packages=["tblite==0.0.1.dev7"], factory="tblite.ase:TBLite")
    state = check(config)
    assert not state.ready
    assert state.text.startswith("not built yet, `aserpc env build n` does it (uv, offline: error")
    assert "tblite" in state.text


def test_without_uv_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    config = SpawnConfig("n", packages=["tblite"])
    assert check(config).text.startswith("uvx is not installed; `pip install uv`")
    by_hand = dataclasses.replace(config, packages=None, command=["uvx", "aserpc", "worker", "n"])
    assert check(by_hand).text == check(config).text
