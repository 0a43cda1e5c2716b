"""Real workers that compute batches: of one that dies or hangs, nobody else suffers."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from ase import Atoms

from aserpc import CalculationTimeoutError, PoisonError
from support.processes import Cli
from support.waiting import InThread, wait_for

BATCHES = Path(__file__).parents[1] / "support" / "batches.py"

#: Time for everything: several workers start.
LONG = 60_000


class Site:
    """A manager that starts workers whose calls wait for a gate."""

    def __init__(self, cli: Cli, folder: Path, keys: str = "", *, starts: bool = True) -> None:
        self.cli, self.folder = cli, folder
        if not starts:
            return
        table = f"""
            [calculators.it]
            factory = "{BATCHES}:GatedTogether"
            kwargs = {{ folder = {json.dumps(str(folder))} }}
            {keys}
        """
        (cli.cwd / "aserpc.toml").write_text(textwrap.dedent(table))
        process = cli.start("up")
        wait_for(lambda: "offers" in process.errors() or not process.runs(), what=process.errors)

    def ask(self, x: float, bad: str = "") -> InThread[float]:
        atoms = Atoms("H", [(x, 0, 0)], info={"bad": bad} if bad else {})
        atoms.calc = self.cli.calculator("it", timeout=LONG)
        return InThread(lambda: float(atoms.get_potential_energy()))

    def ask_together(self, bad: str) -> dict[int, InThread[float]]:
        """Have a worker be sent five requests while it computes another; the third is bad."""
        first = self.ask(1.0)
        wait_for(lambda: self.calls() == [1])
        asked = {x: self.ask(float(x), bad if x == 4 else "") for x in range(2, 7)}
        wait_for(lambda: self.cli.status()["running_requests"] == {"it": 6})
        (self.folder / "go").touch()
        assert first.result() == 0.5
        return asked

    def calls(self) -> list[int]:
        """Return how many structures each call had, of each worker in turn."""
        workers: dict[str, dict[int, int]] = {}
        # Files that are made in quick succession can have the same time.
        for path in sorted(self.folder.glob("started-*"), key=lambda path: path.stat().st_ctime_ns):
            _, worker, number, size = path.name.split("-")
            workers.setdefault(worker, {})[int(number)] = int(size)
        return [size for calls in workers.values() for _, size in sorted(calls.items())]


def test_a_batch_whose_worker_dies_is_computed_one_by_one(cli: Cli, tmp_path: Path) -> None:
    site = Site(cli, tmp_path)
    asked = site.ask_together("death")
    with pytest.raises(PoisonError, match="2 workers died") as caught:
        asked.pop(4).result()
    assert "SIGABRT" in str(caught.value)
    assert {x: each.result() for x, each in asked.items()} == {x: x**2 / 2 for x in asked}
    calls = site.calls()
    assert calls[:2] == [1, 5]
    # Four are right, one kills two more workers; and the very first may be computed again: its
    # answer was not on its way yet when the process died.
    assert calls[2:] in ([1] * 6, [1] * 7)


def test_a_batch_that_hangs_is_computed_one_by_one(cli: Cli, tmp_path: Path) -> None:
    site = Site(cli, tmp_path, "calculation_timeout = 1.5")
    asked = site.ask_together("hangs")
    with pytest.raises(CalculationTimeoutError, match=r"longer than 1\.5 s"):
        asked.pop(4).result()
    assert {x: each.result() for x, each in asked.items()} == {x: x**2 / 2 for x in asked}
    assert site.calls() == [1, 5, *[1] * 5]


@pytest.mark.parametrize(
    ("flag", "table", "calls"),
    [
        ("--max-batch=2", "", [1, 2, 1]),
        ("--max-batch-atoms=3", "", [1, 3, 1]),
        ("--registry=it.toml", "max_batch = 2", [1, 2, 1]),
    ],
)
def test_a_worker_is_told_how_many_are_computed_together(
    cli: Cli, tmp_path: Path, flag: str, table: str, calls: list[int]
) -> None:
    cli.broker()
    factory, folder = f"{BATCHES}:GatedTogether", json.dumps({"folder": str(tmp_path)})
    text = f"[calculators.it]\nfactory = {json.dumps(factory)}\n{table}"
    (cli.cwd / "it.toml").write_text(text)
    named = ["it"] if table else [factory, "--name", "it"]
    worker = cli.start("worker", *named, "--kwargs", folder, flag)
    wait_for(lambda: worker.pid in cli.ready() or not worker.runs(), what=worker.errors)
    site = Site(cli, tmp_path, starts=False)
    asked = [site.ask(1.0)]
    wait_for(lambda: site.calls() == [1])
    asked += [site.ask(2.0) for _ in range(sum(calls) - 1)]
    wait_for(lambda: cli.status()["running_requests"] == {"it": sum(calls)})
    (tmp_path / "go").touch()
    assert [each.result() for each in asked] == [0.5, *[2.0] * (sum(calls) - 1)]
    # The last ones may still be on their way to the worker when it begins with the next.
    assert sorted(site.calls()) == sorted(calls)


def test_how_many_are_computed_together_is_a_key_of_the_table(cli: Cli, tmp_path: Path) -> None:
    site = Site(cli, tmp_path, "max_batch = 2\nmax_batch_atoms = 100\nbatch_wait = 0.0")
    first = site.ask(1.0)
    wait_for(lambda: site.calls() == [1])
    others = [site.ask(2.0) for _ in range(3)]
    wait_for(lambda: cli.status()["running_requests"] == {"it": 4})
    (tmp_path / "go").touch()
    assert [each.result() for each in (first, *others)] == [0.5, 2.0, 2.0, 2.0]
    assert site.calls() == [1, 2, 1]
