"""Many clients at a manager with the real command: how many workers come; no call is missed."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.managed import ask, counted, table, up
from support.processes import Cli
from support.waiting import SOON, wait_for


def test_workers_come_and_go_under_load_and_no_call_is_lost(cli: Cli) -> None:
    """The calls come just when the workers are about to leave, or have just left."""
    idle_timeout, clients, rounds, calls = 0.2, 6, 10, 4
    process = up(cli, table("lj", idle_timeout=idle_timeout, max_workers=2))
    barrier = threading.Barrier(clients, timeout=SOON)
    pids: set[int] = set()

    def call(client: int) -> int:
        chance, pause = random.Random(client), threading.Event()
        for number in range(rounds):
            for _ in range(calls):
                pids.add(ask(cli, "lj")["pid"])
            barrier.wait()
            # Together, so that workers do fall idle; a little apart, around the end of that time.
            around = (0.95, 1.0, 1.05, 1.1)[number % 4]
            pause.wait(idle_timeout * around + chance.uniform(0.0, 0.01))
        return rounds * calls

    with ThreadPoolExecutor(clients) as executor:
        answered = sum(executor.map(call, range(clients)))
    assert answered == clients * rounds * calls
    started, ended = (counted(process, words) for words in ("starting a worker", "exit code 0"))
    wait_for(lambda: ended() == started(), what=process.errors)
    assert started() >= len(pids) >= 3
    assert "could not be started" not in process.errors()


def test_four_calculations_run_at_once_on_four_warm_workers(cli: Cli) -> None:
    process = up(cli, table("lj", max_workers=4, min_workers=4))
    wait_for(lambda: len(cli.ready()) == 4, what=process.errors)
    with ThreadPoolExecutor(4) as executor:
        began = time.time()
        told = list(executor.map(lambda _: ask(cli, "lj", {"sleep": 2.0}), range(4)))
        took = time.time() - began
    assert len({entry["pid"] for entry in told}) == 4
    assert max(entry["times"][0] for entry in told) < min(entry["times"][1] for entry in told)
    assert 2.0 <= took < 4.0


def test_twenty_clients_bring_up_no_more_than_max_workers(cli: Cli) -> None:
    process = up(cli, table("lj", max_workers=2))
    with ThreadPoolExecutor(20) as executor:
        told = list(executor.map(lambda _: ask(cli, "lj", {"sleep": 0.1}), range(20)))
    pids = {entry["pid"] for entry in told}
    assert 1 <= len(pids) <= 2
    # None was started beside those that served, and ended again.
    assert counted(process, "starting a worker")() <= 2
    assert {path.name for path in (cli.sockets / "work").iterdir()} == {
        Path(entry["cwd"]).name for entry in told
    }
