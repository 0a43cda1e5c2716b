"""A broker that takes keys: whose is what, what a revoked key gets, and what no log tells."""

from __future__ import annotations

import ctypes
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from aserpc import Worker, list_calculators, shutdown_workers, transport
from aserpc.broker.doors import Door
from aserpc.errors import (
    WorkerFailedError,
)
from aserpc.header import pack_header
from aserpc.messages import (
    Answer,
    Hello,
    Offer,
    Ping,
    Pong,
    Refuse,
    Request,
    Shutdown,
    ShutdownRequest,
    Unknown,
)
from support.asking import energy_at
from support.calculators import Gate
from support.keyring import Guarded, Keyring, being
from support.peers import FakeClient, FakeWorker
from support.waiting import InThread, wait_for

# ---- whose is what -------------------------------------------------------------------------------


def test_whoever_claims_a_clients_routing_id_gets_none_of_its_results(guarded: Guarded) -> None:
    keyring = guarded.keyring
    alices, bobs = keyring.curve("client", "alice"), keyring.curve("client", "bob")
    with (
        FakeWorker(guarded.service.backend) as worker,
        FakeClient(guarded.frontend, curve=alices, routing_id=b"alice") as alice,
    ):
        worker.ready("emt")
        alice.ask("emt")
        request = worker.receive(Request)
        with FakeClient(guarded.frontend, curve=bobs, routing_id=b"alice") as bob:
            bob.send(Ping([[request.session, request.id]]))
            bob.send(Request(request.session, request.id, "emt"))
            # Both have had the time that a reconnection takes.
            with FakeClient(guarded.frontend, curve=bobs) as other:
                other.ping()
            worker.answer(request)
            assert alice.receive(Answer).error is None
            assert not bob.socket.poll(200), "bob hears nothing at all"


def test_whoever_knows_a_session_gets_none_of_its_results(guarded: Guarded) -> None:
    keyring = guarded.keyring
    alices, bobs = keyring.curve("client", "alice"), keyring.curve("client", "bob")
    with (
        FakeWorker(guarded.service.backend) as worker,
        FakeClient(guarded.frontend, curve=alices) as alice,
        FakeClient(guarded.frontend, curve=bobs) as bob,
    ):
        worker.ready("emt")
        alice.ask("emt")
        request = worker.receive(Request)
        bob.send(Ping([[request.session, request.id]]))
        assert bob.receive(Pong).unknown == [[request.session, request.id]]
        bob.send(Request(request.session, request.id, "emt"))
        refused = bob.receive(Answer)
        assert refused.error is not None
        assert refused.error["kind"] == "not_allowed"
        worker.answer(request)
        assert alice.receive(Answer).error is None
        assert not bob.socket.poll(0)


def first_routing_id(make: Callable[[transport.Context], tuple[transport.Socket, str]]) -> bytes:
    """Return the routing id that a socket gives to the first who comes without one."""
    ctypes.CDLL(None).srand(1)  # as every process begins
    context = transport.make_context()
    sock, address = make(context)
    peer = transport.dealer(context, named=False)
    transport.connect(peer, address)
    peer.send(b"here I am")
    assert sock.poll(20_000)
    identity = bytes(transport.receive(sock)[0])
    context.destroy(linger=0)
    return identity


def test_nobody_can_foresee_the_routing_ids_of_those_who_come_over_a_network(
    socket_folder: Path,
) -> None:
    doors: list[Door] = []

    def plain(context: transport.Context) -> tuple[transport.Socket, str]:
        sock = transport.router(context, 5.0, 10)
        return sock, transport.bind(sock, "tcp://127.0.0.1:*")

    def behind_a_door(context: transport.Context) -> tuple[transport.Socket, str]:
        local = f"ipc://{socket_folder}/local.ipc"
        doors.append(Door(context, local, "tcp://127.0.0.1:*", 5.0, 10, handover=False))
        return doors[-1].sockets[1], doors[-1].open()

    plain_ids = {first_routing_id(plain) for _ in range(2)}
    assert len(plain_ids) == 1, "libzmq seeds by now; then this need not be done any more"
    ids = {first_routing_id(behind_a_door) for _ in range(3)}
    assert len(ids) == 3
    assert not ids & plain_ids


def test_whoever_claims_a_workers_routing_id_answers_nothing(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    keyring = guarded.keyring
    good, bad = keyring.curve("worker", "good"), keyring.curve("worker", "bad")
    with (
        FakeWorker(guarded.backend, curve=good, routing_id=b"good") as worker,
        FakeClient(guarded.service.frontend) as client,
    ):
        worker.ready("emt")
        client.ask("emt")
        request = worker.receive(Request)
        with (
            FakeWorker(guarded.backend, curve=bad, routing_id=b"good") as thief,
            FakeWorker(guarded.service.backend) as other,
        ):
            thief.answer(request)
            wait_for(lambda: "claims the connection of worker of 'emt'" in caplog.text)
            thief.answer(request)
            thief.receive(Unknown)
            other.ready("emt")
            assert other.receive(Request).key == request.key, "it is computed elsewhere"
            assert not client.socket.poll(0)
            other.answer(request)
            assert client.receive(Answer).error is None


# ---- revoked -------------------------------------------------------------------------------------


def test_a_revoked_client_gets_nothing_more_by_its_open_connection(guarded: Guarded) -> None:
    keyring, service = guarded.keyring, guarded.service
    with (
        FakeWorker(service.backend) as worker,
        FakeClient(guarded.frontend, curve=keyring.curve("client", "alice")) as alice,
        FakeClient(guarded.frontend, curve=keyring.curve("client", "bob")) as bob,
    ):
        worker.ready("emt")
        for _ in range(3):
            alice.ask("emt")
        running = worker.receive(Request)
        wait_for(lambda: service.status()["pending_requests"] == {"emt": 2})
        keyring.head.revoke("alice")
        wait_for(lambda: service.status()["pending_requests"] == {})
        worker.answer(running)
        bob.ping()
        assert not alice.socket.poll(0), "the result is not for her any more"
        alice.send(Ping())
        assert "not allowed any more" in alice.receive(Refuse).reason
    with (
        pytest.raises(AssertionError),
        FakeClient(guarded.frontend, curve=keyring_curve(keyring, "alice")) as again,
    ):
        again.ping(timeout=0.5)


def keyring_curve(keyring: Keyring, name: str) -> transport.Curve:
    """Return the keys of a client that has some."""
    key = keyring.key("client", name)
    return transport.Curve(keyring.broker.value, key.public.value, key.value)


def test_a_revoked_worker_ends_and_its_request_is_computed_elsewhere(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring, service = guarded.keyring, guarded.service
    gate = tmp_path / "gate"
    gate.mkdir()

    def make() -> Gate:
        return Gate(str(gate))

    with being(keyring.person("worker", "node"), monkeypatch):
        worker = Worker("gate", make, guarded.backend, idle_timeout=60)
    thread = service.start(worker)
    wait_for(lambda: service.ready("gate"))
    call = InThread(lambda: energy_at(service.calculator("gate"), 2))
    wait_for(lambda: list(gate.glob("started-*")))
    keyring.head.revoke("node")
    wait_for(lambda: not service.ready("gate"))
    service.start_worker("gate", make)
    wait_for(lambda: service.status()["running_requests"] == {"gate": 1})
    (gate / "go").touch()
    assert call.result() == 2
    thread.join(20)
    assert isinstance(thread.error, WorkerFailedError)
    assert "not allowed any more" in str(thread.error)


def test_a_list_of_keys_that_cannot_be_read_leaves_things_as_they_were(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keyring = guarded.keyring
    with FakeClient(guarded.frontend, curve=keyring.curve("client", "alice")) as alice:
        alice.ping()
        path = keyring.head.allowed_path
        path.write_text(path.read_text() + "what is this?\n")
        wait_for(lambda: "the keys that are allowed stay as they were" in caplog.text)
        assert "line 3" in caplog.text
        alice.ping()
        path.unlink()
        wait_for(lambda: "read the keys again: 0 are allowed" in caplog.text)
        alice.send(Ping())
        alice.receive(Refuse)


# ---- secrets -------------------------------------------------------------------------------------


def test_no_log_tells_a_routing_id_a_session_or_a_secret_key(
    guarded: Guarded, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    keyring, service = guarded.keyring, guarded.service
    names = ("client", "worker", "manager")
    ids = {name: secrets.token_bytes(12) for name in names}
    with (
        FakeClient(
            guarded.frontend, curve=keyring.curve("client", "a"), routing_id=ids["client"]
        ) as client,
        FakeWorker(
            guarded.backend, curve=keyring.curve("worker", "b"), routing_id=ids["worker"]
        ) as worker,
        FakeWorker(
            guarded.backend, curve=keyring.curve("manager", "c"), routing_id=ids["manager"]
        ) as manager,
    ):
        worker.ready("emt")
        manager.send(Offer([["lj", 1]], {}))
        client.ask("emt")
        worker.answer(worker.receive(Request))
        client.receive(Answer)
        client.send(ShutdownRequest(1))
        client.receive(Refuse)
        for peer in (client, worker):
            peer.send_frames([b"rubbish"])
        with FakeWorker(
            guarded.backend, curve=keyring.curve("worker", "d"), routing_id=ids["worker"]
        ) as thief:
            thief.send(Hello("emt"))
            wait_for(lambda: "claims the connection" in caplog.text)
        client.ask("emt")
        shutdown_workers("emt", service.frontend)
        keyring.head.revoke("manager:c")
        wait_for(lambda: not service.status()["manager"]["connected"])
        session = client.session
    wait_for(lambda: not service.status()["workers"])
    with being(keyring.person("client", "e"), monkeypatch):
        list_calculators(guarded.frontend)
    told = caplog.text.lower()
    assert "emt" in told
    secret = [*ids.values(), session]
    secret += [keyring.key(role, name).value for role, name in zip(names, "abc", strict=True)]
    own = keyring.head.secret("broker")
    assert own is not None
    for value in (*secret, own.value):
        assert value.hex() not in told
        assert repr(value)[2:-1].lower() not in told
    assert pack_header(Shutdown()) not in caplog.text.encode()
