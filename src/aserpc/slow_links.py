"""Messages that a connection may be too slow for, and what is said of them.

libzmq closes a worker's connection when nothing has arrived on it for `worker_timeout`. A message
has arrived when its last byte has, and signs of life wait behind it: one that takes longer never
does. A client's connection is watched by the kernel alone, so its limit is the client's timeout.
"""

from __future__ import annotations

from collections.abc import Sequence

from aserpc.messages import Buffer

#: From this size on a message that does not arrive is perhaps too large for its connection, bytes.
LARGE = 1 << 20


def size_of(payload: Sequence[Buffer]) -> int:
    """Return the size of a message, in bytes."""
    return sum(map(len, payload))


def lost_often(calculator: str, size: int, times: int, way: str) -> str:
    """Say that a request of this size to a calculator, or its answer, is lost again and again."""
    shown = f"{size / 1e6:.3g} MB" if size >= LARGE else f"{size} bytes"
    return (
        f"the request to {calculator!r}, of {shown}, or its answer was lost {times} times on the "
        f"way {way}"
    )


def lost_at_workers(calculator: str, size: int, times: int) -> str:
    """Say the same of the way between the broker and workers, and what helps."""
    lost = lost_often(calculator, size, times, "between the broker and its workers")
    return (
        f"{lost}. What takes longer than worker_timeout to arrive never does: on a slow link set a "
        "longer one for the broker (ASERPC_WORKER_TIMEOUT)"
    )


def advice(size: int) -> str:
    """Say what helps a request of this size, if that may be what hinders it."""
    if size < LARGE:
        return ""
    return (
        f". It has {size / 1e6:.3g} MB: on a slow link set a longer timeout for the client "
        "(ASERPC_CLIENT_TIMEOUT_MS)"
    )
