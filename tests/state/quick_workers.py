"""Workers of short calculations, which are sent requests ahead of their answers."""

from __future__ import annotations

from aserpc.broker.records import AHEAD_TIME
from aserpc.messages import Cancel, RequestKey

from .builders import House

#: A calculation that takes so long, s, has three others sent ahead.
THREE = AHEAD_TIME / 3.5


def warm(house: House, *peers: bytes, seconds: float = THREE) -> None:
    """Have workers answer a request each, in so many seconds."""
    house.serve(*peers)
    keys = [house.ask(1000 + number, "warm") for number in range(len(peers))]
    for peer in peers:
        (key,) = house.given(peer)
        keys.remove(key)
        house.answer(peer, key, seconds=seconds)
    assert not keys
    house.answers()


def ask(house: House, count: int, first: int = 0) -> list[RequestKey]:
    return [house.ask(first + number) for number in range(count)]


def taken_back(house: House, peer: bytes) -> list[RequestKey]:
    """Take what a worker was asked to give back."""
    return [(who, number) for message in house.take(peer, Cancel) for who, number in message.keys]


def refuse(house: House, peer: bytes, *keys: RequestKey) -> None:
    for key in keys:
        house.answer(peer, key, error={"kind": "cancelled", "message": ""})
