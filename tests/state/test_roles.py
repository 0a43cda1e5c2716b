"""What a key of each role may say."""

from __future__ import annotations

import pytest

from aserpc.messages import FROM_CLIENT, FROM_WORKER, Message
from aserpc.security.roles import (
    ANYBODY,
    MAY_CONNECT,
    MAY_SEND,
    ROLES,
    STANDS_IN,
    refusal,
)

KINDS = dict.fromkeys((*FROM_CLIENT, *FROM_WORKER))
NAMES = {kind.__name__: kind for kind in KINDS}

CLIENTS = {"Request", "Cancel", "Ping", "StatusRequest"}
ADMINS = {*CLIENTS, "ShutdownRequest", "Reload"}
WORKERS = {"Hello", "Ready", "Failed", "Answer", "Heartbeat", "Leave", "Goodbye"}
MANAGERS = {*WORKERS, "Offer", "Spawning", "SpawnFailed", "Gpus", "WorkerEnded"}
ALLOWED = {
    "broker": set[str](),
    "client": CLIENTS,
    "worker": WORKERS,
    "manager": MANAGERS,
    "admin": ADMINS,
    ANYBODY: {*CLIENTS, *MANAGERS},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_may_send_what_the_table_says_and_nothing_else(role: str, name: str) -> None:
    reason = refusal(role, NAMES[name])
    assert (reason is None) is (name in ALLOWED[role])
    if reason is not None:
        needed = reason.rpartition(" ")[2].strip("'")
        assert name in ALLOWED[needed], "it names a role that may"


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_can_be_sent_by_some_role(kind: type[Message]) -> None:
    assert any(kind in MAY_SEND[role] for role in ROLES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_is_not_allowed_may_say_nothing(kind: type[Message]) -> None:
    assert refusal(None, kind)


def test_without_a_key_nobody_shuts_workers_down() -> None:
    reason = refusal(ANYBODY, NAMES["ShutdownRequest"])
    assert reason is not None
    assert "without a key" in reason
    assert "'admin'" in reason


@pytest.mark.parametrize("role", STANDS_IN)
def test_a_key_that_stands_in_for_a_role_may_say_what_that_may(role: str) -> None:
    assert all(MAY_SEND[role] <= MAY_SEND[other] for other in STANDS_IN[role])


def test_a_role_connects_to_the_socket_that_its_messages_go_to() -> None:
    for side, kinds in (("frontend", FROM_CLIENT), ("backend", FROM_WORKER)):
        assert MAY_CONNECT[side] == {role for role in ROLES if MAY_SEND[role] & {*kinds}}
