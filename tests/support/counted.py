"""What a served `Counted` calculator notes, so that tests see what is computed twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ase import Atoms

from support.processes import CALCULATORS

#: The calculator, to be served.
COUNTED = f"{CALCULATORS}:Counted"


def counts(folder: Path, what: str = "began") -> Counter[str]:
    """Return how often each calculation was begun, or ended."""
    file = folder / "computed"
    lines = file.read_text().splitlines() if file.exists() else []
    return Counter(token for word, token, _ in map(str.split, lines) if word == what)


def work(token: str, x: float, seconds: float) -> Atoms:
    """Return an atom, which a spring gives the energy x²/2, that is so much work."""
    return Atoms("H", [(x, 0, 0)], info={"token": token, "seconds": seconds})
