"""Several hosts on one machine: network namespaces, joined by a switch in one of its own.

Nothing reaches the machine's own network. It needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and
iproute2; the hosts share the file system and the processes' numbers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path

from support.waiting import wait_for

#: Reserved for benchmarks of networks: no real host has such an address.
SUBNET = "198.18.0"

#: Where `ip netns exec` looks for files that a host has in the place of the machine's.
ETC = Path("/etc/netns")

_numbers = itertools.count()


class Cut(Enum):
    """Ways in which a host loses its network; no connection is closed by any of them."""

    #: Packets vanish on the way, as in a firewall that drops them.
    SILENT = "silent"
    #: The cable is pulled out: the interface has no carrier.
    CABLE = "cable"
    #: The host's own interface is down.
    INTERFACE = "interface"


class Host:
    """One of the hosts.

    Attributes
    ----------
    name : str
        The others, and it itself, know it by this name.
    address : str
        Its IP address.
    prefix : list of str
        What stands before a command that is to run there.
    """

    def __init__(self, network: str, name: str, number: int) -> None:
        self.name, self.address = name, f"{SUBNET}.{number}"
        self._switch, self._port = f"{network}-switch", f"port{number}"
        self._name = f"{network}-{name}"
        self.prefix = ["ip", "netns", "exec", self._name]
        self._link_address = f"02:00:00:00:00:{number:02x}"
        self._others: list[Host] = []

    def plug_in(self, others: Iterable[Host]) -> None:
        """Make the host and connect it to the switch."""
        self._others = [other for other in others if other is not self]
        _ip("netns", "add", self._name)
        names = ETC / self._name / "hosts"
        names.parent.mkdir(parents=True)
        known = [(host.address, host.name) for host in (self, *self._others)]
        lines = [" ".join(entry) + "\n" for entry in [("127.0.0.1", "localhost"), *known]]
        names.write_text("".join(lines))
        _ip("-n", self._name, "link", "set", "lo", "up")
        own = ["address", self._link_address, "netns", self._name]
        peer = ["peer", "name", self._port, "netns", self._switch]
        _ip("link", "add", "eth0", *own, "type", "veth", *peer)
        _ip("-n", self._name, "address", "add", f"{self.address}/24", "dev", "eth0")
        self.restore()

    def cut(self, kind: Cut = Cut.SILENT) -> None:
        """Take the host's network away."""
        if kind is Cut.SILENT:
            _ip("-n", self._switch, "link", "set", self._port, "nomaster")
        elif kind is Cut.CABLE:
            _ip("-n", self._switch, "link", "set", self._port, "down")
        else:
            _ip("-n", self._name, "link", "set", "eth0", "down")

    def restore(self) -> None:
        """Undo a cut of any kind."""
        _ip("-n", self._switch, "link", "set", self._port, "master", "bridge", "up")
        _ip("-n", self._name, "link", "set", "eth0", "up")
        # As with a router between them: nobody tells that a host is cut off.
        for other in self._others:
            entry = [
                other.address,
                "lladdr",
                other._link_address,
                "dev",
                "eth0",
                "nud",
                "permanent",
            ]
            _ip("-n", self._name, "neighbour", "replace", *entry)

    def close_connections(self, peer: Host) -> None:
        """Close this host's TCP connections with another, which is told if packets get there."""
        _run(*self.prefix, "ss", "--kill", "-Htn", "state", "established", "dst", peer.address)

    def connections(self, peer: Host, state: str = "established") -> set[str]:
        """Return what tells this host's TCP connections with another apart."""
        shown = _run(*self.prefix, "ss", "-Htn", "state", state, "dst", peer.address)
        return {" ".join(line.split()[2:4]) for line in shown.splitlines()}

    def unsent(self) -> int:
        """Return how many bytes wait to be sent, or for the other end to say that it has them."""
        shown = _run(*self.prefix, "ss", "-Htn", "state", "established")
        return sum(int(line.split()[1]) for line in shown.splitlines())

    def limit(self, rate: str | None) -> None:
        """Limit what the host can send, as ``10mbit``; None: no limit."""
        device = ["dev", "eth0", "root"]
        with contextlib.suppress(NetworkError):
            _run(*self.prefix, "tc", "qdisc", "delete", *device)
        if rate is not None:
            bucket = ["tbf", "rate", rate, "burst", "64k", "latency", "100ms"]
            _run(*self.prefix, "tc", "qdisc", "add", *device, *bucket)


class NetworkError(AssertionError):
    """The network can't be made as it should be."""


@contextlib.contextmanager
def network(*names: str) -> Iterator[dict[str, Host]]:
    """Have hosts of these names for the time of the block; what runs there ends with it."""
    own = f"aserpc{os.getpid()}-{next(_numbers)}"
    switch = f"{own}-switch"
    hosts = {name: Host(own, name, number) for number, name in enumerate(names, 1)}
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for host in hosts.values():
            host.plug_in(hosts.values())
        yield hosts
    finally:
        for name in namespaces(own):
            _remove(name)


def namespaces(prefix: str = "aserpc") -> list[str]:
    """Return the network namespaces whose names begin so."""
    listed = _ip("netns", "list").splitlines()
    return [line.split()[0] for line in listed if line.startswith(prefix)]


def why_not() -> str:
    """Say why there can be no network here; nothing if there can."""
    for program in ("ip", "tc", "ss"):
        if shutil.which(program) is None:
            return f"there is no program {program}, of iproute2"
    try:
        with network("one"):
            pass
    except NetworkError as error:
        return str(error)
    return ""


def _remove(name: str) -> None:
    def left() -> list[str]:
        return _ip("netns", "pids", name).split()

    for process in left():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
    wait_for(lambda: not left(), what=lambda: f"{left()} go on in {name}")
    _ip("netns", "delete", name)
    shutil.rmtree(ETC / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # others have theirs in it
        ETC.rmdir()


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise NetworkError(f"{_shown(command)}: {done.stderr.strip()}")
    return done.stdout


def _shown(command: Sequence[str]) -> str:
    return " ".join(command)
