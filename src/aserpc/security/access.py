"""Whom a broker lets in, and what each may say; both may change while it serves."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict

import zmq
from zmq.auth.base import Authenticator
from zmq.utils import z85

from aserpc import transport
from aserpc.errors import KeysError
from aserpc.security.folder import KeyFolder
from aserpc.security.keys import PublicKey
from aserpc.security.roles import MAY_CONNECT

logger = logging.getLogger(__name__)

#: How often the file of the allowed keys is looked at, s. What is found must be so twice: an editor
#: may be in the middle of writing.
LOOK_INTERVAL = 0.25

#: How many keys that were refused are remembered, to tell of each once.
MAX_REFUSED = 1000


class Access:
    """The keys that a broker allows.

    Parameters
    ----------
    folder
        Where they are.

    Raises
    ------
    KeysError
        If they can't be read.
    """

    def __init__(self, folder: KeyFolder) -> None:
        self._folder = folder
        self._seen = self._taken = self._stamp()
        self._users = self._read()
        self._look_at = float("-inf")

    def role(self, user: bytes) -> str | None:
        """Return the role of a public key, None if it is not allowed."""
        key = self._users.get(user)
        return None if key is None else key.role

    def admits(self, user: bytes) -> bool:
        """Whether a public key may connect; one that was allowed just now may."""
        if user not in self._users and self._stamp() != self._taken:
            # Only what is new: what seems to be gone may be about to be written.
            with contextlib.suppress(KeysError):
                self._users = {**self._read(), **self._users}
        return user in self._users

    def label(self, user: bytes) -> str:
        """Return what the log calls the owner of a public key."""
        key = self._users.get(user)
        return user.hex() if key is None else key.label

    def next_look(self) -> float:
        """When `look` has something to do."""
        return self._look_at

    def look(self, now: float) -> set[bytes]:
        """Read the keys again if they have changed; return those that had another role before."""
        if now < self._look_at:
            return set()
        self._look_at = now + LOOK_INTERVAL
        stamp = self._stamp()
        settled, self._seen = stamp == self._seen, stamp
        if stamp == self._taken or not settled:
            return set()
        self._taken = stamp
        try:
            users = self._read()
        except KeysError as error:
            logger.error("the keys that are allowed stay as they were: %s", error)
            return set()
        before, self._users = self._users, users
        logger.info("read the keys again: %d are allowed", len(users))
        gone = {u: k for u, k in before.items() if u not in users or users[u].role != k.role}
        for key in gone.values():
            logger.info("%s is not allowed any more", key.label)
        return set(gone)

    def _read(self) -> dict[bytes, PublicKey]:
        return {key.value: key for key in self._folder.allowed() if key.role != "broker"}

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            status = self._folder.allowed_path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode


class Gatekeeper:
    """Answers libzmq's question whether a connection may be made, by pyzmq's authenticator.

    Parameters
    ----------
    context
        Of the sockets whose connections it judges; they have one for all.
    access
        Whom it lets in.
    """

    def __init__(self, context: transport.Context, access: Access) -> None:
        self._access = access
        self._authenticator = Authenticator(context)
        self._authenticator.start()
        for side in MAY_CONNECT:
            self._authenticator.configure_curve_callback(side, self)
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        #: Becomes readable when there is a question.
        self.socket: zmq.Socket[bytes] = self._authenticator.zap_socket

    def answer(self) -> None:
        """Answer all questions that are there."""
        while True:
            try:
                question = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            # A coroutine for those whose callbacks wait; ours does not.
            answering = self._authenticator.handle_zap_message(question)
            try:
                answering.send(None)
            except StopIteration:
                continue
            raise AssertionError

    def callback(self, domain: str, key: bytes) -> bool:
        """Say whether a public key may connect; `domain` is the side of the socket."""
        user = z85.decode(key)
        admitted = self._access.admits(user)
        role = self._access.role(user)
        if admitted and role in MAY_CONNECT[domain]:
            return True
        if user not in self._refused:
            self._refused[user] = None
            if len(self._refused) > MAX_REFUSED:
                self._refused.popitem(last=False)
            if admitted:
                label = self._access.label(user)
                logger.warning("refused a connection of %s to the %s", label, domain)
            else:
                logger.warning(
                    "refused a connection with a key that is not allowed; to allow it: "
                    "aserpc keys allow %s --role ROLE --name NAME",
                    user.hex(),
                )
        return False
