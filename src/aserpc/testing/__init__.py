"""For those who write a calculator, a batcher or a spawner: tests that a right one passes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aserpc.testing.batchers import BatcherContract
    from aserpc.testing.calculators import CalculatorContract
    from aserpc.testing.conformance import Conformance, Finding, Tolerances, Verdict
    from aserpc.testing.spawners import SpawnerContract
    from aserpc.testing.structures import standard_structures

__all__ = [
    "BatcherContract",
    "CalculatorContract",
    "Conformance",
    "Finding",
    "SpawnerContract",
    "Tolerances",
    "Verdict",
    "standard_structures",
]

_HOMES = {
    "BatcherContract": "aserpc.testing.batchers",
    "CalculatorContract": "aserpc.testing.calculators",
    "Conformance": "aserpc.testing.conformance",
    "Finding": "aserpc.testing.conformance",
    "SpawnerContract": "aserpc.testing.spawners",
    "Tolerances": "aserpc.testing.conformance",
    "Verdict": "aserpc.testing.conformance",
    "standard_structures": "aserpc.testing.structures",
}


def __getattr__(name: str) -> Any:
    """Import a contract when it is used: only that of spawners needs pytest."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'aserpc.testing' has no attribute {name!r}")
