"""The folder of the keys: one secret of each role, and the public keys that are allowed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from aserpc import file_locks
from aserpc.errors import KeysError
from aserpc.security.keys import PublicKey, SecretKey, make_key, parse_public, parse_secret
from aserpc.security.roles import ROLES, STANDS_IN
from aserpc.socket_folder import write_private

#: Name of the file with the public keys that are allowed, one a line.
ALLOWED_FILE = "allowed_keys"

_HEADER = "# Public keys that aserpc allows: ROLE:NAME:HEX. See: aserpc keys --help\n"


class KeyFolder:
    """Keys in a private folder.

    Parameters
    ----------
    path
        The folder; `make` and `allow` make it.

    Raises
    ------
    KeysError
        By all methods, if the folder or a file can't be used or is not private.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.allowed_path = path / ALLOWED_FILE

    # ---- keys of one's own -----------------------------------------------------------------------

    def secret_path(self, role: str) -> Path:
        """Return the path of a role's secret key."""
        return self.path / f"{role}.secret"

    def make(self, role: str, name: str) -> SecretKey:
        """Make a key of one's own.

        Where the broker's key is too, one's own keys are allowed at once.
        """
        key = make_key(role, name)
        path = self.secret_path(role)
        self._make_folder()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            msg = (
                f"there is a {role} key already, {path}; `aserpc keys list` shows it. Remove the "
                "file to make another one"
            )
            raise KeysError(msg) from None
        except OSError as error:
            raise _cannot("write", path, error) from None
        with os.fdopen(descriptor, "w") as file:
            file.write(f"# The secret {role} key of {name}. Whoever can read it can be you.\n")
            file.write(f"{key.text()}\n")
        if self.secret("broker") is not None:
            new = self.own() if role == "broker" else [key]
            for own in new:
                if own.public.role != "broker":
                    self.allow(own.public)
        return key

    def secret(self, role: str) -> SecretKey | None:
        """Return one's own key of a role, None if there is none."""
        path = self.secret_path(role)
        status = _status(path)
        if status is None:
            return None
        self._check_folder()
        if status.st_uid != os.getuid():
            msg = f"the secret key {path} belongs to somebody else; make one of your own"
            raise KeysError(msg)
        if status.st_mode & 0o077:
            msg = (
                f"others can read the secret key {path}; make it private with: chmod 600 {path}. "
                "If they may have read it, remove it and make another one"
            )
            raise KeysError(msg)
        lines = [line for line in _read(path).splitlines() if _says(line)]
        if len(lines) != 1:
            msg = f"{path} holds no secret key; remove it, and make one: aserpc keys new"
            raise KeysError(msg)
        try:
            return parse_secret(lines[0])
        except KeysError as error:
            msg = f"{path} {error}"
            raise KeysError(msg) from None

    def own(self) -> list[SecretKey]:
        """Return all keys of one's own."""
        return [key for role in ROLES if (key := self.secret(role)) is not None]

    def for_role(self, role: str) -> SecretKey | None:
        """Return the key of one's own that serves a role."""
        found = (self.secret(other) for other in STANDS_IN[role])
        return next((key for key in found if key is not None), None)

    # ---- the keys of others ----------------------------------------------------------------------

    def allowed(self) -> list[PublicKey]:
        """Return the public keys that are allowed: brokers and who may come."""
        return [key for _, key in self._entries() if key is not None]

    def _entries(self) -> list[tuple[str, PublicKey | None]]:
        """Return the lines of the file, with the keys in them."""
        status = _status(self.allowed_path)
        if status is None:
            return []
        self._check_folder()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            msg = (
                f"others can write to {self.allowed_path}; make it yours alone with: "
                f"chmod 600 {self.allowed_path}"
            )
            raise KeysError(msg)
        lines = _read(self.allowed_path).splitlines()
        return [(line, self._parse(number, line)) for number, line in enumerate(lines, 1)]

    def _parse(self, number: int, line: str) -> PublicKey | None:
        if not _says(line):
            return None
        try:
            return parse_public(line)
        except KeysError as error:
            msg = f"{self.allowed_path}, line {number}: {error}"
            raise KeysError(msg) from None

    def brokers(self) -> list[PublicKey]:
        """Return the brokers one may connect to; one's own is among them."""
        own = self.secret("broker")
        keys = {key.value: key for key in self.allowed() if key.role == "broker"}
        if own is not None:
            keys.setdefault(own.public.value, own.public)
        return list(keys.values())

    def allow(self, key: PublicKey) -> bool:
        """Allow a public key; False if it was allowed already."""
        if any(key.value == own.value for own in self.own()):
            msg = "that is your secret key; the public one is shown by: aserpc keys list"
            raise KeysError(msg)
        with self._alone():
            entries = self._entries()
            for _, other in entries:
                if other is None:
                    continue
                if other == key:
                    return False
                if other.value == key.value:
                    msg = f"this key is allowed already, as {other.label}; revoke that first"
                    raise KeysError(msg)
                if other.label == key.label:
                    msg = (
                        f"another key is allowed as {other.label}; revoke that first with "
                        f"`aserpc keys revoke {other.label}`, or give this one another --name"
                    )
                    raise KeysError(msg)
            self._write([*(line for line, _ in entries), str(key)])
        return True

    def revoke(self, text: str) -> PublicKey:
        """Allow a key no longer; `text` is the key, its digits, its name, or its role and name."""
        with self._alone():
            entries = self._entries()
            keys = [key for _, key in entries if key is not None]
            found = [k for k in keys if text in (str(k), k.label, k.name, k.value.hex())]
            if not found:
                there = ", ".join(key.label for key in keys) or "none"
                msg = f"{text[:120]!r} is no key that is allowed; there are: {there}"
                raise KeysError(msg)
            if len(found) > 1:
                msg = f"{text!r} may be {' or '.join(key.label for key in found)}; say which"
                raise KeysError(msg)
            self._write([line for line, key in entries if key != found[0]])
        return found[0]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Have the file for oneself; two who change it take turns."""
        self._make_folder()
        lock = self.path / f"{ALLOWED_FILE}.lock"
        try:
            descriptor = file_locks.lock(lock, wait=True)
        except OSError as error:
            raise _cannot("write", lock, error) from None
        try:
            yield
        finally:
            os.close(descriptor)

    def _write(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        if _status(self.allowed_path) is None:
            text = _HEADER + text
        try:
            write_private(self.allowed_path, text.encode())
        except OSError as error:
            raise _cannot("write", self.allowed_path, error) from None

    # ---- the folder ------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
                self.path.chmod(0o700)  # whatever the umask
        except OSError as error:
            raise _cannot("make", self.path, error) from None
        self._check_folder()

    def _check_folder(self) -> None:
        try:
            status = self.path.stat()
        except OSError as error:
            raise _cannot("use", self.path, error) from None
        if not stat.S_ISDIR(status.st_mode):
            msg = f"the folder of the keys, {self.path}, is no folder"
            raise KeysError(msg)
        if status.st_uid != os.getuid():
            msg = (
                f"the folder of the keys, {self.path}, belongs to somebody else; "
                "set ASERPC_KEYS_DIR to one of your own"
            )
            raise KeysError(msg)
        if status.st_mode & 0o077:
            msg = (
                f"others can enter the folder of the keys, {self.path}; make it private with: "
                f"chmod 700 {self.path}"
            )
            raise KeysError(msg)


def _status(path: Path) -> os.stat_result | None:
    """Return what the system says of a file; None if there is none."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _cannot("read", path, error) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _cannot("read", path, error) from None


def _says(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _cannot(what: str, path: Path, error: Exception) -> KeysError:
    reason = getattr(error, "strerror", None) or error
    return KeysError(f"cannot {what} {path}: {reason}")
