"""Environments of their own for real programs, built once and kept between runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aserpc-tests"


@pytest.fixture(scope="session")
def environment() -> Callable[..., Path]:
    """Return a function that makes an environment with aserpc and packages: its ``bin`` folder."""
    return make_environment


def make_environment(*packages: str) -> Path:
    what = (sys.version, str(REPOSITORY), (REPOSITORY / "pyproject.toml").read_text(), packages)
    folder = CACHE / hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    done = folder / "complete"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install: list[str | Path] = [
            folder / "bin" / "pip",
            "install",
            "--quiet",
            "-e",
            REPOSITORY,
            *packages,
        ]
        subprocess.run(install, check=True)
        done.touch()
    return folder / "bin"
