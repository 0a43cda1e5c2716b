"""What the broker calls a peer: the link it came by, its key, and its socket's routing id.

The states take all of it for one opaque name. A routing id that somebody else claims is so another
peer, whom nobody knows.
"""

from __future__ import annotations

#: Length of a public key, in bytes.
USER_SIZE = 32

#: What a peer without a key has in its place.
NOBODY = bytes(USER_SIZE)

#: First byte of a peer on this machine, and of one that comes over a network.
_LOCAL, _REMOTE = b"\x00", b"\x01"


def local_peer(routing_id: bytes) -> bytes:
    """Name a peer that came by a socket in the private folder."""
    return _LOCAL + routing_id


def remote_peer(user: bytes, routing_id: bytes) -> bytes:
    """Name a peer that came over a network, with its public key."""
    return _REMOTE + user + routing_id


def is_remote(peer: bytes) -> bool:
    """Whether a peer came over a network: its connection may break and come back."""
    return peer[:1] == _REMOTE


def user_of(peer: bytes) -> bytes:
    """Return a peer's public key; empty for a local one, who is whoever owns the folder."""
    return peer[1 : 1 + USER_SIZE] if peer[:1] == _REMOTE else b""


def same_user(one: bytes, other: bytes) -> bool:
    """Whether two peers have the same key; the connections of a user come and go."""
    return user_of(one) == user_of(other)


def routing_id(peer: bytes) -> bytes:
    """Return the routing id of a peer's socket."""
    return peer[1 + USER_SIZE :] if peer[:1] == _REMOTE else peer[1:]
