"""A broker that takes keys: who gets in, what each may say, and what a revoked one gets."""

from __future__ import annotations

import ctypes
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from aserpc import RemoteCalculator, Worker, list_calculators, shutdown_workers, transport
from aserpc.broker.doors import Door
from aserpc.client import blocking
from aserpc.errors import (
    AddressError,
    BrokerUnreachableError,
    KeysError,
    NotAllowedError,
    WorkerFailedError,
)
from aserpc.header import pack_header
from aserpc.messages import (
    Accept,
    Answer,
    Heartbeat,
    Hello,
    Offer,
    Ping,
    Pong,
    Ready,
    Refuse,
    Reload,
    Request,
    Shutdown,
    ShutdownRequest,
    Status,
    StatusRequest,
    Unknown,
    Welcome,
)
from support.asking import atom, energy_at
from support.calculators import Gate, Spring
from support.keyring import Guarded, Keyring, being
from support.peers import ABOUT, FakeClient, FakeWorker
from support.service import Service
from support.waiting import InThread, wait_for


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


@pytest.fixture
def guarded(service: Service, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    monkeypatch.setenv("ASERPC_IPC_DIR", str(service.folder))
    monkeypatch.setenv("ASERPC_KEYS_DIR", str(keyring.head.path))
    return Guarded(service, keyring)


# ---- who gets in ---------------------------------------------------------------------------------


def test_those_with_keys_and_those_on_this_machine_are_served_alike(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring, service = guarded.keyring, guarded.service
    with being(keyring.person("worker", "node"), monkeypatch):
        worker = Worker("remote", Spring, guarded.backend, idle_timeout=60)
        service.start(worker)
        wait_for(lambda: service.ready("remote"))
    with being(None, monkeypatch):
        service.start_worker("local", Spring)
        assert energy_at(service.calculator("remote"), 2) == 2
    with being(keyring.person("client", "alice"), monkeypatch):
        assert list_calculators(guarded.frontend) == {"local": 1, "remote": 1}
        for name in ("local", "remote"):
            assert energy_at(RemoteCalculator(name, guarded.frontend), 4) == 8


def test_without_keys_it_is_told_that_the_broker_demands_them(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        being(None, monkeypatch),
        pytest.raises(BrokerUnreachableError, match=r"demands keys.*aserpc keys new --role client"),
    ):
        RemoteCalculator("spring", guarded.frontend)


def test_with_the_key_of_another_broker_it_is_told_which_was_expected(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Keyring(tmp_path / "others")
    with (
        being(other.person("client", "alice"), monkeypatch),
        pytest.raises(BrokerUnreachableError, match="has not the key of broker:head"),
    ):
        RemoteCalculator("spring", guarded.frontend)


def test_a_key_that_is_not_allowed_is_refused_at_once_and_let_in_when_it_is(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.service.start_worker("spring", Spring)
    keyring = guarded.keyring
    alice = keyring.person("client", "alice", allowed=False)
    key = keyring.key("client", "alice").public
    with being(alice, monkeypatch):
        calculator = RemoteCalculator("spring", guarded.frontend, check_broker=False)
        with pytest.raises(NotAllowedError, match=f"aserpc keys allow {key}"):
            energy_at(calculator, 2)
        keyring.head.allow(key)
        assert energy_at(calculator, 2) == 2


def test_a_client_for_many_is_refused_and_let_in_too(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.service.start_worker("spring", Spring)
    keyring = guarded.keyring
    alice = keyring.person("client", "alice", allowed=False)
    key = keyring.key("client", "alice").public
    with being(alice, monkeypatch):
        guarded.service.frontend = guarded.frontend
        client = guarded.service.client(check_broker=False)
        with pytest.raises(NotAllowedError, match="does not allow the key client:alice"):
            client.submit("spring", atom(2)).result(20)
        keyring.head.allow(key)
        assert client.submit("spring", atom(2)).result(20)["energy"] == 2
        client.close()


def test_what_could_not_be_connected_leaves_the_pool_as_it_was(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with being(guarded.keyring.person("worker", "node"), monkeypatch):
        with pytest.raises(KeysError, match="--role client"):
            list_calculators(guarded.frontend)
        assert blocking.pool()._lent == 0
    with being(guarded.keyring.person("client", "alice"), monkeypatch):
        with pytest.raises(AddressError, match="nothing is known here of the host"):
            list_calculators("tcp://no-such-host.invalid:5555")
        assert blocking.pool()._lent == 0


def test_a_worker_with_a_key_that_is_not_allowed_ends_before_it_loads(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Spring] = []

    def make() -> Spring:
        made.append(Spring())
        return made[0]

    with being(guarded.keyring.person("worker", "node", allowed=False), monkeypatch):
        worker = Worker("spring", make, guarded.backend)
    with pytest.raises(NotAllowedError, match="does not allow the key worker:node"):
        worker.serve()
    assert not made


def test_the_broker_tells_of_a_key_that_it_does_not_know(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        being(guarded.keyring.person("client", "alice", allowed=False), monkeypatch),
        pytest.raises(NotAllowedError),
    ):
        list_calculators(guarded.frontend)
    digits = guarded.keyring.key("client", "alice").public.value.hex()
    wait_for(lambda: f"aserpc keys allow {digits} --role" in caplog.text)


def test_nobody_gets_in_while_no_authenticator_runs(keyring: Keyring, socket_folder: Path) -> None:
    secret = keyring.head.secret("broker")
    assert secret is not None
    context = transport.make_context()
    door = Door(
        context,
        f"ipc://{socket_folder}/local.ipc",
        "tcp://127.0.0.1:*",
        5.0,
        10,
        handover=False,
        secret=secret.value,
    )
    address = door.open()
    peer = transport.dealer(context, curve=keyring.curve("client", "alice"))
    monitor = peer.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
    transport.connect(peer, address)
    peer.send(b"here I am")
    assert monitor.poll(20_000)
    assert not door.sockets[1].poll(0)
    peer.disable_monitor()
    context.destroy(linger=0)


def test_a_broker_on_tcp_wants_keys_or_a_clear_word(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aserpc import Broker

    monkeypatch.setenv("ASERPC_KEYS_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("ASERPC_IPC_DIR", str(service.folder))
    with pytest.raises(KeysError, match="aserpc keys new --role broker") as caught:
        Broker("tcp://127.0.0.1:*")
    assert "--insecure" in str(caught.value)
    assert Broker(insecure=True).frontend == service.frontend


# ---- what each may say ---------------------------------------------------------------------------


FROM_CLIENTS = {
    "ping": (Ping(), Pong, {"client", "admin"}),
    "status": (StatusRequest(1), Status, {"client", "admin"}),
    "request": (Request(b"s" * 16, 1, "nothing"), Answer, {"client", "admin"}),
    "shutdown": (ShutdownRequest(1), Status, {"admin"}),
    "reload": (Reload(1), Status, {"admin"}),
}
FROM_WORKERS = {
    "hello": (Hello("emt"), Welcome, {"worker", "manager"}),
    "ready": (Ready("emt", {}, ABOUT), Welcome, {"worker", "manager"}),
    "heartbeat": (Heartbeat(), Unknown, {"worker", "manager"}),
    "offer": (Offer([["emt", 0]], {}), Accept, {"manager"}),
}


@pytest.mark.parametrize("what", [*FROM_CLIENTS, *FROM_WORKERS])
@pytest.mark.parametrize("role", ["client", "admin", "worker", "manager"])
def test_a_role_may_say_what_it_is_for_and_nothing_else(
    guarded: Guarded, role: str, what: str
) -> None:
    message, reply, roles = {**FROM_CLIENTS, **FROM_WORKERS}[what]
    address = guarded.frontend if what in FROM_CLIENTS else guarded.backend
    curve = guarded.keyring.curve(role, "somebody")
    with FakeClient(address, curve=curve) as peer:
        peer.EXPECTED = (*FakeClient.EXPECTED, *FakeWorker.EXPECTED, Accept)
        peer.send(message)
        if role in roles:
            peer.receive(reply)
        else:
            assert "that takes a key of the role" in peer.receive(Refuse).reason
    status = guarded.service.status()
    knows = role in roles
    assert bool(status["workers"]) is (knows and what in ("hello", "ready"))
    assert status["manager"]["connected"] is (knows and what == "offer")


def test_without_an_admins_key_no_worker_is_shut_down(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, keyring = guarded.service, guarded.keyring
    service.start_worker("spring", Spring)
    with being(keyring.person("client", "alice"), monkeypatch):
        with pytest.raises(KeysError, match="aserpc keys new --role admin"):
            shutdown_workers(None, guarded.frontend)
        assert service.ready("spring") == 1
    with being(keyring.person("admin", "root"), monkeypatch):
        assert shutdown_workers(None, guarded.frontend) == 1
    wait_for(lambda: not list_calculators(service.frontend))


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
