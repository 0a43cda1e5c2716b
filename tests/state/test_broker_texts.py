"""What is told for each of many fits into one header, whatever others said."""

from __future__ import annotations

from aserpc.broker.snapshot import MAX_TEXT
from aserpc.header import MAX_BROKER_HEADER_SIZE, MAX_HEADER_SIZE, pack_header
from aserpc.messages import Offer, Ping, Pong, Spawning, Status

from .builders import House, about, ready, session

LONG = "x" * (MAX_HEADER_SIZE // 2)


def test_how_a_thousand_requests_fare_is_told_in_one_header() -> None:
    house = House()
    house.worker(b"manager", Offer([["lj", 0]], {"pid": 1, "host": "h"}))
    house.worker(b"manager", Spawning("lj", ["a1"], LONG))
    for number in range(1000):
        house.ask(number, "s", "lj", b"client")
    house.mail.clear()
    house.client(Ping([[session("s"), number] for number in range(1000)]), b"client")
    (pong,) = house.take(b"client", Pong)
    assert len(pack_header(pong)) < MAX_BROKER_HEADER_SIZE / 4
    assert {entry[3] for entry in pong.known} == {LONG[:MAX_TEXT]}


def test_the_status_of_many_workers_is_told_in_one_header() -> None:
    house = House(allow_mixed=True)
    for number in range(40):
        house.worker(b"%d" % number, ready(f"lj{number}", description=about(factory=LONG)))
    status = house.status()
    assert len(pack_header(Status(1, status))) < MAX_BROKER_HEADER_SIZE / 4
    assert {len(worker["factory"]) for worker in status["processes"]} == {MAX_TEXT}
