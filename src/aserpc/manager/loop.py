"""The manager's socket, clock and processes around `ManagerState`."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zmq

from aserpc import logs, socket_folder, transport
from aserpc.connection import Connection
from aserpc.errors import (
    AddressError,
    AserpcError,
    NotAllowedError,
    ProtocolError,
    SpawnError,
)
from aserpc.header import pack_header, unpack_header
from aserpc.manager.records import Effect, Send, Start
from aserpc.manager.spawned import Spawned, pack_spawned, unpack_spawned
from aserpc.manager.spawners import Handle, Spawner, Spec
from aserpc.manager.spawners.local import LocalSpawner
from aserpc.manager.state import ManagerState
from aserpc.messages import TO_MANAGER, Message, Refuse, Reload
from aserpc.security.credentials import find_credentials
from aserpc.serving import serve_in_thread
from aserpc.settings import load_settings
from aserpc.spawn import SpawnConfig
from aserpc.spawn.environments import child_environment

logger = logging.getLogger(__name__)

#: How often processes are looked at, and the last lines of those that start, s.
POLL_INTERVAL, TELL_INTERVAL = 0.1, 1.0

#: How many working folders of a calculator's workers that failed are kept.
KEPT_FOLDERS = 5

#: Lines, and characters, of a worker's output that tell how it ended: a stack is the most of it.
EVIDENCE_LINES, EVIDENCE_SIZE = 60, 20_000


class Manager:
    """Starts workers when their calculators are asked for.

    Parameters
    ----------
    configs : dict of str to SpawnConfig
        What can be started.
    broker : str, optional
        The broker's address for workers; from the settings by default.
    heartbeat_interval : float, optional
        Seconds between signs of life to the broker.
    gpus : list of str
        Ids of the GPUs that workers may be given.
    max_workers_total : int, optional
        Most processes of all calculators together.
    load : callable, optional
        Returns the configurations again, for `reload`.
    spawner : Spawner, optional
        Where processes run; this machine by default.
    """

    def __init__(
        self,
        configs: Mapping[str, SpawnConfig],
        broker: str | None = None,
        heartbeat_interval: float | None = None,
        *,
        gpus: list[str] | None = None,
        max_workers_total: int | None = None,
        load: Callable[[], Mapping[str, SpawnConfig]] | None = None,
        spawner: Spawner | None = None,
    ) -> None:
        settings = load_settings(
            {"ipc_backend": broker, "heartbeat_interval": heartbeat_interval},
            labels={"ipc_backend": "broker"},
        )
        self.configs = dict(configs)
        self.broker = transport.check_address(settings.ipc_backend)
        self._credentials = find_credentials(self.broker, "manager", settings)
        self._keys_dir = settings.keys_dir
        self._refused: NotAllowedError | None = None
        self.heartbeat_interval = settings.heartbeat_interval
        self.folder = settings.ipc_dir
        self.waker = transport.Waker()
        self._spawner: Spawner = spawner or LocalSpawner()
        self._load = load
        self._handles: dict[str, Handle] = {}
        self._names: dict[str, str] = {}
        #: Working folders that are kept, by the calculator's name, the oldest first.
        self._kept: dict[str, deque[Path]] = {}
        self._stop = threading.Event()
        self._reload = threading.Event()
        self._state = ManagerState(
            self.configs,
            {"pid": os.getpid(), "host": socket.gethostname()},
            gpus or [],
            max_workers_total,
            self.heartbeat_interval,
            lambda: secrets.token_hex(4),
        )

    async def run(self) -> None:
        """Serve until `stop`, in a thread of its own."""
        await serve_in_thread(self.serve, self.stop, "aserpc manager")

    def stop(self) -> None:
        """End the workers, then `run` or `serve`; from any thread."""
        self._stop.set()
        self.waker.wake()

    def reload(self) -> None:
        """Load the configurations again; from any thread."""
        self._reload.set()
        self.waker.wake()

    def get_status(self) -> dict[str, Any]:
        """Return what runs: {name: {"processes", "health", "reason", "gpus"}}."""
        return {
            name: {
                "processes": {p.spawn_id: p.state.value for p in fleet.processes.values()},
                "health": fleet.health.value,
                "reason": fleet.reason,
                "gpus": {p.spawn_id: list(p.gpus) for p in fleet.processes.values() if p.gpus},
            }
            for name, fleet in self._state.fleets.items()
        }

    def serve(self) -> None:
        """Serve until `stop`, in this thread."""
        socket_folder.make_private_folder(self.folder)  # may come before its broker
        context = transport.make_context()
        self._connection = Connection(context, self.broker, "manager", self._credentials)
        self._socket = self._connection.socket
        logger.info("offering %s at %s", ", ".join(self.configs), self.broker)
        state, clock = self._state, time.monotonic
        poller = zmq.Poller()
        for readable in (self._socket, *self._connection.readable(), self.waker.fileno()):
            poller.register(readable, zmq.POLLIN)
        tell_at = 0.0
        try:
            self._adopt()
            self._perform(state.start(clock()))
            while not state.ended:
                wait = min(state.next_tick() - clock(), POLL_INTERVAL if self._handles else 1.0)
                if self.waker.fileno() in dict(poller.poll(transport.milliseconds(wait))):
                    self.waker.clear()
                if (refused := self._connection.refused()) is not None:
                    self._end_refused(refused)
                if self._stop.is_set() and not state.finishing:
                    self._perform(state.finish(clock()))
                if self._reload.is_set():
                    self._load_again()
                self._drain()
                self._look()
                if clock() >= tell_at:
                    tell_at = clock() + TELL_INTERVAL
                    self._tell()
                self._perform(state.tick(clock()))
            self._send(state.goodbye())
        finally:
            context.destroy(linger=1000)
        if self._refused is not None:
            raise self._refused
        logger.info("stopped")

    def _end_refused(self, error: NotAllowedError) -> None:
        """End in order, with the workers: they would be refused too."""
        if self._refused is None:
            logger.error("%s", error)
            self._refused = error
            self._stop.set()

    def _drain(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                frames = transport.receive(self._socket)
                try:
                    message = unpack_header(frames[0], TO_MANAGER)
                except ProtocolError as error:
                    logger.warning("the broker sent what is no message: %s", error)
                    continue
                if isinstance(message, Reload):
                    self._load_again()
                if isinstance(message, Refuse):
                    text = f"the broker at {self.broker} refuses the manager: {message.reason}"
                    self._end_refused(NotAllowedError(text))
                self._perform(self._state.receive(message, time.monotonic()))

    def _look(self) -> None:
        """See what has become of the processes; keep their logs short."""
        looked_at = dict(self._handles)
        for spawn_id, status in self._spawner.poll(looked_at).items():
            now = time.monotonic()
            if status.state == "running":
                self._perform(self._state.running(spawn_id, now))
            elif status.state == "exited":
                handle = self._handles.pop(spawn_id)
                self._clean(spawn_id, failed=status.failed)
                self._save()
                output = self._spawner.logs(handle, EVIDENCE_LINES)[-EVIDENCE_SIZE:]
                how = f"its process {status.why}"
                self._perform(self._state.exited(spawn_id, how, output, now))
        for handle in looked_at.values():
            if "log" in handle:
                logs.bound(Path(str(handle["log"])))

    def _tell(self) -> None:
        """Tell those who wait how starts get on."""
        for spawn_id, handle in self._handles.items():
            line = self._spawner.logs(handle, 1)
            self._perform(self._state.tell(spawn_id, line[-200:], time.monotonic()))

    def _perform(self, effects: list[Effect]) -> None:
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            if isinstance(effect, Send):
                self._send(effect.message)
            elif isinstance(effect, Start):
                todo += self._start(effect)
            elif effect.spawn_id in self._handles:
                self._spawner.stop(self._handles[effect.spawn_id], kill=effect.kill)

    def _send(self, message: Message) -> None:
        with contextlib.suppress(zmq.Again):
            transport.send(self._socket, [pack_header(message)])

    def _start(self, start: Start) -> list[Effect]:
        config, spawn_id = start.config, start.spawn_id
        label = _label(config.name, spawn_id)
        try:
            socket_folder.make_private_folder(self.folder)  # somebody may have removed it
            rendered = config.render(broker=self.broker, spawn_id=spawn_id, gpu=start.gpu)
            workdir = self.folder / "work" / label
            env = child_environment(os.environ, rendered, config, os.cpu_count() or 1)
            env.setdefault("ASERPC_IPC_DIR", str(self.folder))  # also from another folder
            env.setdefault("ASERPC_WORKDIR", str(workdir))
            if self._credentials is not None:
                # As found here: from another folder they might be others.
                env["ASERPC_KEYS_DIR"] = str(self._keys_dir)
                env["ASERPC_BROKER_KEY"] = str(self._credentials.broker)
                env.update(rendered.env)
            spec = Spec(
                name=config.name,
                spawn_id=spawn_id,
                command=rendered.command,
                env=env,
                cwd=Path(rendered.cwd or Path.cwd()),
                log=self.folder / "logs" / f"{label}.log",
            )
            self._handles[spawn_id] = {**self._spawner.start(spec), "workdir": str(workdir)}
            self._names[spawn_id] = config.name
        except (SpawnError, AddressError, OSError) as error:
            return self._state.exited(spawn_id, str(error), None, time.monotonic())
        self._save()
        return []

    def _load_again(self) -> None:
        self._reload.clear()
        if self._load is None:
            return
        try:
            configs = self._load()
        except AserpcError as error:
            logger.error("the configuration stays as it was: %s", error)
            return
        logger.info("loaded the configuration again: %s", ", ".join(configs))
        self._perform(self._state.reload(configs, time.monotonic()))

    # ---- what outlives the manager ---------------------------------------------------------------

    def _file(self, pid: int) -> Path:
        return self.folder / f"spawned-{pid}.json"

    def _save(self) -> None:
        """Note the processes, for a manager that comes after this one was killed."""
        spawned: dict[str, Spawned] = {
            spawn_id: {
                "name": self._names[spawn_id],
                "gpus": list(self._state.devices.of(spawn_id)),
                "part": self._state.devices.part_of(spawn_id),
                "handle": handle,
            }
            for spawn_id, handle in self._handles.items()
        }
        self._note(self._file(os.getpid()), spawned)

    def _note(self, path: Path, spawned: Mapping[str, Spawned]) -> None:
        try:
            if spawned:
                socket_folder.write_private(path, pack_spawned(spawned))
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("cannot note the workers in %s: %s", path, error.strerror)

    def _adopt(self) -> None:
        """Take over the workers of managers that were killed."""
        for path in self.folder.glob("spawned-*.json"):
            pid = path.stem.partition("-")[2]
            if Path(f"/proc/{pid}").exists() and pid != str(os.getpid()):
                continue
            try:
                spawned = unpack_spawned(path.read_bytes())
            except (OSError, ValueError) as error:
                logger.warning(
                    "cannot read which workers were started, in %s: %s. They are not counted, and "
                    "end when they are idle; remove the file",
                    path,
                    error,
                )
                continue
            others: dict[str, Spawned] = {}
            for spawn_id, entry in spawned.items():
                name, handle = entry["name"], entry["handle"]
                if not self._spawner.adopt(handle):
                    continue
                if name not in self.configs:
                    others[spawn_id] = entry
                    continue
                logger.info("took over a worker of %r", name)
                self._handles[spawn_id], self._names[spawn_id] = handle, name
                gpus, part = tuple(entry["gpus"]), entry["part"]
                self._state.adopt(name, spawn_id, gpus, time.monotonic(), part)
            self._note(path, others)
        self._save()

    def _clean(self, spawn_id: str, *, failed: bool) -> None:
        """Remove the working folder of a worker, but keep the last ones that failed.

        Others that are there may be in use: by workers of other managers, or started by hand.
        """
        name = self._names.pop(spawn_id)
        path = self.folder / "work" / _label(name, spawn_id)
        if failed and path.is_dir():
            kept = self._kept.setdefault(name, deque())
            kept.append(path)
            if len(kept) <= KEPT_FOLDERS:
                return
            path = kept.popleft()
        shutil.rmtree(path, ignore_errors=True)


def _label(name: str, spawn_id: str) -> str:
    """Return what the files of a process are called."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}-{spawn_id}"
