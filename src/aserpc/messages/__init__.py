"""The wire: every message, its fields, and their form as frames.

A message is a list of frames. The first is the header, a msgpack array
``[version, kind, field, field, ...]`` (see `aserpc.header`); what follows is the payload (see
`aserpc.payload`), which the broker passes on unopened. Kinds and fields are those of the
classes, in their order.

The pattern is Majordomo's (https://rfc.zeromq.org/spec/18/) with its weak points closed: each
request has an identity of its own, ``(session, id)``, by which it is answered, asked about,
cancelled and recognised when it is sent again.
"""

from __future__ import annotations

from aserpc.messages.base import (
    IDENTITY_SIZE,
    MAX_NAME_SIZE,
    MAX_RECEIVED,
    PROTOCOL_VERSION,
    Buffer,
    Message,
    Reject,
    RequestKey,
    unpack_about,
)
from aserpc.messages.client import (
    Ping,
    Pong,
    Reload,
    ShutdownRequest,
    Status,
    StatusRequest,
)
from aserpc.messages.manager import (
    Accept,
    Demand,
    Gpus,
    Offer,
    SpawnFailed,
    Spawning,
    WorkerEnded,
)
from aserpc.messages.requests import (
    FAILURES,
    Answer,
    Cancel,
    Request,
    failure,
)
from aserpc.messages.sides import (
    FROM_CLIENT,
    FROM_WORKER,
    TO_CLIENT,
    TO_MANAGER,
    TO_WORKER,
)
from aserpc.messages.worker import (
    MAX_AHEAD,
    Dismiss,
    Failed,
    Goodbye,
    Heartbeat,
    Hello,
    Leave,
    Probe,
    Ready,
    Refuse,
    Shutdown,
    Stay,
    Stopping,
    Unknown,
    Welcome,
)

__all__ = [
    "FAILURES",
    "FROM_CLIENT",
    "FROM_WORKER",
    "IDENTITY_SIZE",
    "MAX_AHEAD",
    "MAX_NAME_SIZE",
    "MAX_RECEIVED",
    "PROTOCOL_VERSION",
    "TO_CLIENT",
    "TO_MANAGER",
    "TO_WORKER",
    "Accept",
    "Answer",
    "Buffer",
    "Cancel",
    "Demand",
    "Dismiss",
    "Failed",
    "Goodbye",
    "Gpus",
    "Heartbeat",
    "Hello",
    "Leave",
    "Message",
    "Offer",
    "Ping",
    "Pong",
    "Probe",
    "Ready",
    "Refuse",
    "Reject",
    "Reload",
    "Request",
    "RequestKey",
    "Shutdown",
    "ShutdownRequest",
    "SpawnFailed",
    "Spawning",
    "Status",
    "StatusRequest",
    "Stay",
    "Stopping",
    "Unknown",
    "Welcome",
    "WorkerEnded",
    "failure",
    "unpack_about",
]
