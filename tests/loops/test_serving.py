"""Brokers and workers start, stop and share a process in every way that is promised."""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from aserpc import (
    Broker,
    RemoteCalculator,
    Worker,
    broker_status,
    list_calculators,
    shutdown_workers,
)
from aserpc.errors import AddressError, WorkerFailedError
from support.calculators import Spring, Unmakable
from support.service import Service
from support.waiting import SOON, wait_for


def energy(address: str, name: str = "spring") -> float:
    calculator = RemoteCalculator(name, address, check_broker=False, timeout=10_000)
    return float(calculator.get_property("energy", Atoms("H", [(2, 0, 0)])))


def test_both_stop_from_any_thread(service: Service) -> None:
    broker = service.start_broker()
    worker = service.start_worker("spring", Spring)
    assert energy(service.frontend) == 2
    for served in (worker, broker):
        thread = threading.Thread(target=served.stop)
        thread.start()
        thread.join()
        assert service.join(served) is None
    assert not [path for path in service.folder.iterdir() if path.suffix == ".ipc"]


def test_stopped_before_it_serves_it_ends_at_once(service: Service) -> None:
    broker = Broker(service.frontend, service.backend)
    broker.stop()
    service.start(broker)
    assert service.join(broker) is None
    service.start_broker()
    worker = Worker("spring", Spring, service.backend)
    worker.stop()
    service.start(worker)
    assert service.join(worker) is None


def test_stopping_again_does_nothing(service: Service) -> None:
    broker = service.start_broker()
    worker = service.start_worker("spring", Spring)
    for served in (worker, broker):
        service.stop(served)
        served.stop()


def test_gathered_in_a_thread_that_is_not_the_main_one(service: Service) -> None:
    broker = Broker(service.frontend, service.backend)
    worker = Worker("spring", Spring, service.backend)

    async def serve() -> None:
        await asyncio.gather(broker.run(), worker.run())

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        wait_for(broker.serving.is_set)
        wait_for(lambda: list_calculators(service.frontend) == {"spring": 1})
        assert energy(service.frontend) == 2
        assert worker.requests_handled == 1
    finally:
        worker.stop()
        broker.stop()
        thread.join(SOON)
    assert not thread.is_alive()


def test_the_event_loop_goes_on_meanwhile(service: Service) -> None:
    broker = Broker(service.frontend, service.backend)
    worker = Worker("emt", EMT, service.backend)

    async def main() -> float:
        serving = asyncio.gather(broker.run(), worker.run())
        while not broker.serving.is_set():
            await asyncio.sleep(0.001)
        wait = asyncio.to_thread(wait_for, lambda: list_calculators(service.frontend) == {"emt": 1})
        await wait
        value = await asyncio.to_thread(energy, service.frontend, "emt")
        worker.stop()
        broker.stop()
        await serving
        return value

    assert asyncio.run(main()) == EMT().get_potential_energy(Atoms("H", [(2, 0, 0)]))


@pytest.mark.parametrize("what", ["broker", "worker"])
def test_cancelling_run_stops_it(service: Service, what: str) -> None:
    async def main() -> None:
        broker = Broker(service.frontend, service.backend)
        tasks = {"broker": asyncio.create_task(broker.run())}
        while not broker.serving.is_set():
            await asyncio.sleep(0.001)
        worker = Worker("spring", Spring, service.backend)
        tasks["worker"] = asyncio.create_task(worker.run())
        await asyncio.to_thread(
            wait_for, lambda: broker_status(service.frontend)["workers"].get("spring")
        )
        for name in (what, *tasks):
            tasks[name].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[name]

    asyncio.run(main())


def test_run_raises_what_serve_does(service: Service) -> None:
    service.start_broker()

    worker = Worker("broken", Unmakable, service.backend)
    with pytest.raises(WorkerFailedError, match="the model file is missing"):
        asyncio.run(worker.run())


def test_a_second_broker_is_refused(service: Service) -> None:
    service.start_broker()
    service.start_worker("spring", Spring)
    second = Broker(service.frontend, service.backend)
    with pytest.raises(AddressError, match=r"another broker.* already serves"):
        second.serve()
    assert energy(service.frontend) == 2, "the first one is none the worse"


def test_a_second_broker_on_the_backend_alone_is_refused(service: Service) -> None:
    service.start_broker()
    service.start_worker("spring", Spring)
    second = Broker(f"{service.frontend}2", service.backend)
    with pytest.raises(AddressError, match=r"another broker.* already serves"):
        second.serve()
    assert energy(service.frontend) == 2
    assert not (service.folder / "frontend.ipc2").exists()


def test_stale_socket_files_are_no_obstacle(service: Service) -> None:
    for name in ("frontend.ipc", "backend.ipc", "frontend.ipc.lock", "broker.json"):
        (service.folder / name).write_bytes(b"left by a broker that was killed")
    (service.folder / "workers.msgpack").write_bytes(b"\xc1\xc1")
    service.start_broker()
    service.start_worker("spring", Spring)
    assert energy(service.frontend) == 2


def test_brokers_follow_each_other_at_once(service: Service) -> None:
    for _ in range(10):
        broker = service.start_broker()
        assert broker_status(service.frontend)
        service.stop(broker)


def test_the_folder_is_made_for_its_owner_only(service: Service) -> None:
    folder = service.folder / "new" / ".aserpc"
    broker = Broker(f"ipc://{folder}/f", f"ipc://{folder}/b")
    service.start(broker)
    wait_for(broker.serving.is_set)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    service.stop(broker)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda address: Broker(address, address), id="broker"),
        pytest.param(lambda address: Worker("spring", Spring, address), id="worker"),
        pytest.param(lambda address: RemoteCalculator("spring", address), id="client"),
    ],
)
def test_a_path_too_long_for_a_socket_says_what_to_set(
    tmp_path: Path, make: Callable[[str], object]
) -> None:
    address = f"ipc://{tmp_path / ('x' * 120)}/f.ipc"
    with pytest.raises(AddressError, match="ASERPC_IPC_DIR"):
        make(address)


def test_a_worker_started_before_its_broker_serves_when_it_is_there(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker("spring", Spring, service.backend)
    service.start(worker)
    wait_for(lambda: "waiting for a broker" in caplog.text)
    assert str(service.folder) in caplog.text
    service.start_broker()
    wait_for(lambda: service.ready("spring"))
    assert energy(service.frontend) == 2


def test_an_idle_worker_leaves(service: Service) -> None:
    service.start_broker()
    worker = service.start_worker("spring", Spring, idle_timeout=0.3)
    assert service.join(worker) is None
    wait_for(lambda: not list_calculators(service.frontend))


def test_an_idle_worker_without_a_broker_leaves_too(service: Service) -> None:
    worker = Worker("spring", Spring, service.backend, idle_timeout=0.2)
    service.start(worker)
    assert service.join(worker) is None


def test_workers_are_shut_down_by_name(service: Service) -> None:
    service.start_broker()
    springs = [service.start_worker("spring", Spring) for _ in range(2)]
    other = service.start_worker("other", Spring)
    assert shutdown_workers("spring", service.frontend) == 2
    for worker in springs:
        assert service.join(worker) is None
    wait_for(lambda: list_calculators(service.frontend) == {"other": 1})
    assert shutdown_workers("nobody", service.frontend) == 0
    assert shutdown_workers(None, service.frontend) == 1
    service.join(other)


def test_a_different_worker_of_the_same_name_is_refused(service: Service) -> None:
    service.start_broker()
    service.start_worker("it", Spring)
    worker = Worker("it", EMT, service.backend)
    service.start(worker)
    error = service.join(worker)
    assert isinstance(error, WorkerFailedError)
    assert "--allow-mixed" in str(error)
    assert energy(service.frontend, "it") == 2


def test_mixed_workers_are_allowed_where_the_broker_is_told_so(service: Service) -> None:
    service.start_broker(allow_mixed=True)
    service.start_worker("it", Spring)
    service.start_worker("it", EMT)
    assert list_calculators(service.frontend) == {"it": 2}


def test_a_new_broker_knows_the_workers_of_the_last(service: Service) -> None:
    first = service.start_broker()
    service.start_worker("spring", Spring)
    wait_for((service.folder / "workers.msgpack").exists)
    service.stop(first)
    service.start_broker()
    assert energy(service.frontend) == 2, "the request waits for the worker"


def test_a_broker_that_was_stopped_can_serve_again(service: Service) -> None:
    broker = service.start_broker()
    service.stop(broker)
    thread = threading.Thread(target=broker.serve)
    thread.start()
    wait_for(broker.serving.is_set)
    assert broker_status(service.frontend)["workers"] == {}
    broker.stop()
    thread.join(SOON)
    assert not thread.is_alive()
