"""The sockets' folder: many may make it, and one has an address."""

from __future__ import annotations

import errno
import fcntl
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from aserpc.cli.results import Finished
from aserpc.errors import AddressError, KeysError, SettingsError
from aserpc.security.folder import KeyFolder
from aserpc.security.keys import make_key
from aserpc.socket_folder import make_private_folder, reserved
from support.waiting import InThread

TOGETHER = 8
ROUNDS = 200


def together(call: Callable[[], object]) -> None:
    """Have several threads do something at the same moment."""
    start = threading.Barrier(TOGETHER)

    def one() -> None:
        start.wait()
        call()

    threads = [InThread(one) for _ in range(TOGETHER)]
    for thread in threads:
        thread.result()


def test_all_who_start_together_have_the_folder(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        folder = tmp_path / str(number) / ".aserpc"
        together(partial(make_private_folder, folder))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_address_passes_from_one_to_the_next(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/frontend.ipc"
    one_at_a_time = threading.Lock()
    had: list[None] = []

    def have_it() -> None:
        try:
            with reserved(address):
                assert one_at_a_time.acquire(blocking=False)
                had.append(None)
                one_at_a_time.release()
        except AddressError as error:
            if "another broker already serves" not in str(error):
                raise

    def have_it_often() -> None:
        for _ in range(ROUNDS):
            have_it()

    together(have_it_often)
    assert len(had) >= ROUNDS
    with reserved(address):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_right_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".aserpc"
    make_private_folder(folder)

    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    make_private_folder(folder)
    folder.rmdir()
    folder.mkdir(0o755)
    with pytest.raises(AddressError, match="Read-only file system"):
        make_private_folder(folder)


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = r"its file system has no locks \(flock\)"
    with pytest.raises(AddressError, match=told), reserved(f"ipc://{tmp_path}/frontend.ipc"):
        pass
    with pytest.raises(SettingsError, match=f"out.xyz.done: {told}"):
        Finished(tmp_path / "out.xyz", {})
    key = make_key("client", "ada").public
    with pytest.raises(KeysError, match=f"allowed_keys.lock: {told}"):
        KeyFolder(tmp_path / "keys").allow(key)


def test_what_is_there_instead_of_a_folder_is_told(tmp_path: Path) -> None:
    path = tmp_path / ".aserpc"
    path.touch()
    with pytest.raises(AddressError, match=r"\.aserpc, is no folder"):
        make_private_folder(path)
