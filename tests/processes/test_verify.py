"""``aserpc verify``: what it prints, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from support import conforming
from support.processes import Cli
from support.waiting import wait_for

PAIRS = f"{Path(conforming.__file__)}:Pairs"


def serve(cli: Cli, fault: str = "") -> None:
    """Serve a calculator with a fault as ``it``."""
    cli.broker()
    start_worker(cli, PAIRS, "it", "--kwargs", json.dumps({"fault": fault}))


def start_worker(cli: Cli, calculator: str, name: str, *arguments: str) -> None:
    worker = cli.start("worker", calculator, "--name", name, *arguments)
    wait_for(lambda: worker.pid in cli.ready() or not worker.runs(), what=worker.errors)
    assert worker.runs(), worker.errors()


def test_a_right_calculator_is_said_to_be(cli: Cli) -> None:
    serve(cli)
    done = cli.run("verify", "it", "--against", PAIRS)
    assert (done.code, done.errors) == (0, "")
    told, titles, *rows = done.output.splitlines()
    assert told.startswith("it, against conforming:Pairs(")
    assert titles.split()[2:] == ["Values", "Types", "Errors", "Cache", "Again", "Together"]
    assert [row.split()[2:] for row in rows] == [["ok"] * 6] * 8

    done = cli.run("verify", "it", "--alone")
    assert (done.code, done.errors) == (0, "")
    assert "differs" not in done.output
    assert "Rotated" in done.output


def test_faults_are_named(cli: Cli) -> None:
    serve(cli, "charge")
    done = cli.run("verify", "it", "--against", PAIRS)
    assert done.code == 1
    assert "charged, values: energy is" in done.errors
    assert "molecule, cache: after another set of initial charges, energy is" in done.errors
    rows = {line.split()[0]: line.split()[2:] for line in done.output.splitlines()[2:]}
    assert [name for name, cells in rows.items() if cells[0] == "differs"] == ["charged"]

    # Nothing to compare with: it can only be told.
    done = cli.run("verify", "it", "--json")
    assert done.code == 0
    told = json.loads(done.output)
    assert "can't be made here" in told["how"]
    assert told["unseen"] == {"charged": "charge"}


@pytest.mark.parametrize(
    ("fault", "check", "alone"),
    [
        ("order", "values: forces [", "permuted: forces ["),
        ("stale", "cache: after another", "slopes"),
    ],
)
def test_faults_end_with_1(cli: Cli, fault: str, check: str, alone: str) -> None:
    serve(cli, fault)
    done = cli.run("verify", "it", "--against", PAIRS)
    assert done.code == 1
    assert f"molecule, {check}" in done.errors
    done = cli.run("verify", "it", "--alone")
    assert done.code == 1
    assert f"molecule, {alone}" in done.errors


def test_what_is_registered_here_is_compared_with_if_it_is_the_same(cli: Cli) -> None:
    cli.broker()
    start_worker(cli, "EMT", "EMT")
    start_worker(cli, "EMT", "LJ", "--kwargs", '{"asap_cutoff": true}')
    done = cli.run("verify", "EMT")
    assert (done.code, done.errors) == (0, "")
    assert "against ase.calculators.emt:EMT(), made here" in done.output
    done = cli.run("verify", "LJ")
    assert done.code == 0, done.errors
    assert "alone: ase.calculators.emt:EMT(asap_cutoff=True) is served" in done.output
    done = cli.run("verify", "EMT", "--kwargs", '{"asap_cutoff": true}')
    assert done.code == 1


def test_structures_can_be_given(cli: Cli) -> None:
    cli.broker()
    start_worker(cli, "TIP3P", "TIP3P")
    write(cli.cwd / "water.xyz", [molecule("H2O"), molecule("CO")])
    done = cli.run("verify", "TIP3P", "--structures", "water.xyz")
    assert done.code == 0, done.errors
    assert "water.xyz@0" in done.output
    assert "aserpc: water.xyz@1 is refused: " in done.errors

    write(cli.cwd / "far.xyz", Atoms("Cu"))
    for flags in (["--structures", "far.xyz"], ["--structures", "far.xyz", "--alone"]):
        done = cli.run("verify", "TIP3P", *flags)
        assert done.code == 2
        assert "'TIP3P' computes none of the structures" in done.errors


def test_a_mistake_is_one_clear_line(cli: Cli) -> None:
    serve(cli)
    (cli.cwd / "notes.txt").write_text("no structure\n")
    mistakes = [
        (("nobody",), "No workers available for 'nobody'"),
        (("it", "--against", "nobody"), "no calculator 'nobody'"),
        (("it", "--against", "no_such:Thing"), "no module 'no_such'"),
        (("it", "--against", PAIRS, "--kwargs", "{"), "no JSON"),
        (("it", "--against", PAIRS, "--alone"), "--alone"),
        (("it", "--structures", "nothing.xyz"), "there is no file nothing.xyz"),
        (("it", "--structures", "notes.txt"), "cannot read notes.txt"),
        (("it", "--tolerance", "-1"), "no positive"),
    ]
    for arguments, said in mistakes:
        done = cli.run("verify", *arguments)
        assert (done.code, done.output) == (2, ""), said
        assert said in done.errors
        assert len(done.errors.splitlines()) == 1, done.errors


def test_nobody_there_is_a_mistake(cli: Cli) -> None:
    done = cli.run("verify", "it")
    assert (done.code, done.output) == (2, "")
    assert len(done.errors.splitlines()) == 1
