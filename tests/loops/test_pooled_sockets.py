"""What the last user of a pooled socket has left in it misleads nobody."""

from __future__ import annotations

import pytest

from aserpc import transport
from aserpc.client.blocking import borrowed, check_broker
from aserpc.errors import BrokerUnreachableError
from aserpc.header import pack_header
from aserpc.messages import Ping
from support.peers import FakeBroker
from support.waiting import SOON


def test_an_old_answer_does_not_stand_for_a_broker_that_is_gone(fake: FakeBroker) -> None:
    with borrowed(fake.address) as channel:
        transport.send(channel.socket, [pack_header(Ping())])
        assert channel.socket.poll(int(SOON * 1000)), "the answer is there, and nobody reads it"
    fake.close()
    with borrowed(fake.address) as again:
        assert again is channel
    with pytest.raises(BrokerUnreachableError):
        check_broker(fake.address, 0.3)


def test_a_broker_is_found_behind_an_old_answer(fake: FakeBroker) -> None:
    with borrowed(fake.address) as channel:
        transport.send(channel.socket, [pack_header(Ping())])
        assert channel.socket.poll(int(SOON * 1000))
    check_broker(fake.address, SOON)
