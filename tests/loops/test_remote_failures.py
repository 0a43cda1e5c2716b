"""Failures of the service: which are tried again, and what the broker says of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from aserpc import Broker, RemoteCalculator, transport
from aserpc.client.failures import LONGEST_PAUSE, retry_pause
from aserpc.errors import (
    AserpcError,
    BrokerStoppedError,
    BusyError,
    DeadlineError,
    ProtocolError,
    QueueTimeoutError,
    WorkerLostError,
)
from aserpc.header import pack_header
from aserpc.messages import Answer, Message, Ping, Reject, Request
from support.asking import Elapsed, answer_pings, atom, energy_at, pong
from support.calculators import Failing, Gate
from support.gated import Gated
from support.peers import FakeBroker
from support.service import Service
from support.waiting import InThread, wait_for

# ---- retries -------------------------------------------------------------------------------------


def failing(kind: str) -> Callable[[Message], list[Message]]:
    def reply(message: Message) -> list[Message]:
        if isinstance(message, Request):
            return [Answer(*message.key, error={"kind": kind, "message": "so it is"})]
        return [pong(message, known=True)] if isinstance(message, Ping) else []

    return reply


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("kind", ["worker_lost", "queue_timeout", "no_workers", "broker_stopped"])
def test_retries_are_so_many_more_attempts(fake: FakeBroker, kind: str, retries: int) -> None:
    fake.reply = failing(kind)
    calculator = RemoteCalculator("it", fake.address, retries=retries)
    with pytest.raises(AserpcError, match="so it is"):
        energy_at(calculator, 1)
    keys = [request.key for request in fake.requests()]
    assert len(keys) == len(set(keys)) == retries + 1


@pytest.mark.parametrize("kind", ["calculation", "deadline", "cancelled", "too_large", "protocol"])
def test_no_retry_after_what_is_no_failure_of_the_service(fake: FakeBroker, kind: str) -> None:
    fake.reply = failing(kind)
    calculator = RemoteCalculator("it", fake.address, retries=3)
    with pytest.raises(AserpcError, match="so it is"):
        energy_at(calculator, 1)
    assert len(fake.requests()) == 1


def test_pauses_between_attempts_grow_to_a_limit() -> None:
    error = WorkerLostError()
    pauses = [retry_pause(attempt, error) for attempt in (0, 1, 2, 3, 10, 100_000)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, LONGEST_PAUSE, LONGEST_PAUSE])


def test_a_busy_broker_is_left_alone_for_longest() -> None:
    assert retry_pause(0, BusyError()) == LONGEST_PAUSE


def test_there_are_pauses_between_attempts(fake: FakeBroker) -> None:
    fake.reply = failing("worker_lost")
    started = time.monotonic()
    with pytest.raises(WorkerLostError):
        energy_at(RemoteCalculator("it", fake.address, retries=2), 1)
    assert time.monotonic() - started >= 0.3


def test_no_pause_is_longer_than_the_deadline(fake: FakeBroker) -> None:
    fake.reply = failing("worker_lost")
    with Elapsed() as elapsed, pytest.raises(DeadlineError):
        energy_at(RemoteCalculator("it", fake.address, retries=1000, deadline=1.0), 1)
    assert elapsed.seconds < 5


def test_no_retry_after_a_deadline(gated: Gated) -> None:
    with pytest.raises(DeadlineError):
        energy_at(gated.service.calculator("gate", deadline=0.3, retries=3), 2)
    assert gated.started() == 1


# ---- what the broker says ------------------------------------------------------------------------


def test_a_request_expires_on_time_when_its_worker_has_gone(service: Service) -> None:
    service.start_broker(request_queue_timeout=0.5)
    folder = service.folder
    worker = service.start_worker("gate", lambda: Gate(str(folder)))
    first = InThread(lambda: energy_at(service.calculator("gate"), 2))
    wait_for(lambda: list(folder.glob("started-*")))
    second = InThread(lambda: energy_at(service.calculator("gate"), 4))
    wait_for(lambda: service.status()["pending_requests"].get("gate") == 1)
    worker.stop()
    (folder / "go").touch()
    assert first.result() == 2
    with Elapsed() as elapsed, pytest.raises(QueueTimeoutError, match=r"within 0.5 s"):
        second.result()
    assert elapsed.seconds < 3


def test_clients_that_wait_are_told_that_the_broker_stops(service: Service) -> None:
    broker: Broker = service.start_broker()
    folder = service.folder
    service.start_worker("gate", lambda: Gate(str(folder)))
    call = InThread(lambda: energy_at(service.calculator("gate"), 2))
    wait_for(lambda: list(folder.glob("started-*")))
    service.stop(broker)
    with pytest.raises(BrokerStoppedError):
        call.result()
    (folder / "go").touch()


def test_what_a_broker_said_last_is_heard_after_its_end(
    socket_folder: Path, leaves_nothing: None
) -> None:
    address = f"ipc://{socket_folder}/frontend.ipc"
    broker = FakeBroker(address, answer_pings)
    context = transport.make_context()
    sock = transport.dealer(context)
    transport.connect(sock, address)
    monitor = sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    transport.send(sock, [pack_header(Ping())])
    wait_for(lambda: broker.received)
    broker.close()
    assert monitor.poll(20_000), "the connection is gone"
    assert sock.poll(0), "and the answer is not"
    sock.disable_monitor()
    context.destroy(linger=0)


def test_a_broker_of_another_version_says_so(fake: FakeBroker) -> None:
    calculator = RemoteCalculator("it", fake.address)
    fake.reply = lambda message: [Reject("protocol version 1 of the peer is not 2, ours")]
    with pytest.raises(ProtocolError, match="version 1 of the peer is not 2"):
        energy_at(calculator, 1)


def test_a_calculators_error_is_not_retried_by_another_worker(service: Service) -> None:
    service.start_broker()
    workers = [service.start_worker("failing", Failing) for _ in range(2)]
    atoms = atom(1)
    atoms.info["error"] = "SCFError"
    atoms.calc = service.calculator("failing", retries=5)
    with pytest.raises(RuntimeError, match="SCFError"):
        atoms.get_potential_energy()
    assert sum(worker.requests_handled for worker in workers) == 1
