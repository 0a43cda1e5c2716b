"""``aserpc run`` goes on where one before it ended, however that ended."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read, write

from support.finished import finished
from support.processes import TESTS, Cli, Process
from support.waiting import wait_for

#: Notes what it computes, and waits for a gate at the Nth calculation of a process.
NOTES = """
import pathlib
from ase.calculators.emt import EMT
from support.waiting import wait_for
folder = pathlib.Path(__file__).parent

class Noting(EMT):
    computed = 0

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        if Noting.computed == 5 and not (folder / "go").exists():
            (folder / "stuck").touch()
            wait_for((folder / "go").exists)
        Noting.computed += 1
        with open(folder / "computed", "a") as file:
            file.write(f"{atoms.cell.volume:.6f}\\n")
"""

NUMBER = 20


@pytest.fixture
def folder(cli: Cli) -> Path:
    (cli.cwd / "notes.py").write_text(NOTES)
    cli.env["PYTHONPATH"] = TESTS
    (cli.cwd / "go").touch()
    write(cli.cwd / "in.extxyz", [bulk("Cu", a=3.5 + 0.01 * n) for n in range(NUMBER)])
    return cli.cwd


def computed(folder: Path) -> list[str]:
    """Return what was computed since this was asked last."""
    path = folder / "computed"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def run(cli: Cli, *arguments: str) -> Process:
    return cli.start("run", "notes.py:Noting", "in.extxyz", "-o", "out.extxyz", *arguments)


def energies(folder: Path) -> list[float]:
    return [float(atoms.get_potential_energy()) for atoms in read(folder / "out.extxyz", ":")]


def test_what_is_finished_is_not_computed_again(cli: Cli, folder: Path) -> None:
    done = run(cli)
    assert (done.wait(), done.errors()) == (0, "")
    assert len(computed(folder)) == NUMBER
    first = (folder / "out.extxyz").read_text()

    (folder / "out.extxyz").unlink()
    again = run(cli, "--json")
    assert again.wait() == 0
    assert f"{NUMBER} of {NUMBER} structures are finished already" in again.errors()
    assert computed(folder) == []
    assert (folder / "out.extxyz").read_text() == first
    assert len(json.loads(again.output())) == NUMBER


def test_only_what_is_new_is_computed(cli: Cli, folder: Path) -> None:
    assert run(cli).wait() == 0
    computed(folder)
    write(folder / "more.extxyz", [bulk("Ni"), bulk("Cu", a=3.5)])
    done = run(cli, "more.extxyz")
    assert done.wait() == 0, done.errors()
    assert len(computed(folder)) == 1
    assert len(energies(folder)) == NUMBER + 2
    assert energies(folder)[-1] == energies(folder)[0]


def test_restart_computes_all(cli: Cli, folder: Path) -> None:
    assert run(cli).wait() == 0
    done = run(cli, "--restart")
    assert (done.wait(), done.errors()) == (0, "")
    assert len(computed(folder)) == 2 * NUMBER


def test_another_calculator_computes_all(cli: Cli, folder: Path) -> None:
    assert run(cli).wait() == 0
    done = run(cli, "--kwargs", '{"asap_cutoff": true}')
    assert done.wait() == 0, done.errors()
    assert len(computed(folder)) == 2 * NUMBER


def test_restart_needs_an_output(cli: Cli, folder: Path) -> None:
    done = cli.start("run", "notes.py:Noting", "in.extxyz", "--restart")
    assert done.wait() == 2
    assert "--restart is for runs with --output" in done.errors()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_is_gone_on_with(cli: Cli, folder: Path, ending: int) -> None:
    (folder / "go").unlink()
    process = run(cli)
    wait_for((folder / "stuck").exists, what=process.errors)
    # The last answer is on its way when the next calculation begins.
    wait_for(lambda: finished(folder / "out.extxyz") == 5)
    process.signal(ending)
    code = process.wait()
    (folder / "go").touch()
    if ending == signal.SIGKILL:
        assert code == -signal.SIGKILL
        assert not (folder / "out.extxyz").exists()
    else:
        assert code == 130
        assert "Traceback" not in process.errors()
        assert process.errors().splitlines()[-2:] == [
            "aserpc: in.extxyz@5 and 14 more were not computed: interrupted",
            "aserpc: the same command goes on from here",
        ]
        assert len(energies(folder)) == 5
    assert finished(folder / "out.extxyz") == 5
    computed(folder)

    done = run(cli)
    assert done.wait() == 0, done.errors()
    assert "of 20 structures are finished already" in done.errors()
    # The worker that was stuck may have come to its end meanwhile.
    assert len({*computed(folder)}) == NUMBER - 5
    assert np.all(np.isfinite(energies(folder)))
    assert len(energies(folder)) == NUMBER


def test_failures_are_tried_again(cli: Cli, folder: Path) -> None:
    write(folder / "bad.extxyz", [bulk("Cu"), bulk("Fe")])
    for again in (0, 1):
        done = cli.start("run", "EMT", "bad.extxyz", "-o", "out.traj")
        assert done.wait() == 1
        assert "bad.extxyz@1 (Fe) failed: No EMT-potential for Fe" in done.errors()
        assert ("1 of 2 structures" in done.errors()) == bool(again)
        assert len(read(folder / "out.traj", ":")) == 1


def test_relaxations_are_gone_on_with(cli: Cli, folder: Path) -> None:
    atoms = [bulk("Cu", cubic=True), bulk("Ni", cubic=True)]
    for one in atoms:
        one.rattle(0.1, seed=1)
    write(folder / "rough.traj", atoms)
    command = ("run", "EMT", "rough.traj", "--relax", "-o", "out.traj", "--json")
    first = cli.start(*command)
    assert first.wait() == 0, first.errors()
    relaxed = read(folder / "out.traj", ":")
    again = cli.start(*command)
    assert again.wait() == 0
    assert "2 of 2 structures are finished already" in again.errors()
    assert json.loads(again.output()) == json.loads(first.output())
    assert read(folder / "out.traj", ":") == relaxed
    more = cli.start(*command, "--fmax", "0.01")
    assert (more.wait(), more.errors()) == (0, "")
