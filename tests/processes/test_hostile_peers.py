"""Whatever peers send: nobody dies, hangs or takes more memory, and the next call works."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aserpc.header import pack_header, unpack_header
from aserpc.messages import (
    FROM_CLIENT,
    FROM_WORKER,
    TO_CLIENT,
    TO_MANAGER,
    TO_WORKER,
    Accept,
    Answer,
    Buffer,
    Demand,
    Dismiss,
    Heartbeat,
    Hello,
    Message,
    Offer,
    Ping,
    Pong,
    Probe,
    Ready,
    Refuse,
    Reject,
    Request,
    Shutdown,
    ShutdownRequest,
    Stopping,
    Welcome,
)
from aserpc.payload import pack_atoms, unpack_results
from support.asking import atom, energy_at
from support.choices import Choices
from support.hostile import Bare, HostileBroker, any_frames, attacks, bomb, memory
from support.managed import table, write
from support.peers import ABOUT, FakeClient, FakeWorker, Peer
from support.processes import Cli
from support.waiting import wait_for

#: What the processes under attack may have: address space in kB, as for ``ulimit``, and memory.
SPACE, MEMORY = 2_000_000, 500 << 20

#: Each is a history of up to 20 messages.
HISTORIES = int(os.environ.get("ASERPC_TEST_HISTORIES", "60"))

#: Many histories on a busy machine.
pytestmark = pytest.mark.timeout(300)

numbers = itertools.count()

histories = st.lists(st.binary(min_size=30, max_size=160), min_size=1, max_size=20)
many = settings(
    max_examples=HISTORIES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def cli() -> Iterator[Cli]:
    """The command line for the whole module; its processes may take so much memory."""
    with ExitStack() as stack:
        sockets, rest = (Path(tempfile.mkdtemp(prefix="a-")) for _ in range(2))
        for folder in (sockets, rest):
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        limits = ("sh", "-c", f'ulimit -v {SPACE}; exec "$@"', "sh")
        cli = Cli(sockets, rest, rest, limits)
        stack.callback(cli.close)
        yield cli


# ---- the broker ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(cli: Cli) -> Site:
    """A broker with an honest worker and client."""
    return Site(cli)


class Site:
    """A broker that is attacked, and those who use it meanwhile."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self.broker = cli.broker("--queue-timeout", "1")
        cli.worker("Spring")
        self.calculator = cli.calculator("spring")
        self._numbers = itertools.count()
        self.check()

    def check(self) -> None:
        """See that the broker is as it was before."""
        assert self.broker.runs(), self.broker.errors()
        x = float(next(self._numbers))
        assert energy_at(self.calculator, x) == x * x / 2
        assert memory(self.broker.pid) < MEMORY

    def check_tables(self) -> None:
        """See that nothing is left of those who have gone."""

        def left() -> dict[str, Any]:
            status = self.cli.status()
            status["processes"] = [w for w in status["processes"] if w["calculator"] != "spring"]
            names = ("processes", "managers", "pending_requests", "spawning")
            return {name: status[name] for name in names if status[name]}

        wait_for(lambda: not left(), what=lambda: left())
        self.check()


def test_a_broker_survives_any_history_of_messages(site: Site) -> None:
    with ExitStack() as stack:
        peers: dict[type[Peer], list[Peer]] = {}
        for kind, address in ((FakeClient, site.cli.frontend), (FakeWorker, site.cli.backend)):
            peers[kind] = [stack.enter_context(kind(address)) for _ in range(3)]
        honest = stack.enter_context(FakeClient(site.cli.frontend))

        @many
        @given(history=histories)
        def attack(history: list[bytes]) -> None:
            for data in history:
                choose = Choices(data)
                kind = choose.one_of([FakeClient, FakeWorker])
                # What asks all workers to go is obeyed.
                never = (ShutdownRequest,)
                side = FROM_CLIENT if kind is FakeClient else FROM_WORKER
                choose.one_of(peers[kind]).send_frames(any_frames(choose, side, never))
            honest.ping()

        attack()
        site.check()
    site.check_tables()


def test_a_broker_survives_what_is_no_zmtp(site: Site) -> None:
    for path in (site.cli.sockets / "frontend.ipc", site.cli.sockets / "backend.ipc"):
        with ExitStack() as stack:
            for _, attack in attacks():
                attack(stack.enter_context(Bare(path)))
            site.check()
    site.check_tables()


LARGE: dict[str, list[Buffer]] = {
    "a header of 64 MiB": [bytes(64 << 20)],
    "a thousand frames": [pack_header(Ping()), *[b"x"] * 1000],
    "frames of 200 MiB": [pack_header(Request(b"s" * 16, 1, "nobody")), *[bytes(50 << 20)] * 4],
    "a header that claims": [b"\x93\x01\xa5HELLO" + bomb()],
    "a header of small maps": [b"\x93\x01\xa4PING\xdd\x00\x0f\x00\x00" + b"\x80" * 0xF0000],
    "names without end": [pack_header(Ping([[b"s" * 16, n] for n in range(30_000)]))],
}


@pytest.mark.parametrize("frames", LARGE.values(), ids=LARGE)
def test_a_broker_survives_what_is_large(site: Site, frames: list[Buffer]) -> None:
    for kind, address in ((FakeClient, site.cli.frontend), (FakeWorker, site.cli.backend)):
        with kind(address) as peer:
            for _ in range(3):
                peer.send_frames(frames)
                site.check()
    site.check_tables()


def test_a_payload_of_small_maps_reaches_the_worker_and_costs_it_no_memory(site: Site) -> None:
    (worker,) = (w["pid"] for w in site.cli.status()["processes"])
    maps = (60 << 20).to_bytes(4, "big")
    with FakeClient(site.cli.frontend) as client:
        for payload in (
            [bytes(4) + b"\xdd" + maps + b"\x80" * (60 << 20)],
            [bytes(4) + bomb(items=1 << 20)],
            [(2**32 - 1).to_bytes(4, "little") + b"\xc0"],
        ):
            client.ask("spring", payload)
            answer = client.receive(Answer)
            assert answer.error is not None
            assert answer.error["kind"] == "protocol"
        assert memory(worker) < MEMORY
    site.check()


# ---- those who connect to a broker ---------------------------------------------------------------


@pytest.fixture
def hostile(cli: Cli) -> Iterator[HostileBroker]:
    """A hostile broker at an address of its own: nobody of another test finds it."""
    broker = HostileBroker(f"ipc://{cli.sockets}/hostile-{next(numbers)}.ipc")
    yield broker
    broker.close()


def wait_for_message(
    hostile: HostileBroker, kind: type[Message], side: tuple[type[Message], ...] = FROM_WORKER
) -> tuple[bytes, Any, list[bytes]]:
    """Return who sent the next message of a kind, the message and its payload."""
    while True:
        peer, frames = hostile.receive()
        message = unpack_header(frames[0], side)
        if isinstance(message, kind):
            return peer, message, frames[1:]


def test_a_worker_survives_any_history_of_messages(cli: Cli, hostile: HostileBroker) -> None:
    worker = cli.loading_worker("Spring", "--broker", hostile.address, name="spring")
    peer, _, _ = wait_for_message(hostile, Hello)
    hostile.send(peer, pack_header(Welcome()))
    wait_for_message(hostile, Ready)

    # What ends a worker rightly does so.
    never = (Refuse, Reject, Shutdown, Dismiss, Stopping)

    @many
    @given(history=histories)
    def attack(history: list[bytes]) -> None:
        for data in history:
            hostile.send(peer, *any_frames(Choices(data), TO_WORKER, never))
        hostile.send(peer, pack_header(Probe()))
        wait_for_message(hostile, Heartbeat)

    attack()
    assert worker.runs(), worker.errors()
    assert memory(worker.pid) < MEMORY
    key = (b"h" * 16, 1 << 40)
    request = Request(*key, "spring", properties=["energy"])
    hostile.send(peer, pack_header(request), *pack_atoms(atom(2)).frames())
    while True:
        _, answer, payload = wait_for_message(hostile, Answer)
        if answer.key == key:
            break
    assert unpack_results(payload)["energy"] == 2
    assert "Traceback" not in worker.errors()
    hostile.send(peer, pack_header(Shutdown()))
    hostile.send(peer, pack_header(Dismiss()))
    assert worker.wait() == 0


def test_a_manager_survives_any_history_of_messages(cli: Cli, hostile: HostileBroker) -> None:
    write(cli, table("it", gpus=0))
    manager = cli.start("manager", "--broker", hostile.address)
    peer, offer, _ = wait_for_message(hostile, Offer)
    assert offer.calculators == [["it", 0]]
    hostile.send(peer, pack_header(Accept()))

    @many
    @given(history=histories)
    def attack(history: list[bytes]) -> None:
        for data in history:
            hostile.send(peer, *any_frames(Choices(data), TO_MANAGER, (Refuse, Reject)))
        hostile.send(peer, pack_header(Probe()))
        wait_for_message(hostile, Heartbeat)

    attack()
    assert manager.runs(), manager.errors()
    assert "Traceback" not in manager.errors()
    assert memory(manager.pid) < MEMORY
    hostile.send(peer, pack_header(Demand("it", 1, 0, 0.0, [])))
    worker, hello, _ = wait_for_message(hostile, Hello)
    assert hello.calculator == "it"
    assert worker != peer


CLIENT = """
import sys
from ase import Atoms
from aserpc import AserpcError, Client, RemoteCalculator
calculator = RemoteCalculator("it", sys.argv[1], timeout=20_000)
client = Client(sys.argv[1], 20_000)
kinds, good = set(), 0
for number in range(1, 10**6):
    atoms = Atoms("H", [(number, 0, 0)])
    for ask in (
        lambda: calculator.get_property("energy", atoms),
        lambda: client.submit("it", atoms, ["energy"]).result(20)["energy"],
        lambda: calculator.implemented_properties,
    ):
        try:
            found = ask()
        except AserpcError as error:
            kinds.add(type(error).__name__)
        else:
            good += 1
    if found == ["the end"]:
        break
print(good, sorted(kinds))
"""


def test_a_client_survives_any_history_of_messages(cli: Cli, hostile: HostileBroker) -> None:
    client = cli.python(CLIENT, hostile.address)
    about = ABOUT

    def answer(history: list[bytes]) -> None:
        """Answer the next request, and say all that before it, and something in its name."""
        while not reply(history):
            pass

    def reply(history: list[bytes]) -> bool:
        """Answer the next message; whether it was a request."""
        peer, frames = hostile.receive()
        message = unpack_header(frames[0], FROM_CLIENT)
        if isinstance(message, Ping):
            hostile.send(peer, pack_header(Pong(b"i" * 16, [], [], message.id)))
        if not isinstance(message, Request):
            return False
        for data in history:
            choose = Choices(data)
            header, *payload = any_frames(choose, TO_CLIENT, (Refuse, Reject))
            if not choose.number(8):
                odd = choose.one_of([about, b"", b"\xc1", msgpack.packb([1]), choose.take(20)])
                header = pack_header(Answer(*message.key, seconds=1.0, about=odd))
            hostile.send(peer, header, *payload)
        results: list[Buffer] = [bytes(4) + msgpack.packb({"energy": 2.0})]
        hostile.send(peer, pack_header(Answer(*message.key, about=about)), *results)
        return True

    many(given(history=histories)(answer))()
    about = msgpack.packb({"implemented_properties": ["the end"]})
    assert client.runs(), client.errors()
    while client.runs():
        if hostile.socket.poll(100):
            with suppress(zmq.ZMQError):  # it ends, and takes its leave
                reply([])
    assert client.wait() == 0, client.errors()
    assert "Traceback" not in client.errors()
    good, kinds = client.output().split(maxsplit=1)
    assert int(good) > HISTORIES / 4
    assert "ProtocolError" in kinds
