"""Who asks: a session's identity and the numbers of its requests, new in each process."""

from __future__ import annotations

import itertools
import os
import secrets

from aserpc.messages import IDENTITY_SIZE, RequestKey


class Session:
    """A source of request identities that no other process, copy or fork has too."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._identity = secrets.token_bytes(IDENTITY_SIZE)
        self._numbers = itertools.count()

    def next_key(self) -> RequestKey:
        """Return the identity of a new request; from any thread."""
        if self._pid != os.getpid():
            self._begin()
        return self._identity, next(self._numbers)

    def __reduce__(self) -> tuple[type[Session], tuple[()]]:
        return Session, ()  # a copy asks for itself
