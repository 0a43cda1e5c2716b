"""What a worker asks for: the entry point of the group `aserpc.calculators`."""

from __future__ import annotations

from typing import Any


def get_calculators() -> dict[str, dict[str, Any]]:
    """Return the calculators by name, without importing them."""
    return {
        "harmonic-trap": {
            "factory": "aserpc_example.trap:HarmonicTrap",
            "kwargs": {"stiffness": 1.0},
        },
    }
