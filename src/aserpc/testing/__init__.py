"""Contracts for those who write a spawner or a batcher: tests that a right one passes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aserpc.testing.batchers import BatcherContract
    from aserpc.testing.spawners import SpawnerContract

__all__ = ["BatcherContract", "SpawnerContract"]

_HOMES = {
    "BatcherContract": "aserpc.testing.batchers",
    "SpawnerContract": "aserpc.testing.spawners",
}


def __getattr__(name: str) -> Any:
    """Import a contract when it is used: a batcher's needs no pytest."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'aserpc.testing' has no attribute {name!r}")
