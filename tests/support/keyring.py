"""A broker on tcp that takes keys, and the people who have some."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aserpc import Broker
from aserpc.client import blocking
from aserpc.security.credentials import Credentials
from aserpc.security.folder import KeyFolder
from aserpc.security.keys import SecretKey
from aserpc.transport import Curve
from support.service import Service
from support.waiting import wait_for


class Keyring:
    """Key folders: the broker's, and one for each person.

    Parameters
    ----------
    folder
        Where they are made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.head = KeyFolder(folder / "head")
        self.broker = self.head.make("broker", "head").public

    def person(self, role: str, name: str, *, allowed: bool = True) -> KeyFolder:
        """Make somebody's key; the broker allows it if `allowed`."""
        keys = KeyFolder(self.folder / f"{role}-{name}")
        keys.allow(self.broker)
        key = keys.make(role, name).public
        if allowed:
            self.head.allow(key)
        return keys

    def key(self, role: str, name: str) -> SecretKey:
        """Return somebody's key."""
        key = KeyFolder(self.folder / f"{role}-{name}").secret(role)
        assert key is not None
        return key

    def curve(self, role: str, name: str) -> Curve:
        """Make somebody's key, allowed, for a socket by hand."""
        self.person(role, name)
        return Credentials(self.key(role, name), self.broker).curve()


class Guarded:
    """A service whose broker is on tcp, with keys, and on this machine.

    Parameters
    ----------
    service
        Its local side.
    keyring
        The keys.
    """

    def __init__(self, service: Service, keyring: Keyring, **options: Any) -> None:
        self.service, self.keyring = service, keyring
        everywhere = "tcp://127.0.0.1:*"
        self.broker = Broker(everywhere, everywhere, 5.0, 10.0, **options)
        thread = service.start(self.broker)
        wait_for(lambda: self.broker.serving.is_set() or thread.error)
        assert thread.error is None, thread.error

    @property
    def frontend(self) -> str:
        """The address for clients elsewhere."""
        return self.broker.frontend

    @property
    def backend(self) -> str:
        """The address for workers elsewhere."""
        return self.broker.backend


@contextmanager
def being(keys: KeyFolder | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have somebody's keys for the time of the block, or none, and new connections."""
    blocking.pool().close()
    with monkeypatch.context() as patch:
        patch.setenv("ASERPC_KEYS_DIR", str(keys.path) if keys else "/nowhere")
        yield
    blocking.pool().close()
