"""The client: calculators, futures, questions to a broker, and the errors that they raise."""

from aserpc import errors as _errors
from aserpc.client.aio import AsyncClient
from aserpc.client.calculator import RemoteCalculator
from aserpc.client.control import broker_status, list_calculators, shutdown_workers
from aserpc.client.futures import Client
from aserpc.client.submission import Results
from aserpc.errors import *  # noqa: F403 -- every error, as errors.__all__ lists them

__all__ = [
    "AsyncClient",
    "Client",
    "RemoteCalculator",
    "Results",
    "broker_status",
    "list_calculators",
    "shutdown_workers",
]
__all__ += _errors.__all__
