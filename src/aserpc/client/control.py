"""Questions to the broker itself: what it serves, how it fares, and shutting workers down."""

from __future__ import annotations

import itertools
from typing import Any

from aserpc import transport
from aserpc.client.arguments import positive
from aserpc.client.blocking import borrowed
from aserpc.errors import ProtocolError
from aserpc.messages import Reload, ShutdownRequest, Status, StatusRequest
from aserpc.settings import load_settings

_numbers = itertools.count(1)


def broker_status(broker: str | None = None, timeout: float = 5000) -> dict[str, Any]:
    """Return how a broker fares.

    Parameters
    ----------
    broker : str, optional
        The broker's frontend address; from the settings by default.
    timeout : float
        Milliseconds to wait for the answer.

    Returns
    -------
    dict
        ``workers`` ({name: {"total", "idle", "busy", "loading"}}), ``pending_requests``
        ({name: number}), ``running_requests``, ``processes`` (one entry a worker, with its
        ``gpus``), ``manager``, ``managers`` (one entry each; ``gpus`` says who has which),
        ``tables`` ({what: number} of all that the broker keeps).

    Raises
    ------
    BrokerUnreachableError
        (a `ConnectionError`) If no broker answers in time.
    ValueError
        If `timeout` is no positive number.
    """
    return _ask(StatusRequest(next(_numbers)), broker, timeout, workers=dict)


def list_calculators(broker: str | None = None, timeout: float = 5000) -> dict[str, int]:
    """Return the calculators that a broker serves: {name: number of workers}.

    The parameters and errors are those of `broker_status`.
    """
    workers = broker_status(broker, timeout)["workers"]
    try:
        return {name: int(counts["total"]) for name, counts in workers.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ProtocolError("the broker's status does not count its workers") from None


def shutdown_workers(
    calc_name: str | None, broker: str | None = None, timeout: float = 5000
) -> int:
    """Have the workers of a calculator, or all (None), finish what they compute and end.

    The other parameters and errors are those of `broker_status`.

    Returns
    -------
    int
        How many workers were told.
    """
    message = ShutdownRequest(next(_numbers), calc_name)
    return int(_ask(message, broker, timeout, workers=int)["workers"])


def reload_managers(broker: str | None = None, timeout: float = 5000) -> int:
    """Have the managers load their configurations again; return how many were told.

    The parameters and errors are those of `broker_status`.
    """
    return int(_ask(Reload(next(_numbers)), broker, timeout, managers=int)["managers"])


def _ask(
    message: StatusRequest | ShutdownRequest | Reload,
    broker: str | None,
    timeout: float,
    **expected: type,
) -> dict[str, Any]:
    """Ask the broker; its answer holds values of these types."""
    settings = load_settings({"ipc_frontend": broker}, labels={"ipc_frontend": "broker"})
    seconds = positive("timeout", timeout) / 1000
    role = "client" if isinstance(message, StatusRequest) else "admin"
    with borrowed(transport.check_address(settings.ipc_frontend), role) as channel:
        status = channel.exchange(message, Status, seconds).status
    if not all(isinstance(status.get(name), kind) for name, kind in expected.items()):
        raise ProtocolError(f"the broker's status lacks {', '.join(expected)}")
    return status
