"""What workers of a manager see of GPUs, threads and MPI, with the real command and made-up ids."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from support.managed import ask, gone, manager, noted, table, up
from support.processes import Cli
from support.waiting import InThread, wait_for


def env(told: Any) -> dict[str, str]:
    """Return what a worker found in its environment."""
    return dict(told["env"])


def test_workers_have_gpus_of_their_own_and_are_told_which(cli: Cli, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"gpus": 1, "max_workers": 2, "env": {"MY_DEVICE": "cuda:{gpu}"}}
    up(cli, table("lj", {"folder": str(tmp_path)}, **keys), arguments=("--gpus", "3,5"))
    orders = {"note": "began", "until": "go"}
    calls = [InThread(lambda: ask(cli, "lj", orders)) for _ in range(2)]
    wait_for(lambda: len(noted(tmp_path, "began")) == 2)
    (tmp_path / "go").touch()
    found = [env(call.result()) for call in calls]
    assert {entry["CUDA_VISIBLE_DEVICES"] for entry in found} == {"3", "5"}
    for entry in found:
        assert entry["MY_DEVICE"] == "cuda:" + entry["CUDA_VISIBLE_DEVICES"]


def test_two_calculators_share_a_gpu_by_halves_and_a_third_waits(cli: Cli) -> None:
    tables = [table(name, gpus=0.5) for name in ("a", "b")]
    process = up(cli, *tables, table("c", gpus=1), arguments=("--gpus", "0,1"))
    devices = {name: env(ask(cli, name))["CUDA_VISIBLE_DEVICES"] for name in ("a", "b", "c")}
    assert devices == {"a": "0", "b": "0", "c": "1"}
    assert process.runs()


def test_a_gpu_is_free_again_when_its_worker_was_killed(cli: Cli) -> None:
    tables = [table(name, gpus=1) for name in ("a", "b")]
    process = up(cli, *tables, arguments=("--gpus", "0"))
    first = ask(cli, "a")
    os.kill(first["pid"], signal.SIGKILL)
    assert env(ask(cli, "b"))["CUDA_VISIBLE_DEVICES"] == "0"
    # It was not taken from an idle worker.
    assert "SIGKILL" in process.errors()
    assert process.errors().count("starting a worker") == 2


def test_a_gpu_is_taken_after_the_manager_was_killed_as_long_as_its_worker_lives(
    cli: Cli, tmp_path: Path
) -> None:
    cli.broker()
    arguments = ("--gpus", "0")
    tables = [table(name, {"folder": str(tmp_path)}, gpus=1) for name in ("a", "b")]
    first = manager(cli, *tables, arguments=arguments)
    busy = InThread(lambda: ask(cli, "a", {"note": "began", "until": "go"}))
    (pid,) = wait_for(lambda: noted(tmp_path, "began"))
    first.signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: not cli.status()["manager"]["connected"])
    second = manager(cli, arguments=arguments)
    waiting = InThread(lambda: ask(cli, "b"))
    wait_for(lambda: "GPU" in cli.status()["spawning"]["b"]["text"], what=second.errors)
    assert not gone(pid)
    (tmp_path / "go").touch()
    # Now it is idle, and yields its GPU.
    assert env(waiting.result())["CUDA_VISIBLE_DEVICES"] == "0"
    assert busy.result()
    assert gone(pid)


def test_a_worker_that_computes_when_others_wait_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    """It had been idle, and just then got a request that takes longer than stop_timeout."""
    kwargs = {"folder": str(tmp_path)}
    tables = [table(name, kwargs, gpus=1, stop_timeout=0.2) for name in ("a", "b")]
    up(cli, *tables, arguments=("--gpus", "0"))
    pid = ask(cli, "a")["pid"]
    busy = InThread(lambda: ask(cli, "a", {"note": "began", "sleep": 2.5}))
    wait_for(lambda: noted(tmp_path, "began"))
    waiting = InThread(lambda: ask(cli, "b"))
    told = busy.result()
    assert told is not None
    assert told["pid"] == pid
    assert waiting.result()


def test_children_get_their_share_of_threads_and_no_mpi(cli: Cli) -> None:
    given: dict[str, Any] = {
        "OMPI_COMM_WORLD_SIZE": "4",
        "PMIX_RANK": "1",
        "PRTE_LAUNCHED": "1",
        "ORTE_SCHIZO": "1",
        "PMI_RANK": "1",
        "MKL_NUM_THREADS": "7",
    }
    up(cli, table("lj", max_workers=2), **given)
    found = env(ask(cli, "lj"))
    share = str(max(1, (os.cpu_count() or 1) // 2))
    assert found == {
        "OMP_NUM_THREADS": share,
        "MKL_NUM_THREADS": "7",
        "OPENBLAS_NUM_THREADS": share,
    }
