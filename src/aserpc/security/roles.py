"""What a key of each role may say to the broker."""

from __future__ import annotations

from aserpc.messages import (
    Answer,
    Cancel,
    Failed,
    Goodbye,
    Gpus,
    Heartbeat,
    Hello,
    Leave,
    Message,
    Offer,
    Ping,
    Ready,
    Reload,
    Request,
    ShutdownRequest,
    SpawnFailed,
    Spawning,
    StatusRequest,
    WorkerEnded,
)

#: Whoever comes over a network to a broker that was started without keys.
ANYBODY = "anybody"

_CLIENT = frozenset({Request, Cancel, Ping, StatusRequest})
_WORKER = frozenset({Hello, Ready, Failed, Answer, Heartbeat, Leave, Goodbye})
#: A manager's key serves its workers too: who starts them can read and be them.
_MANAGER = _WORKER | {Offer, Spawning, SpawnFailed, Gpus, WorkerEnded}
_ADMIN = _CLIENT | {ShutdownRequest, Reload}

#: The messages that each role may send. A broker's key is its own, and allows nothing.
MAY_SEND: dict[str, frozenset[type[Message]]] = {
    "broker": frozenset(),
    "client": _CLIENT,
    "worker": _WORKER,
    "manager": _MANAGER,
    "admin": _ADMIN,
    ANYBODY: _CLIENT | _MANAGER,
}

#: The roles that keys are made for.
ROLES = tuple(role for role in MAY_SEND if role != ANYBODY)

#: Whose connections each of the broker's sockets takes.
MAY_CONNECT = {
    "frontend": frozenset({"client", "admin"}),
    "backend": frozenset({"worker", "manager"}),
}

#: Whose keys each role may use, the first that is there.
STANDS_IN = {
    "client": ("client", "admin"),
    "worker": ("worker", "manager"),
    "manager": ("manager",),
    "admin": ("admin",),
}

_WHAT: dict[str, tuple[frozenset[type[Message]], str]] = {
    "client": (_CLIENT, "ask for calculations"),
    "worker": (_WORKER, "serve calculators"),
    "manager": (_MANAGER, "start workers"),
    "admin": (_ADMIN, "shut workers down or have managers load again"),
}


def refusal(role: str | None, kind: type[Message]) -> str | None:
    """Say why a message of this kind is refused to a role; None: it may be sent.

    Parameters
    ----------
    role
        Of the key by which the message came; None if that is not allowed, or no longer.
    kind
        Class of the message.
    """
    if role is None:
        return "its key is not allowed any more"
    if kind in MAY_SEND[role]:
        return None
    needed, what = next((r, what) for r, (kinds, what) in _WHAT.items() if kind in kinds)
    who = "who comes without a key" if role == ANYBODY else f"a key of the role {role!r}"
    return f"{who} may not {what}; that takes a key of the role {needed!r}"
