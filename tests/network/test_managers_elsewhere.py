"""A manager on another host, whose network goes and comes back."""

from __future__ import annotations

import json

from support.across import Across, ask, energies
from support.managed import offers, table, write
from support.processes import CALCULATORS, Process
from support.waiting import wait_for


def manager(across: Across, host: str) -> Process:
    """Start a manager that offers a gate, and wait until the broker has it."""
    cli = across.on(host)
    gate = {"folder": str(across.gates)}
    write(cli, table("gate", gate, factory=f"{CALCULATORS}:Gate", max_workers=1))
    process = cli.start("manager")
    wait_for(lambda: offers(across.head) or not process.runs(), what=process.errors)
    assert process.runs(), process.errors()
    return process


def started(across: Across) -> int:
    return len(list(across.gates.glob("started-*")))


def test_it_starts_workers_for_clients_on_a_third_host(across: Across) -> None:
    across.broker()
    manager(across, "one")
    across.open()
    client = across.client("laptop", "gate", 2)
    assert client.wait() == 0, client.errors()
    assert client.output().splitlines()[1].startswith("2.0 ")


def test_it_and_its_worker_come_back_after_a_long_cut(across: Across) -> None:
    across.set(ASERPC_WORKER_TIMEOUT="2")
    broker = across.broker()
    manages = manager(across, "one")
    call = ask(across, 2)
    wait_for(lambda: started(across))
    (worker,) = across.states()
    across.hosts["one"].cut()
    wait_for(lambda: not across.states() and not offers(across.head))
    across.hosts["one"].restore()
    wait_for(lambda: offers(across.head))
    across.open()
    assert energies(call.result()) == [2.0], broker.errors()
    # The worker computed on while nobody knew of it, and then what was asked for again.
    wait_for(lambda: worker in across.head.ready(), what=manages.errors)
    assert [*across.states()] == [worker], "another was started, though one is all there may be"


def test_two_managers_share_a_name_no_more_than_on_one_host(across: Across) -> None:
    across.broker()
    manager(across, "one")
    cli = across.on("two")
    write(cli, table("gate", {"folder": str(across.gates)}, factory=f"{CALCULATORS}:Gate"))
    second = cli.start("manager")
    wait_for(lambda: "is offered already by" in second.errors() or not second.runs())
    assert json.loads(across.head.run("status", "--json").output)["manager"]["spawnable"] == [
        "gate"
    ]
