"""``aserpc run --relax``: it ends at once when it is interrupted, whatever is being computed."""

from __future__ import annotations

import json
import signal

import pytest
from ase.build import bulk, molecule
from ase.io import read, write

from support.finished import finished
from support.processes import Cli
from support.waiting import wait_for, wait_until_asleep

#: Hangs in the second step of a molecule's relaxation.
STUCK = """
import pathlib, threading
from ase.calculators.emt import EMT
folder = pathlib.Path(__file__).parent

class Stuck(EMT):
    steps = 0

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        Stuck.steps += len(atoms) == 2
        if Stuck.steps == 2:
            (folder / "stuck").touch()
            threading.Event().wait()
"""


ONCE, SIGTERM, TWICE = [signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]


@pytest.mark.parametrize(
    ("signals", "served"),
    [(ONCE, False), (SIGTERM, False), (TWICE, False), (ONCE, True), (SIGTERM, True)],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice", "Ctrl-C, a broker", "SIGTERM, a broker"],
)
def test_a_relaxation_that_hangs_is_interrupted(cli: Cli, signals: list[int], served: bool) -> None:
    (cli.cwd / "hanging.py").write_text(STUCK)
    write(cli.cwd / "in.extxyz", [bulk("Cu"), molecule("CO"), bulk("Ni")])
    options = ["-o", "out.extxyz", "--json"]
    if served:
        cli.broker()
        cli.start("worker", "hanging.py:Stuck", "--name", "Stuck")
        wait_for(cli.ready)
        options += ["--broker", cli.frontend]
    calculator = "Stuck" if served else "hanging.py:Stuck"
    process = cli.start("run", calculator, "in.extxyz", "--relax", *options)
    output = cli.cwd / "out.extxyz"
    wait_for(lambda: (cli.cwd / "stuck").exists() or not process.runs(), what=process.errors)
    assert process.runs(), process.errors()
    wait_for(lambda: finished(output) == 1)
    for number in signals:
        wait_until_asleep(process.pid)
        process.signal(number)

    assert process.wait() == 130
    assert process.errors().splitlines() == [
        "aserpc: in.extxyz@1 (CO) failed: interrupted",
        "aserpc: in.extxyz@2 (Ni) failed: interrupted",
        "aserpc: the same command goes on from here",
    ]
    assert [row["error"] for row in json.loads(process.output())] == [
        None,
        "interrupted",
        "interrupted",
    ]
    assert [a.get_chemical_formula() for a in read(output, ":")] == ["Cu"]
    assert finished(output) == 1
