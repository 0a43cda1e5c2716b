"""Environments of other packages, made when they are needed and kept in a cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.processes import ROOT, BenchmarkError, whole_run

#: How the line begins that says why it failed, the best first: pip's, and uv's.
REASONS = ("ERROR:", "error:", "╰─▶")

#: How a line of uv's begins that says more of the one before.
CAUSE = re.compile("(?:cause|Caused by): ")

#: pip's line about what another pip says.
NO_REASON = "error: subprocess-exited-with-error"


def cache_folder() -> Path:
    """Return where environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aserpc-benchmarks"


def our_dependencies() -> list[str]:
    """Return what aserpc needs, as this checkout says."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [str(requirement) for requirement in project["dependencies"]]


def environment_folder(name: str, requirements: Sequence[str]) -> Path:
    """Return the folder of an environment: one for each Python and set of requirements.

    So nobody, offline or of another checkout, replaces what somebody else uses.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()[:8]
    return cache_folder() / f"{name}-py{version}-{digest}"


def environment_with(name: str, requirements: Sequence[str], *, by_pip: bool = False) -> Path:
    """Return the folder of an environment's commands, made by uv or pip if it is not there.

    Raises
    ------
    BenchmarkError
        If it can't be made, with what the tool said.
    """
    folder = environment_folder(name, requirements)
    try:
        if not _is_complete(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone():
                if not _is_complete(folder):  # nobody has made it meanwhile
                    _make(name, folder, requirements, by_pip=by_pip)
    except OSError as error:
        raise BenchmarkError(f"no environment for {name}: {error}") from None
    return folder / "bin"


def _is_complete(folder: Path) -> bool:
    # The Python is a link to one that may have been removed.
    return (folder / "requirements.txt").exists() and (folder / "bin" / "python").exists()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let only one at a time make an environment."""
    with (cache_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(name: str, folder: Path, requirements: Sequence[str], *, by_pip: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what somebody left who was killed
    print(f"making {folder} with {', '.join(requirements)}", file=sys.stderr)
    try:
        _install(name, folder, requirements, by_pip=by_pip)
        (folder / "requirements.txt").write_text("\n".join(requirements))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _install(name: str, folder: Path, requirements: Sequence[str], *, by_pip: bool) -> None:
    python = str(folder / "bin" / "python")
    uv = None if by_pip else shutil.which("uv")
    if uv is not None:
        _run(name, [uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
        _run(name, [uv, "pip", "install", "--python", python, *requirements])
    else:
        _run(name, [sys.executable, "-m", "venv", str(folder)])
        _run(name, [python, "-m", "pip", "install", *requirements])


def _run(name: str, command: list[str]) -> None:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = whole_run(command, env, errors=subprocess.STDOUT)
    if done.returncode:
        why = reason(done.stdout) or f"{command[0]}: exit status {done.returncode}"
        raise BenchmarkError(f"no environment for {name}: {why}")


def reason(said: str) -> str:
    """Return what pip or uv said that tells why it failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for start in REASONS:
        for line, after in zip(lines, [*lines, ""][1:], strict=True):
            if line.startswith(start) and line != NO_REASON:
                why = line.removeprefix(start).strip()
                return CAUSE.sub(f"{why}: ", after) if CAUSE.match(after) else why
    return lines[-1] if lines else ""
