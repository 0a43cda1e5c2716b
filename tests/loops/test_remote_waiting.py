"""How long a client waits, what ends the wait, and what is left behind by it."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from aserpc import RemoteCalculator, shutdown_workers
from aserpc.errors import (
    BrokerSilentError,
    DeadlineError,
    NoWorkersError,
)
from aserpc.messages import Answer, Cancel, Message, Ping, Request, failure
from support.asking import Elapsed, atom, energy_at, pong
from support.calculators import Spring
from support.gated import Gated
from support.peers import FakeBroker
from support.service import Service
from support.waiting import InThread, wait_for

# ---- is there a broker? --------------------------------------------------------------------------


def test_without_a_broker_it_says_so_at_once(socket_folder: Path, leaves_nothing: None) -> None:
    address = f"ipc://{socket_folder}/frontend.ipc"
    with Elapsed() as elapsed, pytest.raises(ConnectionError) as caught:
        RemoteCalculator("spring", address)
    text = str(caught.value)
    assert text.startswith("Broker not reachable")
    assert str(socket_folder) in text
    assert "aserpc broker" in text
    assert elapsed.seconds < 4


def test_the_check_can_be_left_out(socket_folder: Path, leaves_nothing: None) -> None:
    address = f"ipc://{socket_folder}/frontend.ipc"
    calculator = RemoteCalculator("spring", address, timeout=300, check_broker=False)
    with Elapsed() as elapsed, pytest.raises((ConnectionError, TimeoutError)):
        energy_at(calculator, 1)
    assert elapsed.seconds < 3


def test_a_question_that_nobody_took_is_not_asked_of_the_next_broker(service: Service) -> None:
    with pytest.raises(ConnectionError, match="Broker not reachable"):
        shutdown_workers(None, service.frontend, timeout=100)
    service.start_broker()
    worker = service.start_worker("spring", Spring)
    assert energy_at(service.calculator("spring"), 2) == 2
    assert service.status()["workers"]["spring"]["idle"] == 1
    assert worker.requests_handled == 1


def test_a_request_that_was_given_up_is_not_computed_by_the_next_broker(
    service: Service,
) -> None:
    early = service.calculator("spring", timeout=200, check_broker=False)
    with pytest.raises(BrokerSilentError):
        energy_at(early, 4)
    service.start_broker()
    worker = service.start_worker("spring", Spring)
    assert energy_at(early, 2) == 2
    assert worker.requests_handled == 1


def test_a_calculator_made_before_its_broker_works_when_it_is_there(service: Service) -> None:
    calculator = RemoteCalculator("spring", service.frontend, check_broker=False)
    service.start_broker()
    service.start_worker("spring", Spring)
    assert energy_at(calculator, 2) == 2


# ---- silence -------------------------------------------------------------------------------------


def test_a_broker_that_vanishes_is_noticed_within_the_timeout(fake: FakeBroker) -> None:
    calculator = RemoteCalculator("it", fake.address, timeout=600)
    call = InThread(lambda: energy_at(calculator, 1))
    wait_for(fake.requests)
    with Elapsed() as elapsed:
        fake.close()
        with pytest.raises(BrokerSilentError, match="no word from the broker"):
            call.result()
    assert elapsed.seconds < 3


def test_a_broker_that_hangs_is_noticed_within_the_timeout(fake: FakeBroker) -> None:
    calculator = RemoteCalculator("it", fake.address, timeout=400)
    fake.reply = lambda message: []
    with Elapsed() as elapsed, pytest.raises(BrokerSilentError) as caught:
        energy_at(calculator, 1)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ConnectionError)
    assert elapsed.seconds < 3


def test_a_calculation_may_take_longer_than_the_timeout(gated: Gated) -> None:
    calculator = gated.service.calculator("gate", timeout=300)
    call = InThread(lambda: energy_at(calculator, 2))
    timer = threading.Timer(1.2, gated.open)
    timer.start()
    assert call.result() == 2
    timer.join()


def test_a_queued_request_may_wait_longer_than_the_timeout(gated: Gated) -> None:
    calls = [
        InThread(lambda: energy_at(gated.service.calculator("gate", timeout=300), 2))
        for _ in range(3)
    ]
    timer = threading.Timer(1.2, gated.open)
    timer.start()
    assert [call.result() for call in calls] == [2, 2, 2]
    timer.join()


def test_one_ping_a_socket_asks_for_what_has_no_news(fake: FakeBroker) -> None:
    calculator = RemoteCalculator("it", fake.address, timeout=800)
    known = len(fake.received)
    call = InThread(lambda: energy_at(calculator, 1))
    wait_for(lambda: len(fake.received) >= known + 6)
    asked = [message for message in fake.received[known:] if isinstance(message, Ping)]
    (request,) = fake.requests()
    assert all(ping.keys == [list(request.key)] for ping in asked)
    fake.reply = lambda message: [Answer(*request.key, error=failure("no_workers", "none"))]
    with pytest.raises(NoWorkersError):
        call.result()


def test_what_the_broker_does_not_know_is_sent_again(fake: FakeBroker) -> None:
    calculator = RemoteCalculator("it", fake.address, timeout=400)

    def reply(message: Message) -> list[Message]:
        if isinstance(message, Ping):
            return [pong(message, known=False)]
        if len(fake.requests()) == 3:
            return [Answer(*fake.requests()[0].key, error=failure("no_workers", "third time"))]
        return []

    fake.reply = reply
    with pytest.raises(NoWorkersError, match="third time"):
        energy_at(calculator, 1)
    assert len({request.key for request in fake.requests()}) == 1


# ---- deadline, cancellation ----------------------------------------------------------------------


def test_a_deadline_abandons_what_runs(gated: Gated) -> None:
    calculator = gated.service.calculator("gate", deadline=0.3)
    with Elapsed() as elapsed, pytest.raises(DeadlineError) as caught:
        energy_at(calculator, 2)
    assert isinstance(caught.value, TimeoutError)
    assert 0.25 < elapsed.seconds < 3
    assert gated.started() == 1
    gated.open()
    calculator.deadline = None
    assert energy_at(calculator, 4) == 8, "the worker was not killed, its late answer not taken"


def test_a_deadline_drops_what_is_queued(gated: Gated) -> None:
    first = InThread(lambda: energy_at(gated.service.calculator("gate"), 2))
    wait_for(gated.started)
    with pytest.raises(DeadlineError):
        energy_at(gated.service.calculator("gate", deadline=0.3), 4)
    wait_for(lambda: gated.pending() == 0)
    gated.open()
    assert first.result() == 2
    wait_for(lambda: gated.running() == 0)
    assert gated.started() == 1


def test_ctrl_c_cancels_and_leaves_the_calculator_usable(gated: Gated) -> None:
    calculator = gated.service.calculator("gate")
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        wait_for(gated.started)
        signal.pthread_kill(main, signal.SIGINT)

    thread = InThread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        energy_at(calculator, 2)
    thread.result()
    gated.open()
    assert energy_at(calculator, 4) == 8, "the late answer is not taken"
    wait_for(lambda: gated.running() == 0)


def test_ctrl_c_takes_a_queued_request_out_of_the_queue(gated: Gated) -> None:
    first = InThread(lambda: energy_at(gated.service.calculator("gate"), 2))
    wait_for(gated.started)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        wait_for(lambda: gated.pending() == 1)
        signal.pthread_kill(main, signal.SIGINT)

    thread = InThread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        energy_at(gated.service.calculator("gate"), 4)
    thread.result()
    wait_for(lambda: gated.pending() == 0)
    gated.open()
    assert first.result() == 2


def test_a_future_that_is_cancelled_leaves_the_queue(gated: Gated) -> None:
    client = gated.service.client()
    running = client.submit("gate", atom(2))
    wait_for(gated.started)
    queued = client.submit("gate", atom(4))
    wait_for(lambda: gated.pending() == 1)
    assert queued.cancel()
    wait_for(lambda: gated.pending() == 0)
    gated.open()
    assert running.result(20)["energy"] == 2


def test_a_late_answer_is_never_taken_for_anothers(fake: FakeBroker) -> None:
    calculator = RemoteCalculator("it", fake.address, deadline=0.2)
    with pytest.raises(DeadlineError):
        energy_at(calculator, 1)
    (late,) = fake.requests()

    def reply(message: Message) -> list[Message]:
        if isinstance(message, Request):
            wrong, right = failure("no_workers", "the late one"), failure("no_workers", "its own")
            return [Answer(*late.key, error=wrong), Answer(*message.key, error=right)]
        return []

    fake.reply = reply
    with pytest.raises(NoWorkersError, match="its own"):
        energy_at(calculator, 2)
    assert any(isinstance(message, Cancel) for message in fake.received)
