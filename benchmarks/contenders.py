"""Who is measured: services with their processes, each asked by a client's process of its own."""

from __future__ import annotations

import shutil
import socket
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import environment_with
from benchmarks.processes import Bench, BenchmarkError, Driver, Process
from benchmarks.report import Report

#: What ours was before, in an environment of its own.
OLD = "aserpc-0.1.3"


#: Calculators by the word before the first ``-`` of the name that they are served under.
CLASSES = {"null": "Null", "sleep": "Sleep", "together": "SleepTogether", "emt": "EMT"}


@dataclass
class Contender:
    """A service that is asked."""

    name: str
    driver: Driver
    #: Processes of the service: broker and worker.
    roles: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class Service:
    """A broker with workers, of either version of aserpc."""

    kind: str
    address: str
    backend: str
    python: str
    roles: dict[str, list[int]]
    env: dict[str, str] = field(default_factory=dict)

    def driver(self, bench: Bench) -> Driver:
        """Start a client of it."""
        command = [self.python, "-m", "benchmarks.driver", self.kind, self.address]
        return bench.driver(f"client-of-{self.kind}", command, self.env)

    def contender(self, bench: Bench, name: str) -> Contender:
        """Return it with a client."""
        return Contender(name, self.driver(bench), self.roles)


def in_process(bench: Bench) -> Contender:
    """Return the calculator itself."""
    command = [sys.executable, "-m", "benchmarks.driver", "in-process", "-"]
    return Contender("in process", bench.driver("in-process", command))


def ase_socket(bench: Bench) -> Contender:
    """Return ASE's SocketIOCalculator over a unix socket."""
    command = [sys.executable, "-m", "benchmarks.driver", "socket", str(bench.folder)]
    return Contender("SocketIOCalculator", bench.driver("socket", command))


def floor(bench: Bench, transport: str) -> Contender:
    """Return bare sockets."""
    front, back = _addresses(bench, transport, "floor")
    module = [sys.executable, "-m", "benchmarks.floor"]
    broker = bench.start("floor-broker", [*module, "broker", front, back])
    worker = bench.start("floor-worker", [*module, "worker", back])
    driver = bench.driver(
        "floor-client", [sys.executable, "-m", "benchmarks.driver", "floor", front]
    )
    driver.do("ready")
    roles = {"broker": [broker.pid], "worker": [worker.pid]}
    return Contender(f"floor, {transport}", driver, roles)


def sleeping_floor(bench: Bench, workers: int, clients: int) -> list[Driver]:
    """Return clients of bare sockets with workers that sleep."""
    front, back = _addresses(bench, "ipc", "sleeping")
    module = [sys.executable, "-m", "benchmarks.floor"]
    bench.start("floor-share", [*module, "share", front, back])
    for _ in range(workers):
        bench.start("floor-sleeper", [*module, "sleeper", back])
    command = [sys.executable, "-m", "benchmarks.driver", "floor", front]
    return [bench.driver("floor-client", command) for _ in range(clients)]


def ours(bench: Bench, workers: Mapping[str, int], transport: str = "ipc") -> Service:
    """Start our broker and so many workers of each name."""
    # Beside the interpreter that runs this, or wherever a person has put it.
    command = Path(sysconfig.get_path("scripts")) / "aserpc"
    env, flags = {}, []
    if transport == "tcp":  # without keys, as the bare sockets are
        env, flags = {"ASERPC_KEYS_DIR": str(bench.subfolder())}, ["--insecure"]
    return _service(
        bench, "aserpc", sys.executable, str(command), workers, transport, env=env, flags=flags
    )


def old(bench: Bench, workers: Mapping[str, int]) -> Service:
    """Start the broker and workers of aserpc 0.1.3."""
    scripts = environment_with(OLD, ["aserpc==0.1.3"])
    return _service(bench, OLD, str(scripts / "python"), str(scripts / "aserpc"), workers)


def try_old(bench: Bench, workers: Mapping[str, int], report: Report) -> Service | None:
    """Start aserpc 0.1.3 if it is wanted and can be had."""
    if OLD in bench.without:
        report.skip(f"{OLD}: not wanted")
        return None
    try:
        return old(bench, workers)
    except BenchmarkError as error:
        report.skip(str(error))
        return None


def _service(
    bench: Bench,
    kind: str,
    python: str,
    command: str,
    workers: Mapping[str, int],
    transport: str = "ipc",
    *,
    env: dict[str, str] | None = None,
    flags: list[str] | None = None,
) -> Service:
    front, back = _addresses(bench, transport, kind)
    folder = bench.subfolder()
    started: list[Process] = []

    def start(name: str, *arguments: str) -> Process:
        process = bench.start(f"{kind}-{name}", [command, *arguments], folder, env=env)
        started.append(process)
        return process

    broker = start("broker", "broker", "--frontend", front, "--backend", back, *(flags or []))
    serving: list[Process] = []
    for name, count in workers.items():
        what = CLASSES[name.partition("-")[0]]
        arguments = ("worker", f"benchmarks.calculators:{what}", "--name", name, "--broker", back)
        forever = ("--idle-timeout", "100000")
        serving += [start(name, *arguments, *forever) for _ in range(count)]
    roles = {"broker": [broker.pid], "worker": [process.pid for process in serving]}
    service = Service(kind, front, back, python, roles, env or {})
    try:
        service.driver(bench).do("ready", names=dict(workers), timeout=60.0)
    except BenchmarkError as error:
        said = [f"{process.name}: {process.errors()}" for process in started[:2]]
        raise BenchmarkError("\n".join([str(error), *said])) from None
    return service


def _addresses(bench: Bench, transport: str, name: str) -> tuple[str, str]:
    if transport == "ipc":
        folder = bench.subfolder()
        return f"ipc://{folder}/{name}-f", f"ipc://{folder}/{name}-b"
    return f"tcp://127.0.0.1:{_free_port()}", f"tcp://127.0.0.1:{_free_port()}"


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def redis_server() -> str:
    """Return the command of Redis, which BigChem needs."""
    found = shutil.which("redis-server")
    if found is None:
        raise BenchmarkError(
            "BigChem: no redis-server here; on Debian: apt-get install redis-server"
        )
    return found


def measured(report: Report, what: str, contender: Contender, rounds: list[dict[str, Any]]) -> None:
    """Note the rounds of a contender."""
    seconds = [each["seconds"] for each in rounds]
    report.figure(what, contender.name, seconds, cpu=[each["cpu"] for each in rounds])
