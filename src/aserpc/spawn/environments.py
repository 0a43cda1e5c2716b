"""The environments that workers run in: what a child gets, built ahead, checked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aserpc.errors import SpawnError
from aserpc.importing import is_file, split_reference
from aserpc.messages import PROTOCOL_VERSION
from aserpc.spawn.config import GPUS, Rendered, SpawnConfig
from aserpc.spawn.own import OwnRequirement, own_command, own_requirement
from aserpc.spawn.uvx import find_call

__all__ = [
    "EnvironmentState",
    "OwnRequirement",
    "check",
    "child_environment",
    "own_requirement",
    "prepare_command",
]

#: How long a look into an environment may take, s.
CHECK_TIMEOUT = 120.0

#: What libraries, torch among them, take the number of their threads from.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

#: A worker that found these would take itself for a rank of its manager's MPI job.
_MPI = ("OMPI_", "PMIX_", "PRTE_", "ORTE_", "PMI_")

#: These tell a Python, or uv, to use the manager's environment instead of its own.
_PYTHON = (
    "VIRTUAL_ENV",
    "VIRTUAL_ENV_PROMPT",
    "PYTHONHOME",
    "PYTHONEXECUTABLE",
    "__PYVENV_LAUNCHER__",
    "UV_PROJECT_ENVIRONMENT",
    "UV_RUN_RECURSION_DEPTH",
)

# What it is asked about is the worker's first argument. The current folder is not looked into
# before aserpc is there: an aserpc.py in it would hide the package.
_PROBE = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import importlib.metadata, importlib.util, json, os
version = protocol = None
problem = ""
try:
    version = importlib.metadata.version("aserpc")
    from aserpc.messages import PROTOCOL_VERSION as protocol
    from aserpc.registry import resolve
    sys.path.append(os.getcwd())
    for target in sys.argv[1:]:
        top = target.partition(":")[0].partition(".")[0]
        if ":" not in target:
            resolve(target)
        elif importlib.util.find_spec(top) is None:
            problem = f"it has no module {top}, which the factory {target} is in"
except ImportError:
    pass
except RuntimeError as error:
    problem = str(error)
print(json.dumps([version, protocol, problem, sys.version.split()[0]]))
"""


@dataclass(frozen=True)
class EnvironmentState:
    """Whether an environment is ready, and why or why not."""

    ready: bool
    text: str


def child_environment(
    environ: Mapping[str, str], rendered: Rendered, config: SpawnConfig, cores: int
) -> dict[str, str]:
    """Return the whole environment of a worker's process.

    Parameters
    ----------
    environ
        The manager's own, ``os.environ``.
    rendered
        What the configuration adds.
    config
        The configuration.
    cores
        Cores that all workers of the calculator share.
    """
    child = {
        key: value
        for key, value in environ.items()
        if key not in _PYTHON and not key.startswith(_MPI)
    }
    if config.is_isolated and "PYTHONPATH" in child:
        child["PYTHONPATH"] = _without_packages(child["PYTHONPATH"])
    # At the end: programs of the manager's environment, uv say, are found, but hide no others. uv
    # makes environments from a Python that is in none itself: the manager's is there for sure.
    folders = [folder for folder in child.get("PATH", os.defpath).split(os.pathsep) if folder]
    own = [str(Path(sys.executable).parent), str(Path(sys.base_prefix) / "bin")]
    child["PATH"] = os.pathsep.join(dict.fromkeys([*folders, *own]))
    if GPUS in rendered.env:
        # Ids are counted as nvidia-smi does it; CUDA by itself counts the fastest first.
        child.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    child.update(rendered.env)
    # MKL and OpenBLAS follow OMP_NUM_THREADS where they have no number of their own.
    if not child.get(THREAD_VARIABLES[0]):
        share = str(max(1, cores // config.max_workers))
        child.update({key: share for key in THREAD_VARIABLES if not child.get(key)})
    return child


def _without_packages(path: str) -> str:
    """Drop another environment's packages from a PYTHONPATH: they may be of another Python."""
    folders = path.split(os.pathsep)
    packages = ("site-packages", "dist-packages")
    return os.pathsep.join(f for f in folders if not any(name in f for name in packages))


def prepare_command(config: SpawnConfig, own: OwnRequirement | None = None) -> list[str]:
    """Return the command that builds an environment ahead, by running a trifle in it.

    To be run in the `child_environment` and folder of a worker; it prints one line of JSON. With a
    command of a person's own there is nothing to build, and the list is empty.

    Raises
    ------
    SpawnError
        It can't be built: uv or the environment is missing.
    """
    return _probe_command(config, own)


def _probe_command(
    config: SpawnConfig, own: OwnRequirement | None = None, *options: str
) -> list[str]:
    command = _rendered(config, own).command
    probe = ["python", "-c", _PROBE, *_target(config)]
    if (call := find_call(command)) is not None:
        return call.command(None, *options, tool=probe)
    if config.venv is not None:
        return [str(config.venv_folder / "bin" / "python"), *probe[1:]]
    if config.kind == "own" or command[: len(own_command())] == own_command():
        return [sys.executable, *probe[1:]]
    return []


def _rendered(config: SpawnConfig, own: OwnRequirement | None = None) -> Rendered:
    return config.render(
        broker="ipc:///nowhere", spawn_id="check", gpu="0" if config.gpus else None, own=own
    )


def _target(config: SpawnConfig) -> list[str]:
    """Return what the probe is asked about; nothing for a file or where it is not known."""
    if config.command is not None:
        return []
    if config.factory is None:
        return [config.name]
    return [] if is_file(split_reference(config.factory)[0]) else [config.factory]


def check(config: SpawnConfig, own: OwnRequirement | None = None) -> EnvironmentState:
    """Say whether an environment is ready to start a worker, without network or building."""
    try:
        rendered = _rendered(config, own)
        command = _probe_command(config, own, "--offline")
    except SpawnError as error:
        return EnvironmentState(False, str(error).removeprefix(f"calculator {config.name!r}: "))
    environ = child_environment(os.environ, rendered, config, os.cpu_count() or 1)
    if not command:
        program = rendered.command[0]
        folder = rendered.cwd or os.curdir
        path = os.path.join(folder, program) if os.sep in program else program  # noqa: PTH118
        if shutil.which(path, path=environ["PATH"]) is None:
            return EnvironmentState(False, f"there is no program {program}")
        return EnvironmentState(True, f"{program} is there; its environment is its own affair")
    try:
        done = subprocess.run(  # noqa: S603 -- the configuration's own command
            command,
            env=environ,
            cwd=rendered.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CHECK_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return EnvironmentState(False, f"it did not answer within {CHECK_TIMEOUT:.0f} s")
    except OSError as error:
        return EnvironmentState(False, f"{command[0]} can't be run: {error.strerror or error}")
    if done.returncode != 0:
        return EnvironmentState(False, _why_not_built(config, done.stderr))
    return _judge(done.stdout)


def _why_not_built(config: SpawnConfig, output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if not config.is_isolated or config.kind == "venv":
        return f"its Python fails: {lines[-1] if lines else 'without a word'}"
    text = " ".join(line for line in lines if not line.startswith("hint:"))
    text = text if len(text) <= 300 else f"{text[:300]}..."
    return f"not built yet, `aserpc env build {config.name}` does it (uv, offline: {text})"


def _judge(output: str) -> EnvironmentState:
    """Return what the probe's answer means."""
    try:
        version, protocol, mistake, python = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        return EnvironmentState(False, f"it answered with {output[-200:]!r}")
    if version is None and protocol is None:
        return EnvironmentState(False, "it has no aserpc")
    if protocol != PROTOCOL_VERSION:
        spoken = "another protocol" if protocol is None else f"protocol {protocol}"
        problem = f"its aserpc {version} speaks {spoken}; ours speaks protocol {PROTOCOL_VERSION}"
        return EnvironmentState(False, problem)
    if mistake:
        return EnvironmentState(False, mistake)
    return EnvironmentState(True, f"aserpc {version}, Python {python}")
