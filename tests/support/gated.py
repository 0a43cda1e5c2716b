"""A service whose calculations a test lets through."""

from __future__ import annotations

from pathlib import Path

from support.calculators import Gate
from support.service import Service


class Gated:
    """A service whose calculator computes while its gate is open."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.worker = service.start_worker("gate", lambda: Gate(str(folder)))

    def started(self) -> int:
        """Return how many calculations have started."""
        return len(list(self.folder.glob("started-*")))

    def open(self) -> None:
        """Let calculations through from now on."""
        (self.folder / "go").touch()

    def pending(self) -> int:
        """Return how many requests wait at the broker."""
        return sum(self.service.status()["pending_requests"].values())

    def running(self) -> int:
        """Return how many requests are with the worker."""
        return sum(self.service.status()["running_requests"].values())
