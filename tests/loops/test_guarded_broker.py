"""A broker that takes keys: who gets in, and what each may say."""

from __future__ import annotations

import contextlib
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
)
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
    ShutdownRequest,
    Status,
    StatusRequest,
    Unknown,
    Welcome,
)
from support.asking import atom, energy_at
from support.calculators import Spring
from support.keyring import Guarded, Keyring, being
from support.peers import ABOUT, FakeClient, FakeWorker
from support.service import Service
from support.waiting import wait_for

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
        guard=transport.Guard(secret.value, "frontend"),
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
    guarded: Guarded, role: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    message, reply, roles = {**FROM_CLIENTS, **FROM_WORKERS}[what]
    address = guarded.frontend if what in FROM_CLIENTS else guarded.backend
    curve = guarded.keyring.curve(role, "somebody")
    sides = ("client", "admin"), ("worker", "manager")
    with FakeClient(address, curve=curve) as peer:
        peer.EXPECTED = (*FakeClient.EXPECTED, *FakeWorker.EXPECTED, Accept)
        with contextlib.suppress(zmq.Again):  # it is refused already
            peer.send(message)
        if role in roles:
            peer.receive(reply)
        elif any(role in side and roles <= {*side} for side in sides):
            assert "that takes a key of the role" in peer.receive(Refuse).reason
        else:
            side = "frontend" if what in FROM_CLIENTS else "backend"
            told = f"refused a connection of {role}:somebody to the {side}"
            wait_for(lambda: told in caplog.text)
            assert not peer.socket.poll(0)
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
