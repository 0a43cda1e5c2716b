"""The benchmark's environments of other packages: kept apart, and whole or not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import environments
from benchmarks.environments import environment_with, reason
from benchmarks.processes import BenchmarkError


class Installer:
    """Takes the place of pip and uv."""

    def __init__(self) -> None:
        self.made: list[tuple[str, ...]] = []
        self.error: BaseException | None = None

    def __call__(
        self, name: str, folder: Path, requirements: Sequence[str], *, by_pip: bool
    ) -> None:
        assert not folder.exists()
        (folder / "bin").mkdir(parents=True)
        if self.error is not None:
            raise self.error
        (folder / "bin" / "python").touch()
        self.made.append(tuple(requirements))


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Installer:
    installer = Installer()
    monkeypatch.setattr(environments, "_install", installer)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return installer


def test_an_environment_is_made_once(installer: Installer) -> None:
    first = environment_with("model", ["torch==1"])
    assert environment_with("model", ["torch==1"]) == first
    assert (first / "python").exists()
    assert installer.made == [("torch==1",)]


def test_other_requirements_leave_those_of_others_alone(installer: Installer) -> None:
    ours = environment_with("model", ["torch==1"])
    theirs = environment_with("model", ["torch==2"])
    assert environment_with("model", ["torch==1"]) == ours != theirs
    assert installer.made == [("torch==1",), ("torch==2",)]


@pytest.mark.parametrize("error", [BenchmarkError("offline"), KeyboardInterrupt()])
def test_what_could_not_be_made_leaves_nothing_and_takes_nothing(
    installer: Installer, error: BaseException
) -> None:
    kept = environment_with("model", ["torch==1"])
    installer.error = error
    with pytest.raises(type(error)):
        environment_with("model", ["torch==2"])
    folders = [path for path in environments.cache_folder().iterdir() if path.is_dir()]
    assert folders == [kept.parent]
    assert environment_with("model", ["torch==1"]) == kept


def test_one_that_is_half_made_is_made_again(installer: Installer) -> None:
    half = environments.environment_folder("model", ["torch==1"])
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").touch()
    environment_with("model", ["torch==1"])
    assert installer.made == [("torch==1",)]


def test_one_whose_python_is_gone_is_made_again(installer: Installer) -> None:
    python = environment_with("model", ["torch==1"]) / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python")
    environment_with("model", ["torch==1"])
    assert installer.made == [("torch==1",)] * 2


def test_a_cache_that_cannot_be_written_is_told(
    installer: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(BenchmarkError, match=r"no environment for model: .*/proc/nowhere"):
        environment_with("model", ["torch==1"])


def test_models_need_what_aserpc_needs_and_not_aserpc() -> None:
    dependencies = environments.our_dependencies()
    assert any(one.startswith("pyzmq") for one in dependencies)
    assert not any(one.startswith(("-e", "aserpc")) for one in dependencies)


PIP = """
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError()'
  error: subprocess-exited-with-error

  × pip subprocess to install build dependencies did not run successfully.
  │ exit code: 1
  ╰─> [2 lines of output]
      ERROR: Could not find a version that satisfies the requirement hatchling
      ERROR: No matching distribution found for hatchling
      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
error: subprocess-exited-with-error

× pip subprocess to install build dependencies did not run successfully.
╰─> See above for output.

note: This error originates from a subprocess, and is likely not a problem with pip.
"""
UV = """
Using Python 3.11.7 environment at: v
error: No solution found when resolving dependencies
  cause: Because nosuch was not found and you require nosuch, it can't be done.

hint: Packages were unavailable because the network was disabled.
"""
OLDER_UV = """
  × No solution found when resolving dependencies:
  ╰─▶ Because nosuch was not found and you require nosuch, it can't be done.
"""
CANNOT = "Because nosuch was not found and you require nosuch, it can't be done."


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (PIP, "Could not find a version that satisfies the requirement hatchling"),
        (UV, f"No solution found when resolving dependencies: {CANNOT}"),
        (OLDER_UV, CANNOT),
        ("error: Failed to fetch: `x`\n  Caused by: dns error", "Failed to fetch: `x`: dns error"),
        ("Collecting nosuch\nKilled\n", "Killed"),
        ("", ""),
    ],
    ids=["pip", "uv", "older uv", "uv without a network", "another", "nothing"],
)
def test_the_line_that_says_why_is_told(said: str, why: str) -> None:
    assert reason(said) == why
