"""The folder of the sockets: private, locked by one broker, with a word on whose it is."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aserpc import file_locks
from aserpc.errors import AddressError
from aserpc.transport import check_address, ipc_path

logger = logging.getLogger(__name__)

#: Name of the folder that is made for the sockets.
DEFAULT_FOLDER = ".aserpc"

#: Name of the file beside the sockets that says who serves them.
OWNER_FILE = "broker.json"


@contextlib.contextmanager
def reserved(address: str) -> Iterator[None]:
    """Have an address for oneself for the time of the block; an ipc socket's folder is made.

    libzmq lets a second process bind an ipc path and steals it from the first, so a lock beside
    the socket decides who has it. The lock falls with its process: a dead broker's socket file is
    no obstacle. The block must outlive the socket, which removes its file when it is closed.

    Raises
    ------
    AddressError
        If the address is in use or cannot be used.
    """
    check_address(address)
    path = ipc_path(address)
    if path is None:
        yield
        return
    make_private_folder(path.parent)
    with _locked(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def make_private_folder(folder: Path) -> None:
    """Make the folder of the sockets if it is not there, and see that it is private."""
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # somebody who starts now was quicker
                folder.mkdir(mode=0o700)
                folder.chmod(0o700)  # whatever the umask
        status = folder.stat()
        mine = folder.name == DEFAULT_FOLDER and status.st_uid == os.getuid()
        if mine and stat.S_IMODE(status.st_mode) != 0o700 and stat.S_ISDIR(status.st_mode):
            folder.chmod(0o700)  # one that aserpc 0.1 left, open to read
            status = folder.stat()
    except OSError as error:
        msg = f"cannot make the folder of the sockets, {folder}: {error.strerror}"
        raise AddressError(msg) from None
    if not stat.S_ISDIR(status.st_mode):
        msg = f"the folder of the sockets, {folder}, is no folder"
        raise AddressError(msg)
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        msg = (
            f"others can write to the folder of the sockets, {folder}; "
            f"make it private with: chmod 700 {folder}"
        )
        raise AddressError(msg)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock_path = path.with_name(path.name + ".lock")
    try:
        descriptor = file_locks.lock(lock_path)
    except BlockingIOError:
        owner = read_owner(path.parent)
        by = f" (process {owner['pid']} on {owner['host']})" if owner else ""
        msg = (
            f"another broker{by} already serves ipc://{path}. Use that one, stop it, or "
            "give this one a folder of its own with ASERPC_IPC_DIR"
        )
        raise AddressError(msg) from None
    except OSError as error:
        msg = f"cannot write to the folder of the sockets, {path.parent}: {error.strerror}"
        raise AddressError(msg) from None
    try:
        yield
    finally:
        lock_path.unlink(missing_ok=True)
        os.close(descriptor)


def write_owner(folder: Path) -> None:
    """Note beside the sockets which process serves them, on which host."""
    owner = {"host": socket.gethostname(), "pid": os.getpid()}
    try:
        write_private(folder / OWNER_FILE, json.dumps(owner).encode())
    except OSError as error:  # nothing depends on it
        text = "cannot note in %s who serves there: %s"
        logger.warning(text, folder / OWNER_FILE, error.strerror)


def read_owner(folder: Path) -> dict[str, Any] | None:
    """Return the ``host`` and ``pid`` of the broker that serves, or served, from a folder."""
    try:
        return unpack_owner((folder / OWNER_FILE).read_bytes())
    except OSError:
        return None


def unpack_owner(data: bytes) -> dict[str, Any] | None:
    """Return what a file of `write_owner` says; None if it is none."""
    try:
        owner = json.loads(data)
    except (ValueError, RecursionError):
        return None
    host, pid = (owner.get("host"), owner.get("pid")) if isinstance(owner, dict) else (None, None)
    return {"host": host, "pid": pid} if type(host) is str and type(pid) is int else None


def write_private(path: Path, data: bytes) -> None:
    """Replace a file as a whole by one that only its owner can read."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def full_path(path: Path) -> Path:
    """Return where a socket is while its broker takes no more connections."""
    return path.with_name(path.name + ".full")


def where(address: str) -> str:
    """Say where a broker was looked for, with what its folder tells of it."""
    path = ipc_path(address)
    if path is None:
        return address
    if full_path(path).exists() and not path.exists():
        return f"{address} (it has as many connections as it may have; see its log)"
    owner = read_owner(path.parent)
    here = socket.gethostname()
    if owner and owner["host"] != here:
        return (
            f"{address} (its broker runs, or ran, on host {owner['host']}; this is {here}, and "
            "ipc sockets do not reach across hosts)"
        )
    return address
