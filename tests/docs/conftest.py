"""A reader who also follows ``aserpc up``, whose workers are its children's children."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from aserpc.client import broker_status
from aserpc.errors import BrokerUnreachableError
from support.blocks import Block
from support.reader import Reader
from support.waiting import wait_for


class UpReader(Reader):
    """Ends what ``aserpc up`` has started in order: workers have sessions of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._ups: list[subprocess.Popen[bytes]] = []

    def __exit__(self, *exc_info: object) -> None:
        for process in self._ups:
            process.terminate()
        for process in self._ups:
            process.wait()
        super().__exit__(*exc_info)

    def _serve(self, block: Block) -> None:
        if not block.text.startswith("aserpc up"):
            super()._serve(block)
            return
        log = self.folder / f"up-{len(self._ups)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {block.text}"],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._ups.append(process)

        def has_started() -> bool:
            assert process.poll() is None, f"{block.where} has ended:\n{log.read_text()}"
            socket = self.folder / ".aserpc" / "frontend.ipc"
            if not socket.exists():
                return False
            try:
                status = broker_status(f"ipc://{socket}", timeout=1000)
            except BrokerUnreachableError:
                return False
            return bool(status["manager"]["connected"])

        wait_for(has_started, what=lambda: f"{block.where} does not serve:\n{log.read_text()}")


@pytest.fixture
def reader() -> Iterator[Reader]:
    """Give a reader with a folder of its own."""
    with UpReader() as reader:
        yield reader
