"""Floods of requests: the broker refuses what is too much, and its memory stays bounded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aserpc import Client
from aserpc.errors import BusyError
from aserpc.messages import Answer
from support.asking import atom, energy_at
from support.peers import FakeClient, FakeWorker
from support.processes import Cli, Process
from support.waiting import wait_for

MIB = 1 << 20


def most_memory(process: Process) -> int:
    """Return the most resident memory that a process has had, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def test_a_flood_does_not_fill_the_memory(cli: Cli) -> None:
    limit, size, number = 32 * MIB, MIB, 400
    broker = cli.broker("--max-queue-bytes", str(limit))
    with FakeWorker(cli.backend) as worker, FakeClient(cli.frontend) as client:
        worker.ready("it")
        before = most_memory(broker)
        for _ in range(number):
            client.ask("it", [bytes(size)])
        refused = [client.receive(Answer) for _ in range(number - limit // size)]
        client.ping()
    kinds = {answer.error["kind"] for answer in refused if answer.error is not None}
    assert kinds == {"busy"}
    grown = most_memory(broker) - before
    assert limit / 2 < grown < limit + 100 * MIB, f"{grown / MIB:.0f} MiB for {number} MiB"


def test_those_who_are_refused_are_told_and_those_who_are_not_are_served(
    cli: Cli, tmp_path: Path
) -> None:
    cli.broker("--max-queue", "20")
    cli.worker("Gate", "--kwargs", f'{{"folder": "{tmp_path}"}}')
    with Client(cli.frontend, 15_000) as client:
        futures = [client.submit("gate", atom(number)) for number in range(100)]
        wait_for(lambda: sum(future.done() for future in futures) == 79)
        (tmp_path / "go").touch()
        results = [future.exception(20) or future.result() for future in futures]
    refused = [result for result in results if isinstance(result, BusyError)]
    assert len(refused) == 79
    assert "20 requests wait already, as many as may (max_queue)" in str(refused[0])
    served = [result["energy"] for result in results if not isinstance(result, BaseException)]
    assert served == [number**2 / 2 for number in range(21)]
    assert cli.run("status").code == 0


def test_retries_wait_until_there_is_room(cli: Cli, tmp_path: Path) -> None:
    cli.broker("--max-queue", "1")
    cli.worker("Gate", "--kwargs", f'{{"folder": "{tmp_path}"}}')
    with Client(cli.frontend, 15_000) as client:
        futures = [client.submit("gate", atom(number)) for number in range(2)]
        wait_for(lambda: cli.status()["pending_requests"] == {"gate": 1})
        calculator = cli.calculator("gate")
        with pytest.raises(BusyError):
            energy_at(calculator, 4)
        calculator.retries = 1
        (tmp_path / "go").touch()
        assert energy_at(calculator, 4) == 8
        assert [future.result(20)["energy"] for future in futures] == [0, 0.5]


def test_one_call_beside_ten_thousand_does_not_wait_for_them(cli: Cli) -> None:
    cli.broker()
    cli.worker("Spring")
    beside = cli.calculator("spring")
    energy_at(beside, 1)
    with Client(cli.frontend, 60_000) as many:
        futures = [many.submit("spring", atom(number)) for number in range(10_000)]
        waiting = [future for future in futures if not future.done()]
        assert energy_at(beside, 4) == 8
        left = sum(not future.done() for future in waiting)
        futures[-1].result(50)
    assert left > len(waiting) / 2, f"{left} of {len(waiting)} still waited"
