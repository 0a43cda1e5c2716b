"""Where workers' processes run: what every spawner does, and the local one.

A spawner starts a process and tells what becomes of it. Its handles are plain JSON, so that they
outlive the manager; none of its calls waits for anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

Handle: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """A process to start.

    Attributes
    ----------
    name, spawn_id : str
        The calculator, and what ties the process to its worker.
    command : list of str
        What to run.
    env : dict
        The whole environment.
    cwd : Path
        Folder to start in.
    log : Path
        File to which its output is appended.
    """

    name: str
    spawn_id: str
    command: list[str]
    env: dict[str, str]
    cwd: Path
    log: Path


@dataclass(frozen=True)
class Status:
    """What has become of a process.

    Attributes
    ----------
    state : {"pending", "running", "exited"}
        Held by a scheduler; runs; has ended, or never started.
    why : str
        How it ended, in words.
    failed : bool
        Whether that was no orderly end.
    """

    state: Literal["pending", "running", "exited"]
    why: str = ""
    failed: bool = False


class Spawner(Protocol):
    """Starts processes, somewhere."""

    def start(self, spec: Spec) -> Handle:
        """Start a process; raise `SpawnError` if that is refused at once."""

    def poll(self, handles: Mapping[str, Handle]) -> dict[str, Status]:
        """Return the status of processes, by the keys of `handles`."""

    def stop(self, handle: Handle, *, kill: bool) -> None:
        """Ask a process and what it has started to end, or end them; it may be gone."""

    def logs(self, handle: Handle, lines: int) -> str:
        """Return the last lines of a process's output."""

    def adopt(self, handle: Handle) -> bool:
        """Take over a process that another manager started; False if it is gone."""
