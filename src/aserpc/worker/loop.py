"""The worker's socket, clock and calculator around `WorkerState`."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import zmq

from aserpc import socket_folder, transport
from aserpc.batchers import BatchCalculator, find_batcher
from aserpc.connection import Connection
from aserpc.errors import ProtocolError, RegistryError, WorkerFailedError
from aserpc.header import pack_header, unpack_header
from aserpc.messages import TO_WORKER, Answer, Buffer, Message, failure
from aserpc.registry import CalculatorEntry
from aserpc.remote_error import report
from aserpc.security.credentials import find_credentials
from aserpc.serving import serve_in_thread
from aserpc.settings import Settings, load_settings
from aserpc.worker.about import pack_about
from aserpc.worker.batching import Batching, Job, Limits
from aserpc.worker.calculation import Evaluation
from aserpc.worker.computing import Computer, count_atoms
from aserpc.worker.probing import find_limits
from aserpc.worker.state import WorkerState
from aserpc.worker.watchdog import Watchdog

logger = logging.getLogger(__name__)

#: How long the end waits for the last messages to leave, s.
LINGER = 5.0

#: How long a worker waits before it loads to hear that a broker on another machine takes it, s.
HANDSHAKE_TIMEOUT = 2.0


class _Stopped(BaseException):
    """The worker was told to end while it made its calculator."""


class Worker:
    """Serves a calculator to a broker.

    Parameters
    ----------
    name : str
        Name by which clients ask for the calculator.
    calculator_factory : callable or CalculatorEntry
        Makes the calculator, in the thread that computes.
    broker : str, optional
        The broker's backend address; from the settings by default.
    idle_timeout : float, optional
        Seconds without a request after which the worker ends.
    heartbeat_interval : float, optional
        Seconds between signs of life to the broker.
    workdir : path, optional
        Folder in which the calculator computes; the process changes to it once the calculator is
        made, so only a worker that has its process for itself can be given one.
    capacity : int, optional
        How many requests the broker may have with the worker. By default one; for a calculator that
        computes several structures together, two batches.
    calculation_timeout : float, optional
        Seconds after which a calculation hangs: its client is told the stack where it does, and the
        *process* ends, as nothing else would end it. By default never. Requests that hang together
        are computed again, each alone.
    max_batch : int or "auto", optional
        Most structures that are computed together, if the calculator can; 1: each is computed
        alone, as the calculator would without us.
    max_batch_atoms : int, optional
        Most atoms of structures that are computed together; also of those that ``"auto"`` tries.
    batch_wait : float, optional
        Seconds that a request waits for others to be computed with. This and the last two are by
        default what the registry's table of the calculator says, unless the environment does.

    Attributes
    ----------
    requests_handled : int
        Requests that were answered.

    Raises
    ------
    RegistryError
        By `run` and `serve`, if there is no such factory.
    WorkerFailedError
        By `run` and `serve`, if the calculator can't be made or the broker refuses the worker.
    NotAllowedError
        By `run` and `serve`, if the broker does not allow the worker's key.
    """

    def __init__(
        self,
        name: str,
        calculator_factory: Callable[[], Any] | CalculatorEntry,
        broker: str | None = None,
        idle_timeout: float | None = None,
        heartbeat_interval: float | None = None,
        *,
        workdir: Path | str | None = None,
        capacity: int | None = None,
        calculation_timeout: float | None = None,
        max_batch: int | Literal["auto"] | None = None,
        max_batch_atoms: int | None = None,
        batch_wait: float | None = None,
    ) -> None:
        self.name = name
        if isinstance(calculator_factory, CalculatorEntry):
            self.entry = calculator_factory
        else:
            self.entry = CalculatorEntry(name, calculator_factory, (), {}, "Python")
        settings = load_settings(
            {
                "ipc_backend": broker,
                "idle_timeout": idle_timeout,
                "heartbeat_interval": heartbeat_interval,
                "calculation_timeout": calculation_timeout,
                "max_batch": max_batch,
                "max_batch_atoms": max_batch_atoms,
                "batch_wait": batch_wait,
            },
            labels={"ipc_backend": "broker"},
            table=self.entry.batching,
        )
        self.broker = transport.check_address(settings.ipc_backend)
        self._credentials = find_credentials(self.broker, "worker", settings)
        self.worker_timeout = settings.worker_timeout
        self.idle_timeout = settings.idle_timeout
        self.heartbeat_interval = settings.heartbeat_interval
        limit = settings.calculation_timeout
        self.calculation_timeout = None if math.isinf(limit) else limit
        self.max_batch, self.max_batch_atoms = settings.max_batch, settings.max_batch_atoms
        self.batch_wait = settings.batch_wait
        self.workdir = workdir
        self.capacity = capacity
        self.requests_handled = 0
        #: Wakes the loop; `signal.set_wakeup_fd` takes its descriptor.
        self.waker = transport.Waker()
        self._stop = threading.Event()
        #: The thread that makes the calculator, while it does.
        self._loads_in: int | None = None
        self._in_call: Sequence[Job] = ()

    async def run(self) -> None:
        """Serve until `stop`, idleness or the broker ends it, in a thread of its own."""
        await serve_in_thread(self.serve, self.stop, f"aserpc worker {self.name}")

    def stop(self) -> None:
        """Finish the running request, answer it, and end `run` or `serve`; from any thread.

        A signal handler that calls this ends the making of the calculator, too.
        """
        self._stop.set()
        self.waker.wake()
        if self._loads_in == threading.get_ident():
            raise _Stopped  # in a signal handler: nothing is computed yet that should be finished

    def serve(self) -> None:
        """Serve until `stop`, idleness or the broker ends it, in this thread."""
        identity = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "spawn_id": os.environ.get("ASERPC_SPAWN_ID"),
        }
        self._state = WorkerState(
            self.name,
            identity,
            self.idle_timeout,
            self.heartbeat_interval,
            time.monotonic(),
            capacity=self.capacity,
            calculation_timeout=self.calculation_timeout,
        )
        limit = self.calculation_timeout
        self._watchdog = nullcontext() if limit is None else Watchdog(limit, self._hung)
        self._context = context = transport.make_context()
        self._connection = Connection(
            context, self.broker, "worker", self._credentials, self.worker_timeout
        )
        self._socket = self._connection.socket
        logger.info("connecting to %s", self.broker)
        try:
            # What takes minutes to load had better be wanted.
            self._connection.wait_for_handshake(HANDSHAKE_TIMEOUT)
            self._raise_if_refused()
            self._send(self._state.start())
            self._loop(self._load(identity))
        finally:
            # What is still to leave gets its time, a broker that is gone does not get it.
            self._stop.clear()
            waits = self._state.waiting_since(float("inf")) is not None
            context.destroy(linger=0 if waits else int(LINGER * 1000))
        if self._mistake is not None:
            raise self._mistake
        if self._state.error is not None:
            raise WorkerFailedError(self._state.error)
        logger.info("ended after %d requests", self.requests_handled)

    def _load(self, identity: dict[str, Any]) -> Computer | None:
        self._mistake: RegistryError | None = None
        try:
            try:
                self._loads_in = threading.get_ident()
                if self._stop.is_set():
                    raise _Stopped
                computer = self._make(identity)
            finally:
                self._loads_in = None
        except KeyboardInterrupt:  # the second signal
            raise
        except BaseException as error:
            self._loads_in = None
            if self._stop.is_set():  # perhaps as another exception, which somebody made of ours
                return None
            logger.debug("making the calculator", exc_info=True)
            what = {"kind": "worker_failed", **report(error)}
            self._send(self._state.load_failed(what, time.monotonic()))
            return None
        self._send(self._state.loaded(self._about, time.monotonic(), self._batching))
        return computer

    def _make(self, identity: dict[str, Any]) -> Computer:
        try:
            self.entry.load()
        except RegistryError as error:
            self._mistake = error
            raise
        calculator = self.entry.make()
        evaluation = Evaluation(calculator)
        self._about = pack_about(self.entry, evaluation.implemented_properties, identity)
        if self.workdir is not None:
            Path(self.workdir).mkdir(parents=True, exist_ok=True)
            os.chdir(self.workdir)
        batcher = None if self.max_batch == 1 else find_batcher(calculator)
        self._batching = Batching(self._limits(batcher), count_atoms)
        return Computer(evaluation, batcher, self._batching, self._about, self._watch)

    def _limits(self, batcher: BatchCalculator | None) -> Limits:
        """Return how large batches may be."""
        if batcher is None:
            return Limits()
        number, most_atoms = self.max_batch, self.max_batch_atoms
        structures = Settings.max_batch if number == "auto" else number
        assert structures != "auto"
        limits = Limits(structures, most_atoms or Limits.atoms, self.batch_wait)
        if number == "auto":
            limits = find_limits(batcher, limits, most_atoms=most_atoms)
        text = "up to %d structures with %d atoms are computed together"
        logger.info(text, limits.structures, limits.atoms)
        return limits

    def _watch(self, jobs: Sequence[Job]) -> AbstractContextManager[Any]:
        self._in_call = jobs
        return self._watchdog

    def _loop(self, computer: Computer | None) -> None:
        state, clock = self._state, time.monotonic
        poller = zmq.Poller()
        for readable in (self._socket, *self._connection.readable(), self.waker.fileno()):
            poller.register(readable, zmq.POLLIN)
        waker = self.waker.fileno()
        while not state.ended:
            if (begins_at := state.begins_at()) <= clock():
                # The next one is here already: a word about it may be, too.
                if transport.has_message(self._socket):
                    self._drain()
            else:
                wait = min(state.next_tick(), begins_at) - clock()
                ready = dict(poller.poll(transport.milliseconds(min(wait, 1.0))))
                if waker in ready:
                    self.waker.clear()
                if self._socket in ready:
                    self._drain()
            self._raise_if_refused()
            if self._stop.is_set():
                self._send(state.finish(clock()))
            batch = state.next_batch(clock())
            if batch:
                assert computer is not None
                for number, (answer, payload) in enumerate(computer.answers(batch)):
                    waits = number == 0 and self._batching.limits.wait > 0
                    if waits and transport.has_message(self._socket):
                        # Who is there before an answer leaves is none who got it: see `take`.
                        self._drain()
                    self.requests_handled += 1
                    self._send(state.computed(answer, clock(), payload), payload)
                continue
            now = clock()
            self._send(state.tick(now))
            since = state.waiting_since(now)
            if since is not None:
                where, trouble = socket_folder.where(self.broker), self._connection.trouble()
                logger.warning("waiting for a broker at %s", f"{where}. {trouble}".strip(". "))

    def _hung(self, stack: str) -> None:
        """Say where a call of the calculator hangs, before its process ends.

        Called in the watchdog's thread, while the worker's own thread can't leave the calculation:
        the socket is this thread's.
        """
        why = f"the calculation took longer than {self.calculation_timeout:g} s"
        why += f" (calculation_timeout) and was ended with its worker, process {os.getpid()}"
        logger.error("%s", why)
        error = failure("calculation_timeout", f"{why}. It hung in:\n{stack}")
        keys = [job.request.key for job in self._in_call]
        if len(keys) > 1:
            text = "%d structures were computed together; each is computed again alone: %s"
            logger.warning(text, len(keys), stack)
        self._send(self._state.hung(keys, error, time.monotonic()))
        self._context.destroy(linger=int(LINGER * 1000))

    def _raise_if_refused(self) -> None:
        if (refused := self._connection.refused()) is not None:
            raise refused

    def _drain(self) -> None:
        while True:
            try:
                frames = transport.receive(self._socket)
            except zmq.Again:
                return
            try:
                message = unpack_header(frames[0], TO_WORKER)
            except ProtocolError as error:
                logger.warning("the broker sent what is no message: %s", error)
            else:
                self._send(self._state.receive(message, frames[1:], time.monotonic()))
            if not transport.has_message(self._socket):
                return

    def _send(self, messages: list[Message], payload: list[Buffer] | None = None) -> None:
        """Send messages; the payload is that of the answer among them, unless it is given again."""
        for message in messages:
            frames: list[Buffer] = [pack_header(message)]
            if isinstance(message, Answer):
                frames += payload or self._state.payload(message)
            try:
                transport.send(self._socket, frames)
            except zmq.Again:
                # No broker has read for long; whoever waits for an answer will ask again.
                logger.warning("no room for a message to %s", self.broker)
