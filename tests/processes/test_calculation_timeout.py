"""A calculation that hangs ends with its worker, and its client sees where."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from aserpc import CalculationTimeoutError, PoisonError
from support.asking import energy_at
from support.managed import gone
from support.processes import Cli
from support.waiting import InThread, wait_for

CALCULATORS = Path(__file__).parents[1] / "support" / "calculators.py"


def serve(cli: Cli, name: str, kwargs: dict[str, object], keys: str = "") -> None:
    """Start a broker and a manager that can start a calculator of the tests."""
    table = f"""
        [calculators.{name.lower()}]
        factory = "{CALCULATORS}:{name}"
        kwargs = {{{", ".join(f"{k} = {json.dumps(v)}" for k, v in kwargs.items())}}}
        {keys}
    """
    (cli.cwd / "aserpc.toml").write_text(textwrap.dedent(table))
    process = cli.start("up")
    wait_for(lambda: "offers" in process.errors() or not process.runs(), what=process.errors)


def test_a_worker_started_by_hand_ends_what_hangs_and_tells_its_client(
    cli: Cli, tmp_path: Path
) -> None:
    cli.broker()
    kwargs = json.dumps({"folder": str(tmp_path)})
    worker = cli.worker("Gate", "--kwargs", kwargs, "--calculation-timeout", "0.5")
    with pytest.raises(CalculationTimeoutError, match=r"longer than 0\.5 s") as caught:
        energy_at(cli.calculator("gate", retries=3), 2)
    assert isinstance(caught.value, TimeoutError)
    assert "in compute" in str(caught.value), "the stack where it hung"
    assert worker.wait() == 1
    assert "Traceback" not in worker.errors()
    assert len(list(tmp_path.glob("started-*"))) == 1, "it is not tried again"


def test_a_calculation_in_time_is_left_alone(cli: Cli) -> None:
    cli.broker()
    worker = cli.worker("Spring", ASERPC_CALCULATION_TIMEOUT="30")
    calculator = cli.calculator("spring")
    assert [energy_at(calculator, x) for x in (2, 4)] == [2, 8]
    assert worker.runs()


def test_one_that_holds_the_interpreter_is_ended_and_its_stack_told_by_the_manager(
    cli: Cli, tmp_path: Path
) -> None:
    kwargs = {"folder": str(tmp_path), "seconds": 60.0}
    serve(cli, "HoldsGil", kwargs, "calculation_timeout = 0.5")
    with pytest.raises(CalculationTimeoutError, match=r"longer than 0\.5 s") as caught:
        energy_at(cli.calculator("holdsgil"), 2)
    assert "in compute" in str(caught.value)
    assert "process ended with exit code 1" in str(caught.value)


def test_the_deadline_of_one_client_ends_nothing_that_others_use(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    worker = cli.worker("Gate", "--kwargs", json.dumps({"folder": str(tmp_path)}))
    with pytest.raises(TimeoutError):
        energy_at(cli.calculator("gate", deadline=0.5), 2)
    other = InThread(lambda: energy_at(cli.calculator("gate"), 4))
    (tmp_path / "go").touch()
    assert other.result() == 8
    assert worker.runs()


def test_poison_costs_two_workers_and_comes_with_how_they_ended(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    serve(cli, "Crashes", {"folder": str(tmp_path)}, "max_workers = 2")
    with pytest.raises(PoisonError, match="2 workers died") as caught:
        energy_at(cli.calculator("crashes", retries=5), 2)
    assert str(caught.value).count("killed by signal SIGABRT") == 2
    assert str(caught.value).count("in compute") == 2
    died = [int(path.name.split("-")[1]) for path in tmp_path.glob("started-*")]
    assert len(died) == 2
    assert all(gone(pid) for pid in died)
    assert "starts failed" not in json.dumps(cli.status()), "no start has failed"
