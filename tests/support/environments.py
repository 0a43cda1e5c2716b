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

#: Sums in several threads differ in their last bits from run to run. Without a PYTHONPATH, as it
#: would make an environment's packages of those of another one.
ONE_THREAD = {
    **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    "OMP_NUM_THREADS": "1",
}

_ABOUT = "import ensurepip, sys; print(sys.version_info[:2] == {}, sys.executable, sys.version)"


def make_environment(*packages: str, python: str = "") -> Path:
    """Return the ``bin`` folder of an environment with aserpc and packages.

    Parameters
    ----------
    packages
        What pip installs together with this aserpc.
    python
        Version of Python, as "3.11"; by default the tests' own.
    """
    about = find_python(python)
    project = read_toml(ROOT / "pyproject.toml")["project"]
    what = (about, str(ROOT), json.dumps(project), packages)
    folder = CACHE / hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    done = folder / "complete"
    with _locked(folder):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            executable = about.split()[1]
            install = [f"{folder}/bin/pip", "install", "--quiet", "-e", str(ROOT), *packages]
            for command in ([executable, "-m", "venv", str(folder)], install):
                subprocess.run(command, check=True, env=ONE_THREAD)
        done.touch()
    _remove_unused()
    return folder / "bin"


def find_python(version: str = "") -> str:
    """Return what a Python of a version tells about itself, its path the second word.

    It is one with ensurepip: Debian has that in a package of its own.
    """
    own = "{}.{}".format(*sys.version_info[:2])
    folders = [Path(folder) for folder in os.get_exec_path()]
    if "PYENV_ROOT" in os.environ:
        # A shim of pyenv works only for the versions that are switched on.
        folders += sorted(Path(os.environ["PYENV_ROOT"]).glob(f"versions/{version}*/bin"))
    paths = [folder / f"python{version}" for folder in folders]
    if version in ("", own):
        version = own
        paths.insert(0, Path(sys.executable))
    code = _ABOUT.format(tuple(int(part) for part in version.split(".")))
    for path in paths:
        if not path.is_file():
            continue
        done = subprocess.run(
            [path, "-c", code], capture_output=True, text=True, check=False, env=ONE_THREAD
        )
        if done.returncode == 0 and done.stdout.startswith("True "):
            return done.stdout.strip()
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
