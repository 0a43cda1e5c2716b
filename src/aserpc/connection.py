"""A connection to a broker: made with the right keys, and told apart from one that is refused."""

from __future__ import annotations

import secrets
import time

import zmq
from zmq.utils.monitor import recv_monitor_message

from aserpc import tcp, transport
from aserpc.errors import NotAllowedError
from aserpc.security.credentials import Credentials

_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class Connection:
    """A DEALER socket to a broker.

    Parameters
    ----------
    address
        The broker's.
    role
        Of whoever connects.
    credentials
        The keys; None: without.
    timeout
        Seconds after which a silent connection is closed and made anew.
    named
        See `transport.dealer`.

    Raises
    ------
    AddressError
        If the address can't be used.
    """

    def __init__(
        self,
        context: transport.Context,
        address: str,
        role: str,
        credentials: Credentials | None,
        timeout: float = 30.0,
        *,
        named: bool = True,
    ) -> None:
        self.address = address
        self._role = role
        self._credentials = credentials
        curve = None if credentials is None else credentials.curve()
        self.socket = transport.dealer(context, timeout, curve, named=named)
        self._monitor: transport.Socket | None = None
        #: The last handshake: None if it succeeded, or there was none.
        self._failed: int | None = None
        self._shaken = False
        try:
            if address.startswith(tcp.SCHEME):
                name = f"inproc://monitor-{secrets.token_hex(8)}"
                with transport.taking_descriptors():
                    self._monitor = self.socket.get_monitor_socket(_EVENTS, name)
            transport.connect(self.socket, address)
        except BaseException:
            self.close()
            raise

    def readable(self) -> list[transport.Socket]:
        """Return what to poll besides the socket; `refused` then knows more."""
        return [] if self._monitor is None else [self._monitor]

    def close(self, linger: int = 0) -> None:
        """Close the socket; what is still to leave has `linger` milliseconds."""
        if self._monitor is not None:
            self.socket.disable_monitor()
            self._monitor.close(linger=0)
        self.socket.close(linger=linger)

    def refused(self) -> NotAllowedError | None:
        """Return why the broker does not take the connection, if it has said so.

        libzmq does not try again then; `renew` does.
        """
        if self._monitor is None:
            return None
        self._read()
        if self._failed != zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return None
        return NotAllowedError(self.trouble())

    def renew(self) -> None:
        """Connect again if the connection was refused: the key may be allowed by now."""
        if self._monitor is None:
            return
        self._read()
        if self._failed == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._failed = None
            transport.connect(self.socket, self.address)

    def trouble(self) -> str:
        """Say why the last handshake failed; empty if it did not."""
        self._read()
        if self._failed is None:
            return ""
        if self._credentials is None:
            return (
                f"The broker at {self.address} demands keys, or what listens there is none. "
                f"Make one here with: aserpc keys new --role {self._role}"
            )
        own, broker = self._credentials.own.public, self._credentials.broker
        if self._failed == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return (
                f"the broker at {self.address} does not allow the key {own.label}; on its machine: "
                f"aserpc keys allow {own}"
            )
        return (
            f"What listens at {self.address} has not the key of {broker.label} "
            f"({broker.value.hex()[:8]}...): another broker, or one that serves without keys. "
            "`aserpc keys list` on its machine shows its key"
        )

    def wait_for_handshake(self, seconds: float) -> None:
        """Wait until a handshake has succeeded or failed, but not for longer than `seconds`."""
        ends_at = time.monotonic() + seconds
        while self._monitor is not None and not self._shaken:
            left = ends_at - time.monotonic()
            if left <= 0 or not self._monitor.poll(transport.milliseconds(left)):
                return
            self._read()

    def _read(self) -> None:
        if self._monitor is None:
            return
        while True:
            try:
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            except zmq.Again:
                return
            self._shaken = True
            self._failed = None if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else int(event)
