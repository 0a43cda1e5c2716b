"""The sockets' folder: many may make it, and one has an address."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from aserpc.errors import AddressError
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


def test_what_is_there_instead_of_a_folder_is_told(tmp_path: Path) -> None:
    path = tmp_path / ".aserpc"
    path.touch()
    with pytest.raises(AddressError, match=r"\.aserpc, is no folder"):
        make_private_folder(path)
