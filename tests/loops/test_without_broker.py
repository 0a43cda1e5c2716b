"""Nobody there who reads: nothing blocks, and what is too old disturbs no later broker."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from aserpc import Client, Manager, RemoteCalculator, SpawnConfig, Worker
from aserpc.errors import BrokerSilentError
from aserpc.messages import Answer, Message, Ping, Request
from support.asking import atom, energy_at, pong
from support.calculators import Spring
from support.peers import ABOUT, FakeBroker
from support.service import Service
from support.waiting import InThread, wait_for

#: More than libzmq keeps in a socket without a connection.
MANY = 1500


def beats(service: Service, served: Worker | Manager) -> threading.Thread:
    """Serve, with a sign of life a millisecond."""
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    return thread


def ends(served: Worker | Manager, thread: threading.Thread) -> None:
    served.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_a_worker_says_more_than_its_socket_takes_and_serves_later(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker("spring", Spring, service.backend, 600.0, 0.001)
    thread = beats(service, worker)
    wait_for(lambda: caplog.text.count("no room for a message") > 10)
    service.start_broker(worker_timeout=1.0)
    wait_for(lambda: service.ready("spring") == 1)
    assert energy_at(service.calculator("spring"), 2) == 2
    wait_for(lambda: service.status()["processes"][0]["answered"] == 1)
    ends(worker, thread)


def test_a_worker_whose_broker_has_gone_can_be_stopped(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    broker = service.start_broker()
    worker = Worker("spring", Spring, service.backend, 600.0, 0.001)
    thread = beats(service, worker)
    wait_for(lambda: service.ready("spring") == 1)
    service.stop(broker)
    wait_for(lambda: "no room for a message" in caplog.text)
    ends(worker, thread)


def test_a_manager_says_more_than_its_socket_takes_and_offers_later(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASERPC_IPC_DIR", str(tmp_path))
    said: list[Message] = []
    manager = Manager({"it": SpawnConfig(name="it", command=["x"])}, service.backend, 0.001)
    send = manager._send

    def noted(message: Message) -> None:
        said.append(message)
        send(message)

    monkeypatch.setattr(manager, "_send", noted)
    thread = beats(service, manager)
    wait_for(lambda: len(said) > MANY)
    service.start_broker(worker_timeout=1.0)
    wait_for(lambda: service.status()["manager"]["spawnable"] == ["it"])
    ends(manager, thread)


def test_a_client_asks_more_than_its_socket_takes_and_is_answered_later(service: Service) -> None:
    with Client(service.frontend, 60_000, check_broker=False) as client:
        submitting = InThread(lambda: [client.submit("spring", atom(x)) for x in range(MANY)])
        futures = submitting.result()
        assert futures is not None
        service.start_broker()
        service.start_worker("spring", Spring)
        for x, future in enumerate(futures):
            assert future.result(30)["energy"] == x * x / 2


def answering(message: Message) -> list[Message]:
    if isinstance(message, Request):
        error = {"kind": "calculation", "message": "so it is"}
        return [Answer(*message.key, error=error, about=ABOUT)]
    return [pong(message, known=False)] if isinstance(message, Ping) else []


def test_what_was_given_up_does_not_reach_a_later_broker(
    socket_folder: Path, leaves_nothing: None
) -> None:
    address = f"ipc://{socket_folder}/frontend.ipc"
    calculator = RemoteCalculator("it", address, timeout=300, check_broker=False)
    client = Client(address, 300, check_broker=False)
    old = [client.submit("it", atom(x)) for x in range(MANY)]
    with pytest.raises(BrokerSilentError):
        energy_at(calculator, 1)
    for future in old:
        assert isinstance(future.exception(20), BrokerSilentError)
    broker = FakeBroker(address, answering)
    try:
        client.timeout = 20_000
        assert "so it is" in str(client.submit("it", atom(1)).exception(20))
        calculator.timeout = 20_000
        with pytest.raises(RuntimeError, match="so it is"):
            energy_at(calculator, 1)
    finally:
        client.close()
        broker.close()
    assert len(broker.requests()) == 2, "the old ones are gone with their sockets"
