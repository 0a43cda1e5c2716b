"""Environments of other packages, made when they are needed and kept in a cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import BenchmarkError


def cache_folder() -> Path:
    """Return where environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aserpc-benchmarks"


def environment_with(name: str, requirements: Sequence[str], *, by_pip: bool = False) -> Path:
    """Return the folder of an environment's commands, made by uv or pip if it is not there.

    Raises
    ------
    BenchmarkError
        If it can't be made, with what the tool said last.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache_folder() / f"{name}-py{version}"
    done = folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if not (done.exists() and done.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making an environment with {', '.join(requirements)}", file=sys.stderr)
        python = folder / "bin" / "python"
        uv = None if by_pip else shutil.which("uv")
        if uv is not None:
            _run(name, [uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
            _run(name, [uv, "pip", "install", "--python", str(python), *requirements])
        else:
            _run(name, [sys.executable, "-m", "venv", str(folder)])
            _run(name, [str(python), "-m", "pip", "install", *requirements])
        done.write_text(wanted)
    return folder / "bin"


def _run(name: str, command: list[str]) -> None:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise BenchmarkError(f"no environment for {name}: {' '.join(last)}")
