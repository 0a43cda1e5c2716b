"""Many requests at once, as futures."""

from __future__ import annotations

import gc
import os
import pickle
import threading
import weakref
from concurrent.futures import CancelledError, Future, as_completed, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError, SCFError

from aserpc import Client
from aserpc.client import io_thread
from aserpc.errors import DeadlineError, NoWorkersError, PayloadError
from support.asking import atom
from support.calculators import Failing, Gate, Generous, Spring
from support.service import Service
from support.waiting import wait_for


@pytest.fixture
def client(service: Service) -> Client:
    """A client of a broker with two workers."""
    service.start_broker()
    for _ in range(2):
        service.start_worker("spring", Spring)
    return service.client()


def test_each_future_gets_its_own_result(client: Client) -> None:
    futures = [client.submit("spring", atom(x)) for x in range(1000)]
    for x, future in enumerate(futures):
        results = future.result(20)
        assert results["energy"] == x * x / 2
        assert results["forces"].tolist() == [[-x, 0, 0]]
        assert results.provenance["pid"] == os.getpid()


def test_what_is_submitted_is_sent_meanwhile(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_thread, "PATIENCE", 30.0)
    unsent = []
    futures = []
    for x in range(500):
        futures.append(client.submit("spring", atom(x)))
        unsent.append(len(io_thread._threads[client.broker]._calls))
    assert max(unsent) < io_thread.MAX_UNSENT
    assert [future.result(20)["energy"] for future in futures] == [x**2 / 2 for x in range(500)]


def test_a_callback_may_submit_very_many(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_thread, "PATIENCE", 30.0)
    futures: list[Future[Any]] = []

    def more(_: Future[Any]) -> None:
        futures.extend(client.submit("spring", atom(x)) for x in range(4 * io_thread.MAX_UNSENT))

    client.submit("spring", atom(1)).add_done_callback(more)
    wait_for(lambda: len(futures) == 4 * io_thread.MAX_UNSENT)
    assert futures[-1].result(20)["energy"] == (len(futures) - 1) ** 2 / 2


@pytest.mark.parametrize("end", ["result", "exception", "cancel"])
def test_the_collector_need_not_look_for_futures(client: Client, end: str) -> None:
    asked = ["energy"] if end == "result" else ["dipole"]
    gc.disable()
    try:
        future = client.submit("spring", atom(1), asked)
        if end == "cancel":
            future.cancel()
        wait([future], 20)
        assert future.cancelled() or (future.exception() is None) is (end == "result")
        left = weakref.ref(future)
        del future
        wait_for(lambda: left() is None)  # the client's thread has it a little longer
    finally:
        gc.enable()


def test_the_structure_may_change_once_it_is_submitted(client: Client) -> None:
    atoms = Atoms(f"H{5000}", np.ones((5000, 3)))
    future = client.submit("spring", atoms)
    atoms.positions[:] = 7
    assert future.result(20)["energy"] == 7500


def test_errors_arrive_by_the_future(client: Client, service: Service) -> None:
    service.start_worker("failing", Failing)
    atoms = atom(1)
    atoms.info["error"] = "SCFError"
    errors = {
        client.submit("failing", atoms): SCFError,
        client.submit("spring", atoms, ["dipole"]): PropertyNotImplementedError,
        client.submit("nobody", atoms): NoWorkersError,
    }
    for future in as_completed(errors, 20):
        assert isinstance(future.exception(), errors[future])


def test_mistakes_are_raised_at_once_and_disturb_nobody(client: Client) -> None:
    good = client.submit("spring", atom(2))
    odd = atom(1)
    odd.arrays["positions"] = np.array([[object()] * 3])
    with pytest.raises(PayloadError):
        client.submit("spring", odd)
    with pytest.raises(TypeError):
        client.submit("spring", atom(1), "energy")
    with pytest.raises(TypeError):
        client.submit("spring", atom(1), [1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="list of names, not None"):
        client.submit("spring", atom(1), None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="list of names"):
        client.submit("spring", atom(1), ["energy", "\ud800"])
    with pytest.raises(TypeError, match="priority is a whole number, not"):
        client.submit("spring", atom(1), priority=1.5)  # type: ignore[arg-type]
    for priority in (1 << 63, -(1 << 64)):
        with pytest.raises(ValueError, match="priority is a whole number of at most 64 bits"):
            client.submit("spring", atom(1), priority=priority)
    for deadline in (0, -1.0, float("nan"), "1"):
        with pytest.raises(ValueError, match="deadline"):
            client.submit("spring", atom(1), deadline=deadline)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no calculator name"):
        client.submit("", atom(1))
    with pytest.raises(TypeError, match="is a text"):
        client.submit(None, atom(1))  # type: ignore[arg-type]
    assert good.result(20)["energy"] == 2


def test_what_goes_wrong_with_one_answer_is_that_ones_and_not_the_threads(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(payload: object) -> dict[str, Any]:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("aserpc.client.submission.unpack_results", too_large)
        with pytest.raises(MemoryError, match="no room"):
            client.submit("spring", atom(1)).result(20)
        (before,) = [thread for thread in threading.enumerate() if thread.name == "aserpc client"]
    assert client.submit("spring", atom(2)).result(20)["energy"] == 2
    assert before.is_alive()


def test_a_deadline_ends_one_of_many(service: Service, tmp_path: Path) -> None:
    service.start_broker()
    service.start_worker("gate", lambda: Gate(str(tmp_path)))
    client = service.client()
    hurried = client.submit("gate", atom(2), deadline=0.2)
    patient = client.submit("gate", atom(4))
    with pytest.raises(DeadlineError):
        hurried.result(20)
    (tmp_path / "go").touch()
    assert patient.result(20)["energy"] == 8


def test_closing_cancels_what_waits(service: Service, tmp_path: Path) -> None:
    service.start_broker()
    service.start_worker("gate", lambda: Gate(str(tmp_path)))
    with service.client() as client:
        futures = [client.submit("gate", atom(x)) for x in range(5)]
        wait_for(lambda: list(tmp_path.glob("started-*")))
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(0)
    wait_for(lambda: not service.status()["pending_requests"])
    (tmp_path / "go").touch()
    assert client.submit("gate", atom(2)).result(20)["energy"] == 2, "it stays usable"


def test_a_closed_clients_thread_ends_and_anothers_goes_on(service: Service) -> None:
    service.start_broker()
    service.start_worker("spring", Spring)

    def threads() -> int:
        return sum(thread.name == "aserpc client" for thread in threading.enumerate())

    with service.client() as one, service.client() as other:
        one.submit("spring", atom(2)).result(20)
        assert threads() == 1
        one.close()
        assert other.submit("spring", atom(4)).result(20)["energy"] == 8
    wait_for(lambda: threads() == 0)


def test_many_threads_submit_and_close(client: Client, service: Service) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for x in range(20):
                with service.client() as mine:
                    assert mine.submit("spring", atom(x)).result(20)["energy"] == x * x / 2
        except BaseException as error:  # noqa: BLE001 -- shown below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_callback_may_submit_and_close(client: Client) -> None:
    second: list[Future[Any]] = []
    called = threading.Event()

    def go_on(first: Future[Any]) -> None:
        second.append(client.submit("spring", atom(first.result()["energy"])))
        called.set()

    client.submit("spring", atom(2)).add_done_callback(go_on)
    assert called.wait(20)
    assert second[0].result(20)["energy"] == 2
    client.submit("spring", atom(3)).add_done_callback(lambda _: client.close())
    wait_for(lambda: not any(thread.name == "aserpc client" for thread in threading.enumerate()))


@pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning")
def test_pickled_and_forked(client: Client) -> None:
    client.submit("spring", atom(1)).result(20)
    again = pickle.loads(pickle.dumps(client))
    assert again.submit("spring", atom(2)).result(20)["energy"] == 2
    again.close()
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            code = int(client.submit("spring", atom(4)).result(20)["energy"])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 8


def test_large_systems_arrive_bitwise(client: Client) -> None:
    rng = np.random.default_rng(1)
    atoms = Atoms(np.full(200_000, 29), rng.random((200_000, 3)))
    atoms.set_array("flags", rng.integers(0, 9, (200_000, 9)).astype(np.int16))
    futures = [client.submit("spring", atoms) for _ in range(4)]
    for future in futures:
        forces = future.result(20)["forces"]
        assert np.array_equal(forces, -atoms.positions)
        forces[:] = 0  # writable, and nobody else's


def test_own_results_arrive(client: Client, service: Service) -> None:
    service.start_worker("generous", Generous)
    results = client.submit("generous", atom(1)).result(20)
    assert results["uncertainty"]["forces"].shape == (1, 3)
