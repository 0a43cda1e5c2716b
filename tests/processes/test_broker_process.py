"""The broker's process: its start, its end, its folder, and who else wants the address."""

from __future__ import annotations

import contextlib
import signal
import socket
import stat
from pathlib import Path

import pytest
from ase import Atoms

from aserpc import RemoteCalculator, broker_status, list_calculators
from aserpc.errors import BrokerStoppedError
from support.asking import energy_at
from support.processes import Cli
from support.waiting import InThread, wait_for


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_tells_who_waits_and_leaves_no_socket(
    cli: Cli, tmp_path: Path, number: int
) -> None:
    broker = cli.broker()
    worker = cli.worker("Gate", "--kwargs", f'{{"folder": "{tmp_path}"}}')
    call = InThread(lambda: energy_at(cli.calculator("gate"), 2))
    wait_for(lambda: list(tmp_path.glob("started-*")))
    broker.signal(number)
    with pytest.raises(BrokerStoppedError):
        call.result()
    assert broker.wait() == 0
    assert "Traceback" not in broker.errors()
    assert not list(cli.sockets.glob("*.ipc*"))
    (tmp_path / "go").touch()
    wait_for(lambda: "the broker stops" in worker.errors())


def test_a_second_broker_is_told_who_has_the_address(cli: Cli) -> None:
    broker = cli.broker()
    done = cli.run("broker")
    assert done.code == 2
    assert f"process {broker.pid}" in done.errors
    assert "already serves" in done.errors
    assert len(done.errors.splitlines()) == 1
    assert broker_status(cli.frontend)["workers"] == {}


def test_brokers_follow_a_killed_one(cli: Cli) -> None:
    broker = cli.broker()
    broker.signal(signal.SIGKILL)
    broker.wait()
    assert (cli.sockets / "frontend.ipc").exists()
    cli.broker()
    assert list_calculators(cli.frontend) == {}


def test_the_default_folder_is_private_and_found_from_below(cli: Cli) -> None:
    project = cli.sockets / "project"
    below = project / "a" / "b"
    below.mkdir(parents=True)
    (project / "pyproject.toml").write_text("")
    del cli.env["ASERPC_IPC_DIR"]
    cli.cwd = below
    cli.broker()
    folder = project / ".aserpc"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    cli.cwd = project
    assert cli.run("status").code == 0
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in folder.glob("*.json"))


def test_a_folder_that_others_can_write_to_is_refused(cli: Cli) -> None:
    cli.sockets.chmod(0o777)
    done = cli.run("broker")
    assert done.code == 2
    assert "chmod 700" in done.errors


def test_a_path_too_long_for_sockets_says_what_to_set(cli: Cli) -> None:
    done = cli.run("broker", ASERPC_IPC_DIR=str(cli.sockets / ("x" * 120)))
    assert done.code == 2
    assert "ASERPC_IPC_DIR" in done.errors
    assert "107" in done.errors
    assert len(done.errors.splitlines()) == 1


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def test_it_serves_over_tcp_where_it_is_told_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASERPC_KEYS_DIR", cli.env["ASERPC_KEYS_DIR"])
    frontend, backend = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    broker = cli.broker("--frontend", frontend, "--backend", backend, "--insecure")
    assert "without keys: everybody who reaches it can use it" in broker.errors()
    cli.start("worker", "EMT", "--broker", backend)
    wait_for(lambda: list_calculators(frontend) == {"EMT": 1})
    calculator = RemoteCalculator("EMT", frontend)
    assert calculator.get_property("energy", Atoms("H")) is not None
    cli.worker("Spring")
    assert list_calculators(cli.frontend) == {"EMT": 1, "spring": 1}, "this machine is served too"
    done = cli.run("broker", "--frontend", frontend, "--insecure")
    assert done.code == 2
    assert len(done.errors.splitlines()) == 1
