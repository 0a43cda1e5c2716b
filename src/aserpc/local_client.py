"""`local`: calculators served to one script, by processes of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from aserpc.client import Client, RemoteCalculator
from aserpc.errors import BrokerStoppedError, SettingsError
from aserpc.local_calculators import INSIDE, Served, configurations
from aserpc.local_service import LocalService
from aserpc.socket_folder import full_path
from aserpc.transport import ipc_path


class LocalCalculator(RemoteCalculator):
    """A calculator of `LocalClient.calculator`; fails at once when its broker has ended."""

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        _check(self.broker)
        return super()._call(*args, **kwargs)


class LocalClient(Client):
    """A `Client` with a private broker and workers, which end with it; see `local`."""

    def __init__(self, service: LocalService, **options: Any) -> None:
        self._service = service
        super().__init__(service.address, check_broker=False, **options)

    def calculator(self, name: str, **options: Any) -> RemoteCalculator:
        """Return an ASE calculator, for as long as this client is open.

        See `Client.calculator`.
        """
        return LocalCalculator(name, **self._options(options))

    def close(self) -> None:
        """Cancel what has not been answered, and end the workers."""
        super().close()
        self._service.close()

    def __enter__(self) -> LocalClient:
        return self

    def _check_open(self) -> None:
        _check(self.broker)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process it is a client of the same broker, which does not end with it.
        return _client, (self.broker, self.timeout, self.allow_nonfinite)


def _check(broker: str) -> None:
    """Raise `BrokerStoppedError` where a private broker has ended: it never comes back."""
    path = ipc_path(broker)
    if path is None:
        return
    # While it takes no more connections its socket has another name, which it may just get back.
    if not any(place.exists() for place in (path, full_path(path), path)):
        raise BrokerStoppedError(
            f"the private broker at {broker} has ended: the block of aserpc.local was left, or its "
            "client closed"
        )


def _client(broker: str, timeout: float, allow_nonfinite: bool) -> Client:
    return Client(broker, timeout, check_broker=False, allow_nonfinite=allow_nonfinite)


def local(
    calculators: Mapping[str, Served] | Iterable[str],
    workers: int | Mapping[str, int] = 1,
    *,
    timeout: float | None = None,
    allow_nonfinite: bool = False,
) -> LocalClient:
    """Start a private broker and workers, and return a client of theirs.

    ``with aserpc.local({"emt": EMT}, workers=2) as client:`` ends them with the block. They end
    with the script too, however that ends, and leave nothing behind.

    Parameters
    ----------
    calculators : dict
        What is served, by name: a class or function that makes the calculator, a
        `functools.partial` of one, ``"module:callable"``, ``"file.py:callable"``, the name of a
        registered calculator, a table with the keys of a spawn configuration, such as
        ``{"factory": ..., "kwargs": ..., "packages": ...}``, or a `SpawnConfig`. A list of
        registered names serves these.
    workers : int or dict of int
        Processes of each calculator. They share the cores.
    timeout, allow_nonfinite
        Of the client, see `Client`.

    Returns
    -------
    LocalClient
        A `Client`; ``client.calculator(name)`` is an ASE calculator. Requests wait while the
        workers make their calculators.

    Raises
    ------
    RegistryError
        If a worker could not make one of the calculators.

    Notes
    -----
    Workers import what makes a calculator. Where that is in the script itself, what the script
    does stands under ``if __name__ == "__main__":``, as with `multiprocessing`.
    """
    if os.environ.get(INSIDE):
        raise SettingsError(
            "aserpc.local was called in one of its own workers, which imports the script for its "
            'calculator; put what the script does under `if __name__ == "__main__":`'
        )
    service = LocalService(configurations(calculators, workers))
    try:
        return LocalClient(service, timeout=timeout, allow_nonfinite=allow_nonfinite)
    except BaseException:
        service.close()
        raise
