"""Messages that a connection may be too slow for, and what is said of them.

A connection is closed when nothing has arrived on it for a time, and a message has arrived when its
last byte has: libzmq's signs of life wait behind it. So one that takes longer than that never does.
"""

from __future__ import annotations

from collections.abc import Sequence

from aserpc.messages import Buffer

#: From this size on a message that does not arrive is perhaps too large for its connection, bytes.
LARGE = 1 << 20

#: What helps.
ADVICE = (
    "What takes longer than worker_timeout to arrive never does: on a slow link set a longer one "
    "for the broker, the workers and the clients (ASERPC_WORKER_TIMEOUT)"
)


def size_of(payload: Sequence[Buffer]) -> int:
    """Return the size of a message, in bytes."""
    return sum(map(len, payload))


def lost_often(calculator: str, size: int, times: int, way: str) -> str:
    """Say that a request of this size to a calculator, or its answer, is lost again and again."""
    shown = f"{size / 1e6:.3g} MB" if size >= LARGE else f"{size} bytes"
    return (
        f"the request to {calculator!r}, of {shown}, or its answer was lost {times} times on the "
        f"way {way}. {ADVICE}"
    )


def advice(size: int) -> str:
    """Say what helps a request of this size, if that may be what hinders it."""
    return f". It has {size / 1e6:.3g} MB. {ADVICE}" if size >= LARGE else ""
