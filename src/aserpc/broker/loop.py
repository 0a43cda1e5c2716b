"""The broker's sockets and clock around `BrokerState`."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from aserpc import socket_folder, transport
from aserpc.broker.doors import Door
from aserpc.broker.effects import Effect, ToClient
from aserpc.broker.gate import Gate
from aserpc.broker.monitors import Monitors
from aserpc.broker.outbox import Outbox
from aserpc.broker.peers import is_remote, user_of
from aserpc.broker.reception import Reception
from aserpc.broker.roster_file import RosterFile
from aserpc.broker.state import BrokerState
from aserpc.errors import AddressError, KeysError, ProtocolError
from aserpc.header import pack_header
from aserpc.messages import FROM_CLIENT, FROM_WORKER, IDENTITY_SIZE, Answer, Buffer, Message
from aserpc.security.access import Access, Gatekeeper
from aserpc.security.folder import KeyFolder
from aserpc.security.keys import SecretKey, check_curve
from aserpc.security.roles import ANYBODY, refusal
from aserpc.serving import serve_in_thread
from aserpc.settings import load_settings

logger = logging.getLogger(__name__)

#: Messages taken from one socket before the other gets its turn.
DRAIN = 200

#: Messages that libzmq keeps for one client before they go to the outbox.
CLIENT_HIGH_WATER_MARK = 1000

#: How often a full connection is tried again, s.
RETRY_INTERVAL = 0.01

#: How long the end waits for the last messages to leave, s.
LINGER = 2.0


class Broker:
    """Routes requests from clients to workers and answers back.

    Parameters
    ----------
    frontend, backend : str, optional
        Addresses for clients and for workers; from the settings by default. A tcp address is
        served besides the sockets in the settings' `ipc_dir`.
    worker_timeout : float, optional
        Seconds after which a silent worker is lost.
    request_queue_timeout : float, optional
        Seconds that a request waits for a calculator with neither a worker nor one that starts.
    reconnect_grace : float, optional
        Seconds that a broken connection of a worker on another machine may take to come back.
    max_queue : int, optional
        Requests that may wait for one calculator.
    max_queue_bytes : int, optional
        What all requests may take in memory.
    orphan_ttl : float, optional
        Seconds that an answer is kept for a client that is not known to have it.
    allow_mixed : bool
        Whether workers of one name may differ in factory, arguments or versions.
    insecure
        Serve a tcp address without keys: to everybody who reaches it.

    Raises
    ------
    KeysError
        If a tcp address is to be served, and there is no key of the broker's.
    AddressError
        By `run` and `serve`, if an address can't be bound.
    """

    def __init__(
        self,
        frontend: str | None = None,
        backend: str | None = None,
        worker_timeout: float | None = None,
        request_queue_timeout: float | None = None,
        *,
        reconnect_grace: float | None = None,
        max_queue: int | None = None,
        max_queue_bytes: int | None = None,
        orphan_ttl: float | None = None,
        allow_mixed: bool = False,
        insecure: bool = False,
    ) -> None:
        settings = load_settings(
            {
                "ipc_frontend": frontend,
                "ipc_backend": backend,
                "worker_timeout": worker_timeout,
                "request_queue_timeout": request_queue_timeout,
                "reconnect_grace": reconnect_grace,
                "max_queue": max_queue,
                "max_queue_bytes": max_queue_bytes,
                "orphan_ttl": orphan_ttl,
            },
            labels={"ipc_frontend": "frontend", "ipc_backend": "backend"},
        )
        #: Where clients and workers connect, from elsewhere if they can.
        self.frontend = transport.check_address(settings.ipc_frontend, binds=True)
        self.backend = transport.check_address(settings.ipc_backend, binds=True)
        #: The same on this machine.
        self.local_frontend = transport.check_address(settings.local_frontend)
        self.local_backend = transport.check_address(settings.local_backend)
        for ours, theirs in (
            (self.frontend, self.backend),
            (self.local_frontend, self.local_backend),
        ):
            if ours == theirs and not ours.endswith(":*"):
                msg = f"clients and workers need addresses of their own, not both {ours}"
                raise AddressError(msg)
        self.worker_timeout = settings.worker_timeout
        self.request_queue_timeout = settings.request_queue_timeout
        self.reconnect_grace = settings.reconnect_grace
        self.max_queue = settings.max_queue
        self.max_queue_bytes = settings.max_queue_bytes
        self.orphan_ttl = settings.orphan_ttl
        self.allow_mixed = allow_mixed
        self._remote = [a for a in (self.frontend, self.backend) if _if_remote(a)]
        self._keys = KeyFolder(settings.keys_dir)
        self._secret = None if insecure or not self._remote else self._find_secret()
        #: Set while the broker serves.
        self.serving = threading.Event()
        #: Wakes the loop; `signal.set_wakeup_fd` takes its descriptor.
        self.waker = transport.Waker()
        self._stop = False
        self._reception = Reception()

    def _find_secret(self) -> SecretKey:
        check_curve()
        secret = self._keys.secret("broker")
        if secret is None:
            msg = (
                f"{' and '.join(self._remote)} would be open to everybody who reaches it. Make the "
                "broker's key with `aserpc keys new --role broker`, and one for each who connects; "
                "or serve without keys: --insecure"
            )
            raise KeysError(msg)
        return secret

    async def run(self) -> None:
        """Serve until `stop`, in a thread of its own."""
        await serve_in_thread(self.serve, self.stop, "aserpc broker")

    def stop(self) -> None:
        """End `run` or `serve`; from any thread."""
        self._stop = True
        self.waker.wake()

    def serve(self) -> None:
        """Serve until `stop`, in this thread."""
        self._state = BrokerState(
            secrets.token_bytes(IDENTITY_SIZE),
            self.worker_timeout,
            self.request_queue_timeout,
            self.reconnect_grace,
            orphan_ttl=self.orphan_ttl,
            max_queue=self.max_queue,
            max_queue_bytes=self.max_queue_bytes,
            allow_mixed=self.allow_mixed,
        )
        with contextlib.ExitStack() as stack:
            for address in (self.local_frontend, self.local_backend):
                stack.enter_context(socket_folder.reserved(address))
            self._gate = Gate(self._socket_paths())
            stack.callback(self._gate.remove)
            context = transport.make_context()
            # The context closes the sockets: closed one by one, they would wait for ever for those
            # who do not read.
            stack.callback(context.destroy, linger=int(LINGER * 1000))
            self._admit(context)
            # Clients have no routing ids of their own that somebody could claim; a worker that
            # computes can't speak after a reconnection, so it keeps its own.
            self._front = Door(
                context,
                self.local_frontend,
                _if_remote(self.frontend),
                self.worker_timeout,
                CLIENT_HIGH_WATER_MARK,
                handover=False,
                guard=self._guard("frontend"),
            )
            self._back = Door(
                context,
                self.local_backend,
                _if_remote(self.backend),
                self.worker_timeout,
                0,
                handover=True,
                guard=self._guard("backend"),
            )
            monitors = Monitors(self._gate.accepted)
            for door, tell in (
                (self._back, self._state.connection_closed),
                (self._front, self._state.client_connection_closed),
            ):
                for sock in door.sockets:
                    monitors.watch(sock, tell)
                    stack.callback(sock.disable_monitor)
            self._outbox = Outbox(self._front.send)
            self.frontend = self._front.open()
            self.backend = self._back.open()
            stack.enter_context(self._owned())
            self.serving.set()
            logger.info("serving clients at %s, workers at %s", self.frontend, self.backend)
            try:
                self._loop(monitors)
            finally:
                self.serving.clear()
                self._finish()
                self._stop = False

    def _guard(self, side: str) -> transport.Guard | None:
        return None if self._secret is None else transport.Guard(self._secret.value, side)

    def _admit(self, context: transport.Context) -> None:
        """Get ready to judge who comes by tcp."""
        self._access: Access | None = None
        self._gatekeeper: Gatekeeper | None = None
        if self._secret is not None:
            self._access = Access(self._keys)
            self._gatekeeper = Gatekeeper(context, self._access)
        elif self._remote:
            logger.warning(
                "serving %s without keys: everybody who reaches it can use it, and read and change "
                "what is sent",
                " and ".join(self._remote),
            )

    @contextlib.contextmanager
    def _owned(self) -> Iterator[None]:
        """Leave beside the sockets who serves them, and find what the last broker left."""
        frontend, backend = self._socket_paths()
        folders = {frontend.parent, backend.parent}
        self._roster = RosterFile(backend.parent)
        for folder in folders:
            socket_folder.write_owner(folder)
        self._state.expect(self._roster.read(), time.monotonic())
        try:
            yield
        finally:
            for folder in folders:
                (folder / socket_folder.OWNER_FILE).unlink(missing_ok=True)

    def _socket_paths(self) -> tuple[Path, Path]:
        frontend, backend = map(transport.ipc_path, (self.local_frontend, self.local_backend))
        assert frontend is not None
        assert backend is not None
        return frontend, backend

    def _loop(self, monitors: Monitors) -> None:
        state, clock = self._state, time.monotonic
        front, back = self._front, self._back
        poller = zmq.Poller()
        waker = self.waker.fileno()
        for readable in (*front.sockets, *back.sockets, *monitors.descriptors(), waker):
            poller.register(readable, zmq.POLLIN)
        monitors.look(monitors.descriptors(), clock())
        if self._gatekeeper is not None:
            poller.register(self._gatekeeper.socket, zmq.POLLIN)
        while not self._stop:
            ready = dict(poller.poll(self._wait(clock())))
            now = clock()
            if self._gatekeeper is not None and self._gatekeeper.socket in ready:
                self._gatekeeper.answer()
            if self._access is not None and (revoked := self._access.look(now)):
                self._perform(state.revoked(revoked, now), now)
                self._outbox.drop(revoked)
            # Workers first: an answer frees the worker for the next request.
            for sock in back.sockets:
                if sock in ready:
                    self._drain(back, sock, FROM_WORKER, state.from_worker, now)
            for sock in front.sockets:
                if sock in ready:
                    self._drain(front, sock, FROM_CLIENT, state.from_client, now)
            monitors.look(ready, now)
            self._gate.look(now)
            if waker in ready:
                self.waker.clear()
            self._perform(state.tick(now), now)
            self._outbox.flush(now)
            state.unsent = len(self._outbox.waiting)
            while self._outbox.lost:
                state.client_unreachable(self._outbox.lost.pop(), now)
            self._save_roster(now)

    def _wait(self, now: float) -> int | None:
        """Return how long there is nothing to do, in ms."""
        first = self._state.next_tick()
        for when in (
            self._roster.due,
            self._gate.look_at,
            now + RETRY_INTERVAL if self._outbox.waiting else None,
            None if self._access is None else self._access.next_look(),
        ):
            if when is not None and (first is None or when < first):
                first = when
        return None if first is None else transport.milliseconds(first - now)

    def _drain(
        self,
        door: Door,
        sock: transport.Socket,
        expected: tuple[type[Message], ...],
        take: Callable[[bytes, Message, list[Buffer], float], list[Effect]],
        now: float,
    ) -> None:
        is_worker = door is self._back
        side = "worker" if is_worker else "client"
        for _ in range(DRAIN):
            try:
                peer, frames = door.receive(sock)
            except zmq.Again:
                return
            try:
                message = self._reception.read(peer, frames, expected, side)
            except ProtocolError as error:
                effects = self._state.rejected(peer, str(error), is_worker=is_worker)
            else:
                reason = self._refusal(peer, type(message))
                if reason is None:
                    if received := getattr(message, "received", None):
                        self._outbox.acknowledge(received)
                    effects = take(peer, message, frames[1:], now)
                else:
                    effects = self._state.refused(peer, reason, is_worker=is_worker)
            self._perform(effects, now)
            if not transport.has_message(sock):
                return

    def _refusal(self, peer: bytes, kind: type[Message]) -> str | None:
        """Say why a peer may not send a message; None: it may."""
        if not is_remote(peer):
            return None
        if self._access is None:
            return refusal(ANYBODY, kind)
        user = user_of(peer)
        reason = refusal(self._access.role(user), kind)
        if reason is not None and self._reception.is_new(user + kind.KIND.encode()):
            logger.warning("refused %s of %s: %s", kind.KIND, self._access.label(user), reason)
        return reason

    def _perform(self, effects: list[Effect], now: float) -> None:
        for effect in effects:
            message = effect.message
            frames = [pack_header(message), *effect.payload]
            if isinstance(effect, ToClient):
                key = message.key if isinstance(message, Answer) and message.part is None else None
                self._outbox.send(effect.peer, frames, now, key)
                continue
            try:
                self._back.send(effect.peer, frames)
            except zmq.ZMQError as error:
                logger.debug("a worker can't be reached: %s", error)
                effects += self._state.unreachable(effect.peer, message, now)  # done here, too

    def _save_roster(self, now: float) -> None:
        self._note_roster()
        if self._roster.is_due(now):
            self._roster.save(self._state.roster(now), now)
            self._note_roster()  # some of it may soon be another

    def _note_roster(self) -> None:
        if self._state.roster_changed:
            self._state.roster_changed = False
            self._roster.changed()

    def _finish(self) -> None:
        """Tell everyone, and wait a while until that has left."""
        now = time.monotonic()
        self._perform(self._state.stop(), now)
        self._save_roster(float("inf"))
        while self._outbox.waiting and time.monotonic() < now + LINGER:
            self._outbox.flush(time.monotonic())
            self.waker.wait(RETRY_INTERVAL)
        logger.info("stopped")


def _if_remote(address: str) -> str | None:
    return address if transport.ipc_path(address) is None else None
