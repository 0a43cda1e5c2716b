"""A reader who does what a page of the documentation says.

Managers end before anything else, and are asked to: their workers have sessions of their own, and
would outlive the page.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aserpc.client import blocking, broker_status
from aserpc.errors import BrokerUnreachableError
from support import interpreter
from support.blocks import ROOT, Block, difference, expected_outputs, read_blocks
from support.waiting import wait_for

#: Where `aserpc` and `python` of the tests' environment are.
PROGRAMS = Path(sys.executable).parent

#: How long a command may take, s.
TIMEOUT = 30.0


@dataclass(frozen=True)
class Place:
    """Where blocks are done.

    Attributes
    ----------
    folder : Path
        The current one.
    prefix : tuple of str
        What stands before a command.
    variables : mapping
        Of the environment, besides the reader's.
    """

    folder: Path
    prefix: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


class Reader:
    """Runs the blocks of a page in a folder of its own, as a context manager."""

    def __init__(self) -> None:
        # Short, for the sockets in it.
        self.folder = Path(tempfile.mkdtemp(prefix="a-")).resolve()
        # Else one further up might be found.
        (self.folder / ".aserpc").mkdir(mode=0o700)
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ASERPC_")},
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "PWD": str(self.folder),
        }
        #: By the names of hosts on the page.
        self.places = {"": Place(self.folder)}
        self._services: list[subprocess.Popen[bytes]] = []
        self._managers: list[subprocess.Popen[bytes]] = []
        self._interpreter: subprocess.Popen[str] | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for manager in reversed(self._managers):
            manager.terminate()
            manager.wait()
        processes: list[subprocess.Popen[bytes] | subprocess.Popen[str]] = [*self._services]
        if self._interpreter is not None:
            assert self._interpreter.stdin is not None
            assert self._interpreter.stdout is not None
            self._interpreter.stdin.close()
            processes.append(self._interpreter)
        for process in reversed(processes):
            # The session's children too: a worker has what its calculator started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self._interpreter is not None and self._interpreter.stdout is not None:
            self._interpreter.stdout.close()
        blocking.pool().close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def copy(self, name: str) -> None:
        """Give the reader a folder of the repository."""
        shutil.copytree(
            ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )

    def follow(self, page: Path, rewrite: Callable[[str], str] = str) -> None:
        """Do everything that a page says, and check what it says is printed.

        Parameters
        ----------
        page
            A Markdown file.
        rewrite
            Changes a command before it is run.
        """
        blocks = read_blocks(page)
        expected = expected_outputs(blocks)
        for block in blocks:
            output = self.perform(block, rewrite)
            if block.line in expected:
                wrong = difference(expected[block.line], output, self.folder)
                assert wrong is None, f"{block.where}: {wrong}"

    def perform(self, block: Block, rewrite: Callable[[str], str] = str) -> str:
        """Do what a block says; return what was printed."""
        if block.reason:
            return ""
        if block.is_file:
            path = self.places[block.host].folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text + "\n", encoding="utf-8")
        elif block.is_service:
            self._serve(block)
        elif block.language == "python":
            return self._python(block)
        elif block.language == "bash":
            return self._bash(block, rewrite(block.text))
        return ""

    def _bash(self, block: Block, command: str) -> str:
        place = self.places[block.host]
        ended = subprocess.run(
            [*place.prefix, "bash", "-euo", "pipefail", "-c", command],
            cwd=place.folder,
            env={**self._environment, **place.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            text=True,
        )
        wanted = int(block.options.get("exit", "0"))
        assert ended.returncode == wanted, (
            f"{block.where}: exit code {ended.returncode}, not {wanted}:\n{ended.stdout}"
        )
        return ended.stdout

    def _python(self, block: Block) -> str:
        if self._interpreter is None:
            self._interpreter = subprocess.Popen(
                # Not as a file, whose folder would be searched for modules.
                [sys.executable, "-W", "error", "-c", inspect.getsource(interpreter)],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        stdin, stdout = self._interpreter.stdin, self._interpreter.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"source": block.text, "name": block.where}) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"{block.where}: the interpreter has died"
        answer = json.loads(line)
        assert not answer["failed"], f"{block.where} failed:\n{answer['output']}"
        return str(answer["output"])

    def _serve(self, block: Block) -> None:
        is_broker = block.text.startswith("aserpc broker")
        is_manager = block.text.startswith(("aserpc up", "aserpc manager"))
        is_tunnel = block.text.startswith("aserpc tunnel")
        place = self.places[block.host]
        before = self._served(place, is_manager)
        log = self.folder / f"terminal-{len(self._services) + len(self._managers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*place.prefix, "bash", "-c", f"exec {block.text}"],
                cwd=place.folder,
                env={**self._environment, **place.variables},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self._managers if is_manager else self._services).append(process)

        def has_started() -> bool:
            assert process.poll() is None, f"{block.where} has ended:\n{log.read_text()}"
            if is_tunnel:
                return "the broker there answers" in log.read_text()
            served = self._served(place, is_manager)
            return served is not None and (is_broker or served > (before or 0))

        wait_for(has_started, what=lambda: f"{block.where} does not serve:\n{log.read_text()}")

    def _served(self, place: Place, by_managers: bool) -> int | None:
        """Return how many calculators managers offer, or workers are ready; None: no broker."""
        folders = dict.fromkeys((place.folder, *(other.folder for other in self.places.values())))
        sockets = [folder / ".aserpc" / "frontend.ipc" for folder in folders]
        # That of another host, where this one has none.
        socket = next((socket for socket in sockets if socket.exists()), None)
        if socket is None:
            return None
        try:
            status = broker_status(f"ipc://{socket}", timeout=1000)
        except BrokerUnreachableError:
            return None
        if by_managers:
            return len(status["manager"]["spawnable"])
        return [process["state"] for process in status["processes"]].count("idle")
