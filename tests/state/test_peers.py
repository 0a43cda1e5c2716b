"""How the broker names its peers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aserpc.broker.peers import (
    USER_SIZE,
    is_remote,
    local_peer,
    remote_peer,
    routing_id,
    user_of,
)

ids = st.binary(min_size=1, max_size=255)
users = st.binary(min_size=USER_SIZE, max_size=USER_SIZE)


@given(ids)
def test_a_local_peer_has_its_routing_id_and_no_key(identity: bytes) -> None:
    peer = local_peer(identity)
    assert routing_id(peer) == identity
    assert not is_remote(peer)
    assert user_of(peer) == b""


@given(users, ids)
def test_a_remote_peer_has_its_routing_id_and_its_key(user: bytes, identity: bytes) -> None:
    peer = remote_peer(user, identity)
    assert routing_id(peer) == identity
    assert is_remote(peer)
    assert user_of(peer) == user


@given(users, users, ids)
def test_one_routing_id_claimed_by_several_is_several_peers(
    alice: bytes, bob: bytes, identity: bytes
) -> None:
    names = {local_peer(identity), remote_peer(alice, identity), remote_peer(bob, identity)}
    assert len(names) == (2 if alice == bob else 3)
