"""Serve ASE calculators: a broker, workers in environments of their own, a remote calculator."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aserpc import errors as _errors
from aserpc.errors import *  # noqa: F403 -- every error, as errors.__all__ lists them

if TYPE_CHECKING:
    from aserpc.broker import Broker
    from aserpc.client import (
        AsyncClient,
        Client,
        RemoteCalculator,
        broker_status,
        list_calculators,
        shutdown_workers,
    )
    from aserpc.committee import CommitteeCalculator
    from aserpc.local_client import LocalClient, local
    from aserpc.manager import Manager
    from aserpc.spawn import SpawnConfig
    from aserpc.worker import Worker

__version__: str
_HOMES = {
    "AsyncClient": "aserpc.client",
    "Broker": "aserpc.broker",
    "Client": "aserpc.client",
    "CommitteeCalculator": "aserpc.committee",
    "LocalClient": "aserpc.local_client",
    "Manager": "aserpc.manager",
    "RemoteCalculator": "aserpc.client",
    "SpawnConfig": "aserpc.spawn",
    "Worker": "aserpc.worker",
    "broker_status": "aserpc.client",
    "list_calculators": "aserpc.client",
    "local": "aserpc.local_client",
    "shutdown_workers": "aserpc.client",
}

__all__ = [
    "AsyncClient",
    "Broker",
    "Client",
    "CommitteeCalculator",
    "LocalClient",
    "Manager",
    "RemoteCalculator",
    "SpawnConfig",
    "Worker",
    "__version__",
    "broker_status",
    "list_calculators",
    "local",
    "shutdown_workers",
]
__all__ += _errors.__all__


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: ASE and ZeroMQ take their time."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "parallel":
        return import_module("aserpc.parallel")
    if name == "__version__":
        return import_module("importlib.metadata").version("aserpc")
    raise AttributeError(f"module 'aserpc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
