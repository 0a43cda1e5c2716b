"""Processes that are stopped for a while and go on, and what long service leaves behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from aserpc import list_calculators
from support.asking import energy_at
from support.peers import FakeClient
from support.processes import Cli
from support.waiting import InThread, wait_for


def test_a_broker_that_was_stopped_for_long_goes_on(cli: Cli, tmp_path: Path) -> None:
    broker = cli.broker("--timeout", "1")
    cli.worker("Gate", "--kwargs", f'{{"folder": "{tmp_path}"}}', ASERPC_WORKER_TIMEOUT="1")
    idle = cli.worker("Spring", ASERPC_WORKER_TIMEOUT="1")
    call = InThread(lambda: energy_at(cli.calculator("gate"), 2))
    wait_for(lambda: list(tmp_path.glob("started-*")))
    broker.signal(signal.SIGSTOP)
    timer = threading.Timer(2.0, broker.signal, [signal.SIGCONT])
    timer.start()
    timer.join()
    (tmp_path / "go").touch()
    assert call.result() == 2
    wait_for(lambda: list_calculators(cli.frontend) == {"gate": 1, "spring": 1})
    wait_for(lambda: idle.pid in cli.ready())
    assert energy_at(cli.calculator("spring"), 2) == 2


SCRIPT = """
from ase import Atoms
from aserpc import RemoteCalculator
calculator = RemoteCalculator("gate", {!r}, timeout=800)
print(calculator.get_property("energy", Atoms("H", [(2, 0, 0)])))
"""


def test_a_client_that_was_stopped_for_long_waits_on(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    cli.worker("Gate", "--kwargs", f'{{"folder": "{tmp_path}"}}')
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(cli.frontend)], stdout=subprocess.PIPE, text=True
    ) as client:
        wait_for(lambda: list(tmp_path.glob("started-*")))
        client.send_signal(signal.SIGSTOP)
        timer = threading.Timer(2.0, client.send_signal, [signal.SIGCONT])
        timer.start()
        timer.join()
        opens = threading.Timer(0.5, (tmp_path / "go").touch)
        opens.start()
        assert client.communicate(timeout=20)[0] == "2.0\n"
        opens.join()


def test_clients_that_come_and_go_leave_nothing_with_the_broker(cli: Cli) -> None:
    broker = cli.broker()
    cli.worker("Spring")

    def descriptors() -> int:
        return len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))

    with FakeClient(cli.frontend) as first:
        first.ping()
    before = descriptors()
    for _ in range(100):
        with FakeClient(cli.frontend) as client:
            client.ask("spring", op="describe")
            client.ping()
    wait_for(lambda: descriptors() <= before + 2)
    assert cli.status()["pending_requests"] == {}
