"""``aserpc tunnel``, with a real ssh server: a laptop uses the broker of another machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from aserpc import RemoteCalculator
from support.asking import energy_at
from support.processes import Cli, Process
from support.ssh_server import SshServer, free_port, ssh_server
from support.waiting import InThread, wait_for


@pytest.fixture
def server(can_log_in: None, tmp_path: Path) -> Iterator[SshServer]:
    folder = tmp_path / "ssh"
    folder.mkdir()
    with ssh_server(folder) as server:
        yield server


class Laptop:
    """Runs commands here, for a broker there.

    Parameters
    ----------
    cli
        The command line there, which is this machine too.
    folder
        Of the sockets here.
    """

    def __init__(self, cli: Cli, server: SshServer, folder: Path) -> None:
        self.cli, self.server, self.folder = cli, server, folder
        self.frontend = f"ipc://{folder}/frontend.ipc"
        self.here = {"ASERPC_IPC_DIR": str(folder)}

    def tunnel(self, *arguments: str, run: bool = True) -> Process:
        """Start ``aserpc tunnel``, and wait until it is open."""
        options = ("--ssh", self.server.command, "--local", str(self.folder))
        tunnel = self.cli.start("tunnel", "head", *options, *arguments, *(["--run"] if run else []))
        if run:
            wait_for(lambda: "is open" in tunnel.output() or not tunnel.runs(), what=tunnel.errors)
        return tunnel

    def calculator(self, name: str) -> RemoteCalculator:
        return RemoteCalculator(name, self.frontend, 30_000)


@pytest.fixture
def laptop(cli: Cli, server: SshServer, socket_folder: Path) -> Laptop:
    return Laptop(cli, server, socket_folder / "here")


def test_numbers_through_a_tunnel_are_those_of_one_process(laptop: Laptop) -> None:
    cli = laptop.cli
    cli.broker()
    cli.start("worker", "EMT", "--name", "emt")
    tunnel = laptop.tunnel("--dir", str(cli.sockets))
    wait_for(lambda: "the broker there answers" in tunnel.output(), what=tunnel.errors)
    assert f"export ASERPC_IPC_DIR={laptop.folder}\n" in tunnel.output()
    atoms, expected = bulk("CuAu", "rocksalt", a=5.0).repeat((2, 2, 2)), EMT()
    atoms.rattle(0.1, seed=1)
    wait_for(cli.ready)
    atoms.calc = laptop.calculator("emt")
    forces = atoms.get_forces()
    np.testing.assert_array_equal(forces, expected.get_property("forces", atoms))
    atoms.write(cli.cwd / "here.xyz")
    done = cli.run("run", "emt", "here.xyz", "--broker", laptop.frontend)
    assert done.code == 0, done.errors
    assert f"{atoms.get_potential_energy():.6f}" in done.output


def test_a_worker_here_serves_the_broker_there(laptop: Laptop) -> None:
    cli = laptop.cli
    cli.broker()
    laptop.tunnel("--dir", str(cli.sockets))
    worker = cli.worker("Spring", **laptop.here)
    assert energy_at(cli.calculator("spring"), 2) == 2
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.parametrize(
    "end",
    [
        lambda tunnel: tunnel.signal(signal.SIGTERM),
        # As a terminal does it: ssh gets the signal too.
        lambda tunnel: os.killpg(tunnel.pid, signal.SIGINT),
    ],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_it_ends_in_order(laptop: Laptop, end: Callable[[Process], None]) -> None:
    laptop.cli.broker()
    tunnel = laptop.tunnel("--dir", str(laptop.cli.sockets))
    end(tunnel)
    assert tunnel.wait() == 0
    assert tunnel.errors() == ""
    assert [path.name for path in laptop.folder.iterdir()] == []
    wait_for(lambda: str(laptop.folder) not in running())


def running() -> str:
    """Return the commands of all processes."""
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_a_folder_is_taken_from_the_home_there(laptop: Laptop) -> None:
    home = subprocess.run(
        [*laptop.server.command.split(), "head", "pwd"], capture_output=True, text=True, check=True
    ).stdout.strip()
    laptop.cli.broker()
    way_up = "/".join(".." for _ in Path(home).parts[1:])
    tunnel = laptop.tunnel("--dir", f"{way_up}{laptop.cli.sockets}")
    wait_for(lambda: "the broker there answers" in tunnel.output(), what=tunnel.errors)


def test_two_hops(laptop: Laptop) -> None:
    laptop.cli.broker()
    laptop.cli.worker("Spring")
    laptop.tunnel("--dir", str(laptop.cli.sockets), "--via", "login")
    assert energy_at(laptop.calculator("spring"), 2) == 2
    # One that goes by and one that arrives.
    assert laptop.server.log().count("Accepted publickey") == 2


def test_a_broker_on_a_port_there(laptop: Laptop) -> None:
    cli = laptop.cli
    address = f"tcp://127.0.0.1:{free_port()}"
    cli.broker("--frontend", address, "--insecure")
    cli.worker("Spring")
    tunnel = cli.start(
        "tunnel", "head", "--ssh", laptop.server.command, "--frontend", address, "--run"
    )
    wait_for(lambda: "the broker there answers" in tunnel.output(), what=tunnel.errors)
    (line,) = (line for line in tunnel.output().splitlines() if line.startswith("export"))
    variable, _, here = line.removeprefix("export ").partition("=")
    assert here != address, "the port is taken here"
    done = cli.run("list", "--running", **{variable: here})
    assert "spring" in done.output, done.errors


def test_a_broker_whose_keys_are_not_here(laptop: Laptop, tmp_path: Path) -> None:
    cli, address = laptop.cli, f"tcp://127.0.0.1:{free_port()}"
    for role in ("broker", "client"):
        assert cli.run("keys", "new", "--role", role).code == 0
    cli.broker("--frontend", address)
    tunnel = cli.start(
        *("tunnel", "head", "--ssh", laptop.server.command, "--frontend", address, "--run"),
        ASERPC_KEYS_DIR=str(tmp_path / "none"),
    )
    wait_for(lambda: "demands keys" in tunnel.errors(), what=tunnel.errors)
    assert tunnel.runs(), "keys may come later"


def test_what_it_prints_does_it(laptop: Laptop) -> None:
    cli = laptop.cli
    cli.broker()
    cli.worker("Spring")
    printed = laptop.tunnel("--dir", str(cli.sockets), run=False)
    assert printed.wait() == 0
    tunnel, _, variables = printed.output().partition("\n\n")
    command = f"{variables}\n{sys.executable} -m aserpc list --running"
    with subprocess.Popen(["bash", "-euc", tunnel.replace("\nssh ", "\nexec ssh ")]) as ssh:
        try:
            wait_for((laptop.folder / "backend.ipc").exists)
            done = subprocess.run(
                ["bash", "-euc", command], capture_output=True, text=True, env=cli.env
            )
        finally:
            ssh.terminate()
    assert "spring" in done.stdout, done.stderr
    assert laptop.folder.stat().st_mode & 0o777 == 0o700


def test_a_broker_may_come_later(laptop: Laptop) -> None:
    tunnel = laptop.tunnel("--dir", str(laptop.cli.sockets))
    wait_for(lambda: "no broker answers yet" in tunnel.errors())
    assert f"{laptop.cli.sockets}/frontend.ipc on head" in tunnel.errors()
    laptop.cli.broker()
    laptop.cli.worker("Spring")
    assert energy_at(laptop.calculator("spring"), 2) == 2


def test_a_client_outlives_its_tunnel(laptop: Laptop, tmp_path: Path) -> None:
    laptop.cli.broker()
    laptop.cli.worker("Gate", "--kwargs", f'{{"folder": "{tmp_path}"}}')
    tunnel = laptop.tunnel("--dir", str(laptop.cli.sockets))
    call = InThread(lambda: energy_at(laptop.calculator("gate"), 2))
    wait_for(lambda: list(tmp_path.glob("started-*")))
    tunnel.kill()
    laptop.tunnel("--dir", str(laptop.cli.sockets))
    (tmp_path / "go").touch()
    assert call.result() == 2
    assert len(list(tmp_path.glob("started-*"))) == 1


def test_it_says_that_ssh_has_failed(laptop: Laptop) -> None:
    laptop.server.process.terminate()
    laptop.server.process.wait()
    tunnel = laptop.tunnel("--dir", str(laptop.cli.sockets))
    assert tunnel.wait() == 1
    first, last = tunnel.errors().splitlines()
    assert "Connection refused" in first
    assert last == (
        "aserpc: the tunnel to head has ended: ssh ended with exit code 255; it has said why above"
    )


def test_it_says_that_the_connection_was_lost(laptop: Laptop) -> None:
    laptop.cli.broker()
    tunnel = laptop.tunnel("--dir", str(laptop.cli.sockets))
    laptop.server.end_connections()
    assert tunnel.wait() == 1
    assert "aserpc: the tunnel to head has ended" in tunnel.errors().splitlines()[-1]


def test_two_tunnels_take_two_folders(laptop: Laptop) -> None:
    laptop.cli.broker()
    laptop.tunnel("--dir", str(laptop.cli.sockets))
    second = laptop.tunnel("--dir", str(laptop.cli.sockets))
    assert second.wait() == 2
    assert f"{laptop.folder}/frontend.ipc" in second.errors()
    assert "--local" in second.errors()
