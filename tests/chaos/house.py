"""The service of a chaos run: its processes, by the real command, and what is known of them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aserpc import AserpcError, broker_status
from chaos import answers
from chaos.clients import Task
from chaos.proxy import Proxy
from chaos.records import Chronicle
from support.managed import table, write
from support.processes import TESTS, Cli, Process
from support.waiting import wait_for

#: Of the service, s. A worker that is stopped for longer than the first is lost; what hangs ends
#: by the second; nobody gives up the broker within the third.
WORKER_TIMEOUT, CALCULATION_TIMEOUT, CLIENT_TIMEOUT = 3.0, 6.0, 30.0

#: How many workers each name has that are started by hand.
BY_HAND = {"near": 2, "far": 2}

#: Clients; every other one comes through the network.
CLIENTS = 4

#: How often the broker is asked how it fares, s.
LOOK_INTERVAL = 0.3

#: How long the service may take to be whole again when it is left alone, s.
PATIENCE = 90.0

ANSWERS = f"{answers.__file__}:Known"


@dataclass
class Hand:
    """A worker that was started by hand."""

    name: str
    process: Process
    #: Since when it is there for requests; None: it is not.
    since: float | None = None
    #: When it may be taken for there again, after something was done to it.
    not_before: float = 0.0
    stopped: bool = False
    #: How it may end, besides what its requests make of it.
    codes: set[int] = field(default_factory=lambda: {-signal.SIGABRT})


@dataclass
class House:
    """All processes of a run.

    Parameters
    ----------
    cli
        Starts them.
    run
        What happens is noted there.
    seed
        Of all that is random.
    percent
        See `Task`.
    breaks
        How the broker is broken on purpose, see `chaos.broken`; empty: it is not.
    """

    cli: Cli
    run: Chronicle
    seed: str
    percent: dict[str, float]
    breaks: str = ""
    broker: Process | None = None
    manager: Process | None = None
    hands: list[Hand] = field(default_factory=list)
    clients: dict[str, Process] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.ports = free_ports(2)
        self.networks = {"clients": Proxy(self.ports[0]), "workers": Proxy(self.ports[1])}
        self.orders("rest")
        self._managed_since: float | None = None
        self._by_hand = dict(BY_HAND)
        self._number, self._calls, self._look_at = 0, 0, 0.0
        self.cli.env.update(
            ASERPC_WORKER_TIMEOUT=str(WORKER_TIMEOUT),
            ASERPC_CALCULATION_TIMEOUT=str(CALCULATION_TIMEOUT),
            ASERPC_IDLE_TIMEOUT="inf",
            ASERPC_REQUEST_QUEUE_TIMEOUT=str(PATIENCE),
            PYTHONPATH=os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")])),
        )
        config = table(
            "managed",
            factory=ANSWERS,
            kwargs=self._kwargs("managed"),
            min_workers=1,
            max_workers=3,
            max_restarts=1000,
            idle_timeout=2.0,
            calculation_timeout=CALCULATION_TIMEOUT,
        )
        write(self.cli, config)

    # ---- starting --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything, and wait until all are there."""
        self.start_broker()
        assert self.broker is not None
        broker = self.broker
        wait_for(lambda: "serving clients" in broker.errors() or not broker.runs())
        assert broker.runs(), broker.errors()
        self.start_manager()
        for _ in range(CLIENTS):
            self.start_client()
        self.calm()

    def start_broker(self) -> None:
        """Start the broker."""
        frontend, backend = (f"tcp://127.0.0.1:{port}" for port in self.ports)
        command = ["broker", "--frontend", frontend, "--backend", backend, "--insecure"]
        if self.breaks:
            source = "from chaos.broken import main; main()"
            self.broker = self.cli.python(source, self.breaks, *command)
        else:
            self.broker = self.cli.start(*command)

    def start_manager(self) -> None:
        """Start the manager."""
        self.manager = self.cli.start("manager", "--gpus", "")

    def start_worker(self, name: str) -> None:
        """Start a worker by hand."""
        kwargs = json.dumps(self._kwargs(name))
        command = ["worker", ANSWERS, "--name", name, "--kwargs", kwargs]
        if name == "far":
            command += ["--broker", self.networks["workers"].address]
        self.hands.append(Hand(name, self.cli.start(*command)))

    def start_client(self) -> None:
        """Start a client."""
        number = self._number = self._number + 1
        name = f"client{number}"
        across = number % 2 == 0
        broker = self.networks["clients"].address if across else self.cli.frontend
        task = Task(name, self.seed, broker, str(self.run.folder), self.percent, CLIENT_TIMEOUT)
        source = "from chaos.clients import main; main()"
        argument = json.dumps(dataclasses.asdict(task))
        self.clients[name] = self.cli.python(source, argument)

    def _kwargs(self, name: str) -> dict[str, str]:
        return {"name": name, "computed": str(self.run.folder / "computed")}

    def orders(self, order: str) -> None:
        """Tell the clients what to do."""
        path = self.run.folder / "orders"
        new = path.with_suffix(".new")
        new.write_text(order)
        new.replace(path)

    # ---- looking after it ------------------------------------------------------------------------

    def attend(self) -> None:
        """See what has ended, start workers in its place, and note who is there."""
        now = time.monotonic()
        for hand in list(self.hands):
            if not hand.process.runs():
                self.left(hand)
                self.hands.remove(hand)
                self._check_end(hand)
        for name, number in self._by_hand.items():
            for _ in range(number - sum(1 for hand in self.hands if hand.name == name)):
                self.start_worker(name)
        for process in (self.broker, self.manager, *self.clients.values()):
            if process is not None and not process.runs():
                self.run.complaints.append(f"{process} has ended:\n{process.errors()[-3000:]}")
                raise UnwellError
        if now >= self._look_at:
            self.run.read()
            self._look()
            self._look_at = time.monotonic() + LOOK_INTERVAL
        self._seen_at = now

    def left(self, hand: Hand, *, until: float = 0.0) -> None:
        """Note that a worker is not there for requests, before `until`, if ever again."""
        if hand.since is not None:
            self.run.present.append((hand.name, hand.since, self._seen_at))
        hand.since, hand.not_before = None, max(hand.not_before, until)

    def left_managed(self) -> None:
        """Note that the manager is not there."""
        if self._managed_since is not None:
            self.run.present.append(("managed", self._managed_since, self._seen_at))
        self._managed_since = None

    def _look(self) -> None:
        asked_at = time.monotonic()
        if self.broker is None:
            return
        try:
            self.status = broker_status(self.cli.frontend, 400)
        except AserpcError:
            return
        there = {p["pid"] for p in self.status["processes"] if p["state"] in ("idle", "busy")}
        for hand in self.hands:
            if hand.since is None and hand.process.pid in there and asked_at >= hand.not_before:
                hand.since = asked_at
        offered = "managed" in self.status["manager"]["spawnable"]
        if offered and self.manager is not None and self._managed_since is None:
            self._managed_since = asked_at

    def _check_end(self, hand: Hand) -> None:
        code, log = hand.process.wait(), hand.process.errors()
        # The second is faulthandler's, where Python could not tell any more.
        hung = code == 1 and ("calculation_timeout" in log or "Timeout (" in log)
        if not hung and code not in hand.codes:
            self.run.complaints.append(f"{hand.process} ended with {code}:\n{log[-3000:]}")
            raise UnwellError

    def calm(self, patience: float = PATIENCE) -> None:
        """Leave the service alone until it is whole again, and every client has tried all of it.

        All requests have to end within `patience`.
        """
        self.orders("rest")
        self._until(
            lambda: not self.run.waiting(), "all requests have ended", self._waiting, patience
        )
        self._until(self._whole, "all are there", lambda: json.dumps(self.status, indent=1))
        self._calls += 1
        order = f"call {self._calls}"
        self.orders(order)
        # Each client asks in two ways.
        self._until(
            lambda: all(self.run.counts[f"{name} {order}"] == 2 for name in self.clients),
            "all have called",
            self._waiting,
        )
        self._until(self._whole, "all are there", lambda: json.dumps(self.status, indent=1))

    def _until(
        self,
        condition: Callable[[], bool],
        what: str,
        told: Callable[[], str],
        patience: float = PATIENCE,
    ) -> None:
        def met() -> bool:
            self.attend()
            return condition()

        try:
            wait_for(met, patience)
        except AssertionError:
            self.run.complaints.append(f"not within {patience:g} s: {what}\n{told()}")
            raise UnwellError from None

    def _waiting(self) -> str:
        return "\n".join(f"never answered: {asked}" for asked in self.run.waiting())

    def _whole(self) -> bool:
        counts = self.status.get("workers", {})
        wanted = {**BY_HAND, "managed": 1}
        return (
            all(counts.get(name, {}).get("idle") == number for name, number in wanted.items())
            and sum(entry["total"] for entry in counts.values()) == sum(wanted.values())
            and all(hand.since is not None for hand in self.hands)
            and self._managed_since is not None
        )

    # ---- the end ---------------------------------------------------------------------------------

    def end(self) -> None:
        """End clients, workers and manager in order; the broker is then to have nothing left."""
        self.orders("end")
        for client in self.clients.values():
            self._ends(client, "a client")
        self.clients.clear()
        for hand in self.hands:
            self.left(hand)
            hand.process.signal(signal.SIGTERM)
        for hand in self.hands:
            self._ends(hand.process, "a worker")
        self.hands.clear()
        self._by_hand.clear()
        assert self.manager is not None
        assert self.broker is not None
        self.manager.signal(signal.SIGTERM)
        self._ends(self.manager, "the manager")
        self.manager = None
        self.run.read()
        tables: dict[str, int] = {}

        def empty() -> bool:
            self.attend()
            tables.update(self.status["tables"])
            return not any(tables.values())

        try:
            wait_for(empty, PATIENCE)
        except AssertionError:
            self.run.complaints.append(f"the broker keeps {tables}")
        self.broker.signal(signal.SIGTERM)
        self._ends(self.broker, "the broker")
        left = strays(self.cli.sockets)
        if left:
            self.run.complaints.append(f"processes are left: {left}")

    def _ends(self, process: Process, who: str) -> None:
        try:
            code = process.wait(PATIENCE)
        except AssertionError as error:
            self.run.complaints.append(str(error)[-3000:])
            raise UnwellError from None
        if code != 0 or "Traceback" in process.errors():
            told = process.errors()[-3000:]
            self.run.complaints.append(f"{who} ended with {code}; it says:\n{told}")

    def close(self) -> None:
        """Kill what is left."""
        for network in self.networks.values():
            network.close()
        for hand in self.hands:
            hand.process.kill()
        for pid in strays(self.cli.sockets):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class UnwellError(AssertionError):
    """The service is not what it was; the complaints say why."""


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody has."""
    import socket

    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def strays(sockets: Path) -> list[int]:
    """Return the processes that have their sockets in a folder."""
    wanted = f"ASERPC_IPC_DIR={sockets}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def resident(process: Process) -> int:
    """Return a process's resident memory, in kB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"{process} has no memory")


def descriptors(process: Process) -> Counter[str]:
    """Return how many descriptors of each kind a process has open."""
    kinds: Counter[str] = Counter()
    for path in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            kinds[os.readlink(path).partition(":")[0]] += 1  # noqa: PTH115
    return kinds
