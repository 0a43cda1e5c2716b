"""Brokers that are killed under load: nothing is lost, and nothing long is computed twice."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path

import pytest

from aserpc import Client
from aserpc.broker.roster import ROSTER_FILE, unpack_roster
from support.asking import atom
from support.counted import COUNTED, counts, work
from support.managed import manager
from support.processes import Cli, Process
from support.waiting import InThread, wait_for

#: How long a long calculation takes, s: a broker is killed and another comes meanwhile.
LONG = 8.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where calculators note what they compute."""
    folder = tmp_path / "counted"
    folder.mkdir()
    return folder


def serve(cli: Cli, folder: Path, *, holds: bool = False, name: str = "it") -> Process:
    """Start a worker that counts."""
    kwargs = json.dumps({"folder": str(folder), "holds": holds})
    worker = cli.start("worker", COUNTED, "--kwargs", kwargs, "--name", name)
    wait_for(lambda: worker.pid in cli.ready(), what=worker.errors)
    return worker


def left(cli: Cli) -> int:
    """Return of how many calculations the broker would tell the next."""
    roster = unpack_roster((cli.sockets / ROSTER_FILE).read_bytes())
    return sum(len(keys) for _, keys in roster.workers.values())


def kill(broker: Process) -> None:
    """Kill a broker."""
    broker.signal(signal.SIGKILL)
    assert broker.wait() == -signal.SIGKILL


def test_calculations_outlive_two_brokers_that_are_killed_under_load(
    cli: Cli, folder: Path
) -> None:
    broker = cli.broker("--allow-mixed")
    # Of one that holds the interpreter's lock nothing is heard until it has finished.
    for holds in (True, False, False):
        serve(cli, folder, holds=holds)
    long = [f"long-{number}" for number in range(3)]
    short = [f"short-{number}" for number in range(60)]
    with Client(cli.frontend, 15_000) as client:
        futures = {token: client.submit("it", work(token, 2, LONG)) for token in long}
        wait_for(lambda: len(counts(folder)) == 3)
        others = Client(cli.frontend, 15_000)
        futures |= {
            token: others.submit("it", work(token, number, 0.01))
            for number, token in enumerate(short)
        }
        for _ in range(2):
            wait_for(lambda: left(cli) == 3)
            kill(broker)
            broker = cli.broker("--allow-mixed")
        assert not counts(folder, "ended"), "the test is too slow for this machine"
        energies = {token: future.result(30)["energy"] for token, future in futures.items()}
        others.close()
    assert [energies[token] for token in long] == [2, 2, 2]
    assert [energies[token] for token in short] == [number**2 / 2 for number in range(60)]
    assert {token: counts(folder)[token] for token in long} == dict.fromkeys(long, 1)
    assert "lost" not in broker.errors()


def test_what_is_computed_while_there_is_no_broker_is_delivered(cli: Cli, folder: Path) -> None:
    broker = cli.broker()
    serve(cli, folder)
    with Client(cli.frontend, 30_000) as client:
        future = client.submit("it", work("a", 4, 1.0))
        wait_for(lambda: left(cli) == 1)
        kill(broker)
        wait_for(lambda: counts(folder, "ended")["a"] == 1)
        cli.broker()
        assert future.result(30)["energy"] == 8
    assert counts(folder)["a"] == 1


def test_what_a_killed_broker_had_not_read_is_given_again(cli: Cli, folder: Path) -> None:
    broker = cli.broker()
    serve(cli, folder)
    with Client(cli.frontend, 30_000) as client:
        future = client.submit("it", work("a", 4, 2.0))
        wait_for(lambda: left(cli) == 1)
        broker.signal(signal.SIGSTOP)
        wait_for(lambda: counts(folder, "ended")["a"] == 1)
        kill(broker)
        cli.broker()
        assert future.result(30)["energy"] == 8
    assert counts(folder)["a"] == 1


def test_a_request_whose_worker_died_with_the_broker_is_computed_elsewhere(
    cli: Cli, folder: Path
) -> None:
    broker = cli.broker()
    worker = serve(cli, folder)
    with Client(cli.frontend, 30_000) as client:
        future = client.submit("it", work("a", 4, 1.0))
        wait_for(lambda: left(cli) == 1)
        kill(broker)
        worker.signal(signal.SIGKILL)
        worker.wait()
        broker = cli.broker()
        serve(cli, folder)
        assert future.result(30)["energy"] == 8
    assert counts(folder)["a"] == 2
    assert "lost" in broker.errors()


def test_nobody_is_told_that_there_are_no_workers_while_all_come_back(
    cli: Cli, folder: Path
) -> None:
    broker = cli.broker()
    serve(cli, folder)
    table = f"""
        [calculators.managed]
        factory = "{COUNTED}"
        kwargs = {{folder = "{folder}"}}
        """
    manager(cli, table)
    wait_for(lambda: cli.status()["manager"]["spawnable"] == ["managed"])
    kill(broker)
    asked = {"it": work("a", 2, 0.0), "managed": work("b", 2, 0.0), "spring": atom(2)}
    calls = [
        InThread(partial(cli.calculator(name, check_broker=False).get_property, "energy", atoms))
        for name, atoms in asked.items()
    ]
    cli.broker()
    cli.worker("Spring")  # nobody knew of it
    assert [call.result() for call in calls] == [2, 2, 2]
