"""Which side sends what."""

from __future__ import annotations

from aserpc.messages.base import Message, Reject
from aserpc.messages.client import Ping, Pong, Reload, ShutdownRequest, Status, StatusRequest
from aserpc.messages.manager import (
    Accept,
    Demand,
    Gpus,
    Offer,
    SpawnFailed,
    Spawning,
    WorkerEnded,
)
from aserpc.messages.requests import Answer, Cancel, Request
from aserpc.messages.worker import (
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

FROM_CLIENT: tuple[type[Message], ...] = (
    Request, Cancel, Ping, StatusRequest, ShutdownRequest, Reload,
)  # fmt: skip
TO_CLIENT: tuple[type[Message], ...] = (Answer, Pong, Status, Refuse, Reject)
#: Workers and managers come in by the same socket.
FROM_WORKER: tuple[type[Message], ...] = (
    Hello, Ready, Failed, Answer, Heartbeat, Leave, Goodbye, Offer, Spawning, SpawnFailed,
    Gpus, WorkerEnded,
)  # fmt: skip
TO_MANAGER: tuple[type[Message], ...] = (
    Accept, Demand, Probe, Unknown, Welcome, Dismiss, Stopping, Reload, Refuse, Reject,
)  # fmt: skip
TO_WORKER: tuple[type[Message], ...] = (
    Welcome, Unknown, Probe, Refuse, Request, Cancel, Shutdown, Dismiss, Stay, Stopping, Reject,
)  # fmt: skip
