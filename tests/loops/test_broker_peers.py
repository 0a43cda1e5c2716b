"""The broker survives what peers send, and keeps what they read slowly."""

from __future__ import annotations

import dataclasses
import logging
import random
import time
from collections.abc import Callable, Iterator

import msgpack
import pytest
from ase import Atoms

from aserpc import Broker, transport
from aserpc.broker import outbox
from aserpc.header import pack_header
from aserpc.messages import (
    FROM_CLIENT,
    FROM_WORKER,
    PROTOCOL_VERSION,
    Answer,
    Message,
    Ping,
    Probe,
    Ready,
    Reject,
    Request,
    Unknown,
    Welcome,
)
from support.calculators import Spring
from support.peers import ABOUT, FakeClient, FakeWorker, Peer
from support.service import Service
from support.waiting import wait_for


@pytest.fixture
def broker(service: Service) -> Broker:
    """A broker."""
    return service.start_broker(worker_timeout=30.0)


def serves(service: Service) -> bool:
    """Whether a real worker's answer still reaches a real client."""
    if not service.ready("spring"):
        service.start_worker("spring", Spring)
    atoms = Atoms("H", [(2, 0, 0)], calculator=service.calculator("spring"))
    return bool(atoms.get_potential_energy() == 2)


# ---- slow readers --------------------------------------------------------------------------------

MANY = 20_000


@pytest.fixture
def slow(service: Service, broker: Broker) -> Iterator[FakeClient]:
    """A client that has asked for 20,000 answers and has read none of them."""
    with FakeWorker(service.backend) as worker, FakeClient(service.frontend, 1) as client:
        worker.ready("it")
        for _ in range(MANY):
            client.ask("it", op="describe")
        yield client


def test_a_slow_reader_gets_every_answer(slow: FakeClient, service: Service) -> None:
    with FakeClient(service.frontend) as other:
        started = time.monotonic()
        other.ping()
        assert time.monotonic() - started < 5, "others are served meanwhile"
    answers = [slow.receive(Answer) for _ in range(MANY)]
    assert [answer.id for answer in answers] == list(range(1, MANY + 1))


def test_a_slow_reader_does_not_hold_up_the_end(
    slow: FakeClient, service: Service, broker: Broker
) -> None:
    started = time.monotonic()
    service.stop(broker)
    assert time.monotonic() - started < 8


def test_what_a_reader_leaves_behind_is_forgotten(
    slow: FakeClient, service: Service, broker: Broker
) -> None:
    slow.ping  # noqa: B018 -- it is there
    slow.close()
    wait_for(lambda: not broker._outbox.waiting)
    assert broker._outbox.size == 0
    assert serves(service)


MIB = 1 << 20


def test_large_answers_wait_until_their_client_has_those_before(
    service: Service, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PEER_WINDOW", 8 * MIB)
    with FakeWorker(service.backend) as worker, FakeClient(service.frontend) as client:
        worker.ready("it", capacity=50)
        for _ in range(30):
            client.ask("it")
        for _ in range(30):
            worker.answer(worker.receive(Request), [bytes(MIB)])
        wait_for(lambda: broker._outbox.size > 22 * MIB)
        assert broker._outbox.flying < 9 * MIB, "the rest is not with libzmq"
        answered: list[int] = []
        while len(answered) < 30:
            answered.append(client.receive(Answer).id)
            client.send(Ping(received=[[client.session, answered[-1], answered[-1]]]))
        assert sorted(answered) == list(range(1, 31))
        wait_for(lambda: not broker._outbox.flying)
        assert not broker._outbox.size


def test_frames_that_are_too_much_together_are_no_message(
    service: Service, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport.check_size, "__defaults__", (MIB,))
    with FakeClient(service.frontend) as client:
        client.send(Ping(), [bytes(MIB // 2)] * 3)
        assert "the message has 2 MiB; the limit is 1 MiB" in client.receive(Reject).reason
        client.ping()


# ---- nonsense ------------------------------------------------------------------------------------

SESSION = b"s" * 16
REQUEST = Request(SESSION, 1, "spring", "calculate", ["energy"])


def sides(service: Service) -> list[tuple[type[Peer], str]]:
    return [(FakeClient, service.frontend), (FakeWorker, service.backend)]


def packed(*header: object) -> bytes:
    return bytes(msgpack.packb(list(header)))


V = PROTOCOL_VERSION
NONSENSE: dict[str, list[bytes]] = {
    "no frame but an empty one": [b""],
    "no header": [b"", b"", b""],
    "broken msgpack": [b"\xc1\xff\x00"],
    "half a header": [pack_header(REQUEST)[:-3]],
    "a number": [packed()[:0] + msgpack.packb(7)],
    "a map": [msgpack.packb({"version": V})],
    "an unknown kind": [packed(V, "REVOLT", 1, 2)],
    "a kind that is no text": [packed(V, [1, 2])],
    "too few fields": [packed(V, "REQUEST", SESSION)],
    "too many fields": [packed(V, "PING", [], 1, 1)],
    "fields of other types": [packed(V, "PING", "all of them", 1)],
    "keys that are none": [packed(V, "PING", [[1, 2], 3], 1)],
    "a huge id": [packed(V, "CANCEL", [[SESSION, 2**64 - 1]])],
    "a name that is not UTF-8": [b"\x93\x01\xa5HELLO\xa3\xff\xfe\xfd"],
    "a name with a newline": [packed(V, "HELLO", "a\nb", {})],
    "an endless name": [packed(V, "HELLO", "n" * 10_000, {})],
    "deeply nested": [b"\x91" * 100_000 + b"\x90"],
    "an array said to be endless": [b"\xdd\xff\xff\xff\xff\x01"],
    "a capacity below nothing": [pack_header(Ready("it", {}, ABOUT, -1))],
    "a description that is none": [pack_header(Ready("it", {}, b"\xc1"))],
    "an identity full of nonsense": [packed(V, "HELLO", "it", {1: [b"\xff"], "pid": {}})],
    "an extension type": [b"\x93\x01\xd4\x05\x00\x90"],
    "a huge header": [b"\x92\x01" + b"x" * (64 << 20)],
    "a huge payload for nobody": [
        pack_header(Request(SESSION, 1, "nobody")),
        *[bytes(64 << 20)] * 2,
    ],
    "an answer to no request": [pack_header(Answer(SESSION, 99))],
    "a thousand frames": [packed(V, "PING", [], 1), *[b"x"] * 1000],
}


@pytest.mark.parametrize("frames", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_on_either_side_is_survived(
    service: Service, broker: Broker, frames: list[bytes]
) -> None:
    for kind, address in sides(service):
        with kind(address) as peer:
            for _ in range(3):
                peer.send_frames(frames)
            # What comes after it on the same connection is read.
            if isinstance(peer, FakeClient):
                peer.ping()
            else:
                peer.send(Ready("by hand", {}, ABOUT))
                peer.receive(Welcome)
    assert serves(service)


EXAMPLES: list[Message] = [
    *(message for message in [REQUEST, Answer(SESSION, 1), Ready("it", {"pid": 1}, ABOUT)]),
    *(kind() for kind in (*FROM_CLIENT, *FROM_WORKER) if not dataclasses.fields(kind)),
]


def mutations(rng: random.Random, count: int) -> Iterator[list[bytes]]:
    """Yield messages that were right once."""
    changes: list[Callable[[bytes], bytes]] = [
        lambda b: b[: rng.randrange(len(b))],
        lambda b: b[: (i := rng.randrange(len(b)))] + rng.randbytes(3) + b[i + 1 :],
        lambda b: b + rng.randbytes(rng.randrange(1, 9)),
        lambda b: rng.randbytes(rng.randrange(60)),
        lambda b: b,
    ]
    odd: list[object] = [
        None,
        -1,
        2**63,
        b"",
        b"\xff" * 16,
        "",
        "\ud7ff",
        [],
        [[]],
        {},
        {"a": 1},
        1.5,
        True,
    ]
    for _ in range(count):
        if rng.random() < 0.5:
            kinds = (*FROM_CLIENT, *FROM_WORKER)
            kind = rng.choice(kinds)
            values = [rng.choice(odd) for _ in dataclasses.fields(kind)]
            header = packed(V, kind.KIND, *values)
        else:
            header = rng.choice(changes)(pack_header(rng.choice(EXAMPLES)))
        yield [header, *(rng.randbytes(rng.randrange(40)) for _ in range(rng.randrange(4)))]


def test_the_broker_survives_a_fuzzer_on_both_sides(
    service: Service, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(20)
    peers = [kind(address) for kind, address in sides(service) for _ in range(5)]
    with caplog.at_level(logging.WARNING, "aserpc"):
        for frames in mutations(rng, 4000):
            rng.choice(peers).send_frames(frames)
        for peer in peers:
            if isinstance(peer, FakeClient):
                peer.ping()
            else:
                peer.send(Ready("by hand", {}, ABOUT))
                peer.receive(Welcome)
    complaints = [r for r in caplog.records if "no message" in r.getMessage()]
    assert 1 <= len(complaints) <= len(peers), "once a peer"
    assert serves(service)
    for peer in peers:
        peer.close()


def test_a_peer_of_another_version_is_told_both(service: Service, broker: Broker) -> None:
    for kind, address in sides(service):
        with kind(address) as peer:
            peer.send_frames([packed(99, "PING", [])])
            reason = peer.receive(Reject).reason
            assert "99" in reason
            assert str(PROTOCOL_VERSION) in reason


# ---- peers that overstep -------------------------------------------------------------------------


def test_an_answer_from_who_is_no_worker_goes_nowhere(service: Service, broker: Broker) -> None:
    with (
        FakeWorker(service.backend) as worker,
        FakeWorker(service.backend) as stranger,
        FakeWorker(service.backend) as colleague,
        FakeClient(service.frontend) as client,
    ):
        worker.ready("it")
        number = client.ask("it")
        request = worker.receive(Request)
        stranger.answer(request)
        stranger.receive(Unknown)
        colleague.ready("it")
        colleague.answer(request)
        assert client.ping(), "and no answer came before it"
        worker.answer(request)
        assert client.receive(Answer).id == number


def test_a_worker_may_answer_only_once(service: Service, broker: Broker) -> None:
    with FakeWorker(service.backend) as worker, FakeClient(service.frontend) as client:
        worker.ready("it")
        client.ask("it")
        request = worker.receive(Request)
        for _ in range(3):
            worker.answer(request)
        client.receive(Answer)
        client.ask("it")
        worker.answer(worker.receive(Request))
        assert client.receive(Answer).id == 2


def test_a_worker_that_does_not_answer_probes_is_lost(service: Service) -> None:
    service.start_broker(worker_timeout=0.5)
    with FakeWorker(service.backend) as worker:
        worker.ready("it")
        worker.receive(Probe)
        wait_for(lambda: not service.status()["workers"])


def test_a_request_that_is_sent_twice_is_computed_once(service: Service, broker: Broker) -> None:
    with FakeWorker(service.backend) as worker, FakeClient(service.frontend) as client:
        worker.ready("it", capacity=5)
        request = Request(client.session, 7, "it", "calculate", ["energy"])
        for _ in range(3):
            client.send(request)
        client.ping()
        worker.answer(worker.receive(Request))
        assert client.receive(Answer).id == 7
        assert not worker.socket.poll(50), "no second request comes"
