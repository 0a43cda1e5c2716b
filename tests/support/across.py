"""The service with its parts on several hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from aserpc import Client
from aserpc.client import Results
from aserpc.security.folder import KeyFolder
from aserpc.security.roles import ROLES
from support import calculators
from support.asking import atom
from support.hosts import Host
from support.processes import Cli, Process
from support.waiting import InThread, wait_for

#: No worker is taken for lost by its silence in a test that sets this, s.
NEVER = "50"

#: Asks for the energies of single atoms at each distance given, all at once, and prints them, with
#: the process of the worker that answered.
CLIENT = """
import sys
from ase import Atoms
from aserpc import Client
name, *distances = sys.argv[1:]
with Client() as client:
    futures = [client.submit(name, Atoms("H", [(float(x), 0, 0)])) for x in distances]
    print("asked", flush=True)
    for future in futures:
        results = future.result()
        print(results["energy"], results.provenance["pid"], flush=True)
"""


class Across:
    """A broker on the host ``head``, workers and clients on others.

    The test's own process, whose network is none of the hosts', asks the broker by its local
    socket.

    Parameters
    ----------
    hosts
        By name; ``head`` among them.
    sockets
        The folder of the sockets on the broker's host.
    folder
        Where all that is written is kept.
    """

    def __init__(self, hosts: Mapping[str, Host], sockets: Path, folder: Path) -> None:
        self.hosts, self.folder = hosts, folder
        #: Where `Gate` tells what it is at, see there.
        self.gates = folder / "gates"
        self.gates.mkdir()
        # A home that all hosts share: the keys that are made where the broker's is are allowed.
        keys = KeyFolder(folder / "keys")
        for role in ROLES:
            keys.make(role, role)
        head = hosts["head"].address
        self.frontend, self.backend = f"tcp://{head}:5555", f"tcp://{head}:5556"
        self._on: dict[str, Cli] = {}
        for name, host in hosts.items():
            own = folder / name
            (own / "logs").mkdir(parents=True)
            cli = Cli(sockets if name == "head" else own, own, own / "logs", host.prefix)
            cli.env.update(ASERPC_IPC_FRONTEND=self.frontend, ASERPC_IPC_BACKEND=self.backend)
            cli.env.update(ASERPC_KEYS_DIR=str(keys.path))
            self._on[name] = cli
        self.head = self._on["head"]

    def on(self, host: str) -> Cli:
        """Return the command line of a host."""
        return self._on[host]

    def set(self, **variables: str) -> None:
        """Set variables on all hosts, for what is started from now on."""
        for cli in self._on.values():
            cli.env.update(variables)

    def broker(self, *arguments: str, **env: str) -> Process:
        """Start the broker and wait until it serves."""
        return self.head.broker(*arguments, **env)

    def worker(self, host: str, calculator: str = "Gate", **env: str) -> Process:
        """Start a worker of one of our calculators, or of a registered one, and wait for it."""
        if calculator == "Gate":
            arguments = ["--kwargs", json.dumps({"folder": str(self.gates)})]
        else:
            arguments = []
        name = calculator.lower()
        if hasattr(calculators, calculator):
            worker = self._on[host].loading_worker(calculator, *arguments, name=name, **env)
        else:
            worker = self._on[host].start("worker", calculator, "--name", name, **env)
        wait_for(lambda: worker.pid in self.head.ready() or not worker.runs(), what=worker.errors)
        assert worker.runs(), worker.errors()
        return worker

    def client(self, host: str, name: str, *distances: float, **env: str) -> Process:
        """Start a client that asks for `distances`, see `CLIENT`, and wait until it has."""
        client = self._on[host].python(CLIENT, name, *map(str, distances), **env)
        wait_for(lambda: client.output() or not client.runs(), what=client.errors)
        assert client.runs(), client.errors()
        return client

    def states(self) -> dict[int, str]:
        """Return the state of each worker by its process."""
        return {worker["pid"]: worker["state"] for worker in self.head.status()["processes"]}

    def started(self, worker: Process) -> int:
        """Return how many calculations a worker's gate has seen start."""
        return len(list(self.gates.glob(f"started-{worker.pid}-*")))

    def ended(self, worker: Process) -> int:
        """Return how many calculations a worker's gate has let through."""
        return len(list(self.gates.glob(f"ended-{worker.pid}-*")))

    def open(self, worker: Process | None = None) -> None:
        """Let calculations through from now on, one worker's or all."""
        (self.gates / ("go" if worker is None else f"go-{worker.pid}")).touch()

    def close(self) -> None:
        """End everything."""
        for cli in self._on.values():
            cli.close()


def ask(across: Across, *distances: float) -> InThread[list[Results]]:
    """Ask for the energies at several distances at once, from the broker's host."""

    def wait() -> list[Results]:
        with Client(across.head.frontend) as client:
            futures = [client.submit("gate", atom(x)) for x in distances]
            return [future.result() for future in futures]

    return InThread(wait)


def process(results: list[Results] | None) -> int:
    """Return the process that computed the first results."""
    assert results
    return int(results[0].provenance["pid"])


def energies(results: list[Results] | None) -> list[float]:
    """Return their energies."""
    assert results is not None
    return [float(result["energy"]) for result in results]
