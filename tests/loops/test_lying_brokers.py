"""Brokers whose messages are right in form and say what can't be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from aserpc import Client, RemoteCalculator, broker_status, list_calculators, shutdown_workers
from aserpc.client.control import reload_managers
from aserpc.errors import ProtocolError
from aserpc.header import pack_header, unpack_header
from aserpc.messages import FROM_CLIENT, Answer, Message, Request, Status
from support.asking import atom
from support.hostile import HostileBroker
from support.peers import ABOUT, FakeBroker
from support.waiting import InThread


@pytest.fixture
def liar(socket_folder: Path, leaves_nothing: None) -> Iterator[HostileBroker]:
    """A broker that answers as the test says."""
    broker = HostileBroker(f"ipc://{socket_folder}/frontend.ipc")
    yield broker
    broker.close()


def answer(liar: HostileBroker, results: object, about: bytes = ABOUT) -> None:
    """Answer the next request."""
    peer, frames = liar.receive()
    message = unpack_header(frames[0], FROM_CLIENT)
    assert isinstance(message, Request)
    payload = bytes(4) + msgpack.packb(results)
    liar.send(peer, pack_header(Answer(*message.key, about=about)), payload)


ODD: dict[str, tuple[object, bytes]] = {
    "lacks energy": ({"forces": 1.0}, ABOUT),
    "lacks": ({}, ABOUT),
    "results are a dict": ([1, 2], ABOUT),
    "a msgpack map": ({"energy": 1.0}, b"\xc1"),
    "are names": ({"energy": 1.0}, msgpack.packb({"implemented_properties": {"a": 1}})),
}


@pytest.mark.parametrize("told", ODD)
def test_answers_that_can_t_be_are_a_protocol_error(liar: HostileBroker, told: str) -> None:
    calculator = RemoteCalculator("it", liar.address, check_broker=False, timeout=20_000)
    call = InThread(lambda: calculator.get_property("energy", atom(1)) and calculator.provenance)
    answer(liar, *ODD[told])
    with pytest.raises(ProtocolError, match=told):
        call.result()
    again = InThread(lambda: calculator.get_property("energy", atom(2)))
    answer(liar, {"energy": 2.0})
    assert again.result() == 2.0, "nothing of it is kept"
    with Client(liar.address, 20_000, check_broker=False) as client:
        future = client.submit("it", atom(1), ["energy"])
        answer(liar, *ODD[told])
        with pytest.raises(ProtocolError, match=told):
            assert future.result(20).provenance


QUESTIONS: list[Callable[[str], Any]] = [
    list_calculators,
    broker_status,
    lambda address: shutdown_workers(None, address),
    reload_managers,
]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    "status", [{}, {"workers": None}, {"workers": [1]}, {"managers": "many"}], ids=str
)
def test_a_status_that_lacks_everything_is_a_protocol_error(
    fake: FakeBroker, question: Callable[[str], Any], status: dict[str, Any]
) -> None:
    def reply(message: Message) -> list[Message]:
        return [Status(getattr(message, "id", 0), status)]

    fake.reply = reply
    with pytest.raises(ProtocolError, match="the broker's status lacks"):
        question(fake.address)


@pytest.mark.parametrize("counts", [7, {}, {"total": "many"}, {"total": None}], ids=str)
def test_a_status_that_counts_nothing_is_a_protocol_error(fake: FakeBroker, counts: object) -> None:
    fake.reply = lambda message: [Status(getattr(message, "id", 0), {"workers": {"emt": counts}})]
    with pytest.raises(ProtocolError, match="does not count"):
        list_calculators(fake.address)
