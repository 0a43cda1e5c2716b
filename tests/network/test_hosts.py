"""The rig that the other tests here stand on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.hosts import Cut, Host, NetworkError, namespaces, network
from support.waiting import wait_for

Hosts = dict[str, Host]

SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 5000))
connection, _ = server.accept()
print("connected", flush=True)
size = 0
try:
    while data := connection.recv(65536):
        size += len(data)
        if data.endswith(b"!"):
            connection.sendall(b"%d" % size)
except OSError as error:
    print(type(error).__name__)
"""

CLIENT = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 5000), timeout=20)
for line in sys.stdin:
    connection.sendall(b"." * int(line) + b"!")
    print("got", connection.recv(100).decode(), flush=True)
"""


@pytest.fixture
def hosts(networks: None) -> Iterator[Hosts]:
    with network("head", "one") as hosts:
        yield hosts


class Line:
    """A connection from one host to another."""

    def __init__(self, client: Host, server: Host) -> None:
        self.server = self._start(server, SERVER, server.address)
        self._listens(server)
        self.client = self._start(client, CLIENT, server.address)
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == "connected\n"

    def _start(self, host: Host, source: str, address: str) -> subprocess.Popen[str]:
        command = [*host.prefix, sys.executable, "-c", source, address]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def _listens(self, host: Host) -> None:
        def listens() -> str:
            command = [*host.prefix, "ss", "-Hltn", "sport = 5000"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        wait_for(listens)

    def send(self, size: int) -> None:
        assert self.client.stdin is not None
        self.client.stdin.write(f"{size}\n")

    def answer(self) -> str:
        assert self.client.stdout is not None
        return self.client.stdout.readline()

    def end(self) -> str:
        """Close the connection; return what the server says."""
        self.client.kill()
        self.client.communicate()
        return self.server.communicate(timeout=20)[0]


def test_hosts_reach_each_other(hosts: Hosts) -> None:
    line = Line(hosts["one"], hosts["head"])
    line.send(10)
    assert line.answer() == "got 11\n"
    assert line.end() == ""


@pytest.mark.parametrize("kind", Cut)
def test_nothing_passes_a_cut_and_connections_outlive_it(hosts: Hosts, kind: Cut) -> None:
    line = Line(hosts["one"], hosts["head"])
    hosts["one"].cut(kind)
    line.send(10)
    wait_for(lambda: hosts["one"].unsent() == 11)
    hosts["one"].restore()
    assert line.answer() == "got 11\n"
    line.end()


def test_closed_connections_are_closed_at_both_ends(hosts: Hosts) -> None:
    line = Line(hosts["one"], hosts["head"])
    hosts["one"].close_connections(hosts["head"])
    assert line.server.wait(20) == 0
    assert line.end() == "ConnectionResetError\n"


def test_a_limited_host_sends_slowly(hosts: Hosts) -> None:
    line = Line(hosts["one"], hosts["head"])
    hosts["one"].limit("1mbit")
    line.send(300_000)
    line.answer()
    shown = [*hosts["one"].prefix, "tc", "-s", "qdisc", "show", "dev", "eth0"]
    told = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    overlimits = int(told.split("overlimits ")[1].split()[0])
    assert overlimits > 10
    hosts["one"].limit(None)
    hosts["one"].limit(None)
    line.end()


def test_two_networks_know_nothing_of_each_other(networks: None) -> None:
    with network("one") as first, network("other", "one") as second:
        assert first["one"].prefix != second["one"].prefix
        assert first["one"].address == second["other"].address


def test_nothing_is_left_also_after_a_failure(networks: None) -> None:
    own = f"aserpc{os.getpid()}-"
    before = namespaces(own)
    processes = []

    def failing_test() -> None:
        with network("one", "two") as made:
            processes.append(subprocess.Popen([*made["one"].prefix, "sleep", "1000"]))
            assert len(namespaces(own)) == len(before) + 3
            raise RuntimeError("the test failed")

    with pytest.raises(RuntimeError, match="the test failed"):
        failing_test()
    assert processes[0].wait(20) == -9
    assert namespaces(own) == before


def test_what_goes_wrong_is_told(hosts: Hosts) -> None:
    with pytest.raises(NetworkError, match="fast"):
        hosts["one"].limit("fast")
