"""Clients that are killed, and those that are stopped for a while."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.asking import energy_at
from support.processes import Cli
from support.waiting import InThread, wait_for, wait_until_asleep

#: Asks for many structures at once, and tells what it gets.
SCRIPT = """
import sys
from ase import Atoms
from aserpc import Client
client = Client(sys.argv[1], 15_000)
futures = [client.submit("gate", Atoms("H", [(x, 0, 0)])) for x in range(20)]
print(*(future.result()["energy"] for future in futures))
"""

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(cli: Cli) -> Iterator[Start]:
    """Starts clients, which end with the test."""
    processes: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SCRIPT, cli.frontend]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def pending(cli: Cli) -> int:
    return sum(cli.status()["pending_requests"].values())


def test_what_a_killed_client_had_queued_is_dropped(cli: Cli, tmp_path: Path, start: Start) -> None:
    cli.broker()
    cli.worker("Gate", "--kwargs", f'{{"folder": "{tmp_path}"}}')
    client = start()
    wait_for(lambda: pending(cli) == 19)
    other = InThread(lambda: energy_at(cli.calculator("gate"), 4))
    wait_for(lambda: pending(cli) == 20)
    client.send_signal(signal.SIGKILL)
    wait_for(lambda: pending(cli) == 1)
    (tmp_path / "go").touch()
    assert other.result() == 8
    assert len(list(tmp_path.glob("started-*"))) == 2, "what it computed, and the other's"
    wait_for(lambda: cli.status()["tables"]["requests"] == 0)


def test_what_a_client_had_that_ends_in_order_is_dropped_too(
    cli: Cli, tmp_path: Path, start: Start
) -> None:
    cli.broker()
    cli.worker("Gate", "--kwargs", f'{{"folder": "{tmp_path}"}}')
    client = start()
    wait_for(lambda: pending(cli) == 19)
    wait_until_asleep(client.pid)
    client.send_signal(signal.SIGINT)
    wait_for(lambda: pending(cli) == 0)


def test_a_client_that_is_stopped_for_a_while_loses_nothing(
    cli: Cli, tmp_path: Path, start: Start
) -> None:
    cli.broker()
    cli.worker("Gate", "--kwargs", f'{{"folder": "{tmp_path}"}}')
    client = start()
    wait_for(lambda: pending(cli) == 19)
    client.send_signal(signal.SIGSTOP)
    (tmp_path / "go").touch()
    wait_for(lambda: cli.status()["tables"]["answers"] == 20)
    client.send_signal(signal.SIGCONT)
    energies = client.communicate(timeout=20)[0]
    assert energies.split() == [str(x * x / 2) for x in range(20)]
    assert len(list(tmp_path.glob("started-*"))) == 20
    wait_for(lambda: cli.status()["tables"]["answers"] == 0)
