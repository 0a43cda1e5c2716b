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
        # One value, so that no thread sees half of it.
        self._source = os.getpid(), secrets.token_bytes(IDENTITY_SIZE), itertools.count()

    def next_key(self) -> RequestKey:
        """Return the identity of a new request; from any thread."""
        if self._source[0] != os.getpid():
            self._begin()
        _, identity, numbers = self._source
        return identity, next(numbers)

    def __reduce__(self) -> tuple[type[Session], tuple[()]]:
        return Session, ()  # a copy asks for itself
