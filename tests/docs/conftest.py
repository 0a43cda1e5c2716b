"""A reader who also starts managers, whose workers are in sessions of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from aserpc.client import broker_status
from aserpc.errors import BrokerUnreachableError
from support.blocks import Block
from support.reader import Reader
from support.waiting import wait_for


class ManagerReader(Reader):
    """Ends managers before anything else, so that their workers do not outlive the page."""

    def __init__(self) -> None:
        super().__init__()
        self._managers: list[subprocess.Popen[bytes]] = []

    def __exit__(self, *exc_info: object) -> None:
        for process in reversed(self._managers):
            process.terminate()
            process.wait()
        super().__exit__(*exc_info)

    def _serve(self, block: Block) -> None:
        if not block.text.startswith(("aserpc up", "aserpc manager")):
            super()._serve(block)
            return
        before = self._offered()
        log = self.folder / f"manager-{len(self._managers)}.log"
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
        self._managers.append(process)

        def has_started() -> bool:
            assert process.poll() is None, f"{block.where} has ended:\n{log.read_text()}"
            return self._offered() > before

        wait_for(has_started, what=lambda: f"{block.where} does not serve:\n{log.read_text()}")

    def _offered(self) -> int:
        """Return how many calculators managers offer to start."""
        socket = self.folder / ".aserpc" / "frontend.ipc"
        if not socket.exists():
            return 0
        try:
            return len(broker_status(f"ipc://{socket}", timeout=1000)["manager"]["spawnable"])
        except BrokerUnreachableError:
            return 0


@pytest.fixture
def reader() -> Iterator[Reader]:
    """Give a reader with a folder of its own."""
    with ManagerReader() as reader:
        yield reader
