"""A broker and workers in threads of the test's own process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aserpc import Broker, Client, RemoteCalculator, Worker, broker_status
from support.waiting import SOON, wait_for

Serving = Broker | Worker


class ServingThread(threading.Thread):
    """Runs ``serve()`` and keeps what it raised."""

    def __init__(self, served: Serving) -> None:
        super().__init__(name=f"test {type(served).__name__}", daemon=True)
        self.served = served
        self.error: BaseException | None = None

    def run(self) -> None:
        """See `threading.Thread.run`."""
        try:
            self.served.serve()
        except BaseException as error:  # noqa: BLE001 -- for the test to look at
            self.error = error


class Service:
    """A broker and workers, all with their sockets in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frontend = f"ipc://{folder}/frontend.ipc"
        self.backend = f"ipc://{folder}/backend.ipc"
        self._threads: list[ServingThread] = []
        self._clients: list[Client] = []

    def start_broker(self, **options: Any) -> Broker:
        """Start a broker and wait until it serves."""
        broker = Broker(
            self.frontend,
            self.backend,
            options.pop("worker_timeout", 5.0),
            options.pop("request_queue_timeout", 10.0),
            **options,
        )
        thread = self.start(broker)
        wait_for(lambda: broker.serving.is_set() or thread.error)
        assert thread.error is None, thread.error
        return broker

    def start_worker(
        self, name: str, factory: Callable[[], Any], *, wait: bool = True, **options: Any
    ) -> Worker:
        """Start a worker and wait until the broker has it as ready."""
        options = {"idle_timeout": 60.0, "heartbeat_interval": 0.5, **options}
        worker = Worker(name, factory, self.backend, **options)
        before = self.ready(name) if wait else 0
        thread = self.start(worker)
        if wait:
            wait_for(lambda: self.ready(name) > before or thread.error)
            assert thread.error is None, thread.error
        return worker

    def start(self, served: Serving) -> ServingThread:
        """Run ``serve()`` in a thread."""
        thread = ServingThread(served)
        self._threads.append(thread)
        thread.start()
        return thread

    def stop(self, served: Serving) -> None:
        """Stop a broker or worker and wait for its end."""
        served.stop()
        self.join(served)

    def join(self, served: Serving, timeout: float = SOON) -> BaseException | None:
        """Wait until a broker or worker has ended; return what it raised."""
        (thread,) = (thread for thread in self._threads if thread.served is served)
        thread.join(timeout)
        assert not thread.is_alive(), f"{thread.name} goes on"
        return thread.error

    def ready(self, name: str) -> int:
        """Return how many workers serve a calculator."""
        counts = self.status()["workers"].get(name, {"total": 0, "loading": 0})
        return int(counts["total"] - counts["loading"])

    def status(self) -> dict[str, Any]:
        """Return the broker's status."""
        return broker_status(self.frontend)

    def calculator(self, name: str, **options: Any) -> RemoteCalculator:
        """Make a remote calculator."""
        return RemoteCalculator(name, self.frontend, options.pop("timeout", 10_000), **options)

    def client(self, **options: Any) -> Client:
        """Make a client, which is closed with the service."""
        client = Client(self.frontend, options.pop("timeout", 10_000), **options)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Stop everything; workers first, so that they can say goodbye."""
        for client in self._clients:
            client.close()
        for kind in (Worker, Broker):
            threads = [thread for thread in self._threads if isinstance(thread.served, kind)]
            for thread in threads:
                thread.served.stop()
            for thread in threads:
                thread.join(SOON)
        left = [thread.name for thread in self._threads if thread.is_alive()]
        assert not left, f"still running: {left}"
