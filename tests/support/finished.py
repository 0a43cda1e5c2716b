"""What ``aserpc run`` keeps of what it has finished."""

from __future__ import annotations

from pathlib import Path

from aserpc.cli.results import MAGIC, path_beside, read_payloads


def finished(output: Path) -> int:
    """Return how many structures are kept as finished, for a run with this output."""
    with path_beside(output).open("rb") as file:
        file.seek(len(MAGIC))
        return len([*read_payloads(file)])
