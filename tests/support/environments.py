"""Python environments of their own for real programs, built once and kept between runs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aserpc.settings import read_toml

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aserpc-tests"

#: Time after which an environment that no test has used is removed, s: some have gigabytes.
KEPT = 14 * 86400.0

#: Sums in several threads differ in their last bits from run to run. A PYTHONPATH would bring
#: packages of one environment into another.
ONE_THREAD = {
    **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    "OMP_NUM_THREADS": "1",
}

# Of a virtual environment's Python, the one that it was made from, so that all who share that one
# share environments, too. Debian has ensurepip, without which there is no pip, in another package.
_ABOUT = """
import ensurepip, json, os, sys
path = os.path.realpath(sys._base_executable)
print(json.dumps([path, sys.version, list(sys.version_info[:2])]))
"""


def make_environment(*packages: str, python: str = "") -> Path:
    """Return the ``bin`` folder of an environment with aserpc and packages.

    Parameters
    ----------
    packages
        What pip installs together with this aserpc.
    python
        Version of Python, as "3.11"; by default the tests' own.
    """
    executable, version = find_python(python)
    project = read_toml(ROOT / "pyproject.toml")["project"]
    what = json.dumps([executable, version, str(ROOT), project, packages])
    folder = CACHE / hashlib.sha256(what.encode()).hexdigest()[:16]
    done = folder / "complete"
    with _locked(folder):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            install = [f"{folder}/bin/pip", "install", "--quiet", "-e", str(ROOT), *packages]
            for command in ([executable, "-m", "venv", str(folder)], install):
                subprocess.run(command, check=True, env=ONE_THREAD)
        done.touch()
    _remove_unused()
    return folder / "bin"


def find_python(version: str = "") -> tuple[str, str]:
    """Return the path of a Python of a version and all that it says of its version."""
    version = version or "{}.{}".format(*sys.version_info[:2])
    folders = [Path(folder) for folder in os.get_exec_path()]
    if "PYENV_ROOT" in os.environ:
        # A shim of pyenv works only for the versions that are switched on.
        folders += sorted(Path(os.environ["PYENV_ROOT"]).glob(f"versions/{version}*/bin"))
    for path in (Path(sys.executable), *(folder / f"python{version}" for folder in folders)):
        if not path.is_file():
            continue
        done = subprocess.run(
            [path, "-c", _ABOUT], capture_output=True, text=True, check=False, env=ONE_THREAD
        )
        if done.returncode == 0:
            executable, full, numbers = json.loads(done.stdout)
            if numbers == [int(number) for number in version.split(".")]:
                return executable, full
    msg = f"this needs a Python {version} with ensurepip: put a python{version} onto the PATH"
    raise AssertionError(msg)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time make an environment."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_unused() -> None:
    for done in CACHE.glob("*/complete"):
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            if time.time() - done.stat().st_mtime > KEPT:
                done.unlink()
                shutil.rmtree(done.parent, ignore_errors=True)


def evaluate(command: Sequence[str | Path], code: str) -> Any:
    """Run code with a Python of another environment; what it prints last is JSON.

    Parameters
    ----------
    command
        What starts that Python.
    code
        May import `support.bits`.
    """
    code = f"import sys; sys.path.append({str(ROOT / 'tests')!r})\n{textwrap.dedent(code)}"
    done = subprocess.run(
        [*command, "-c", code], capture_output=True, text=True, check=False, env=ONE_THREAD
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
