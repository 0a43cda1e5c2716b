"""Who has which GPU, as the real commands show it; the ids are made up."""

from __future__ import annotations

import signal
from typing import Any

from ase.build import bulk

from support.processes import Cli, Process
from support.waiting import wait_for

TOML = """
    [calculators.large]
    factory = "ase.calculators.emt:EMT"
    gpus = 1

    [calculators.small]
    factory = "ase.calculators.emt:EMT"
    gpus = 0.5
"""


def manager(cli: Cli, gpus: str) -> Process:
    (cli.cwd / "aserpc.toml").write_text(TOML)
    process = cli.start("manager", "--gpus", gpus)
    wait_for(lambda: cli.status()["managers"] or not process.runs(), what=process.errors)
    assert process.runs(), process.errors()
    return process


def ask(cli: Cli, name: str) -> None:
    atoms = bulk("Cu")
    atoms.calc = cli.calculator(name)
    atoms.get_potential_energy()


def told(cli: Cli) -> dict[str, tuple[float, list[str]]]:
    """Return what is free of each GPU, and whose workers have it."""
    return {
        gpu["id"]: (gpu["free"], [worker["calculator"] for worker in gpu["workers"]])
        for manager in cli.status()["managers"]
        for gpu in manager["gpus"]
    }


def worker_of(cli: Cli, name: str) -> dict[str, Any]:
    (worker,) = [p for p in cli.status()["processes"] if p["calculator"] == name]
    return dict(worker)


def test_the_status_shows_who_has_which_gpu(cli: Cli) -> None:
    cli.broker()
    manager(cli, "0,1,7")
    for name in ("large", "small"):
        ask(cli, name)
    assert told(cli) == {"0": (0.0, ["large"]), "1": (0.5, ["small"]), "7": (1.0, [])}
    large, small = worker_of(cli, "large"), worker_of(cli, "small")
    assert (large["gpus"], small["gpus"]) == (["0"], ["1"])
    lines = [line.split(maxsplit=3) for line in cli.run("status").output.splitlines()]
    titles = lines.index(["GPU", "Free", "Host", "Workers"])
    assert [[gpu, free, *who] for gpu, free, _, *who in lines[titles + 1 :]] == [
        ["0", "0", f"large (process {large['pid']}, idle)"],
        ["1", "0.5", f"small (process {small['pid']}, idle)"],
        ["7", "1"],
    ]


def test_the_gpu_of_a_worker_that_ends_is_free_again(cli: Cli) -> None:
    cli.broker()
    process = manager(cli, "0")
    ask(cli, "large")
    assert told(cli) == {"0": (0.0, ["large"])}
    assert cli.run("shutdown", "--workers", "large").code == 0
    wait_for(lambda: told(cli) == {"0": (1.0, [])}, what=process.errors)


def test_the_gpus_of_workers_that_are_taken_over_are_theirs_still(cli: Cli) -> None:
    cli.broker()
    first = manager(cli, "0,1")
    for name in ("small", "large"):
        ask(cli, name)
    before = told(cli)
    assert before == {"0": (0.5, ["small"]), "1": (0.0, ["large"])}
    first.signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: not cli.status()["managers"])
    second = manager(cli, "0,1")
    wait_for(lambda: told(cli) == before, what=second.errors)
    assert worker_of(cli, "large")["gpus"] == ["1"]


def test_a_broker_that_comes_after_another_knows_it_too(cli: Cli) -> None:
    broker = cli.broker()
    process = manager(cli, "0,1")
    ask(cli, "large")
    broker.signal(signal.SIGKILL)
    broker.wait()
    cli.broker()
    wait_for(lambda: told(cli) == {"0": (0.0, ["large"]), "1": (1.0, [])}, what=process.errors)
    wait_for(lambda: [p["gpus"] for p in cli.status()["processes"]] == [["0"]], what=process.errors)
