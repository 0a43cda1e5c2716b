"""Small structures of many processes that share the calls of one model."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import contenders
from benchmarks.environments import environment_with, our_dependencies
from benchmarks.models import FACTORIES
from benchmarks.processes import ROOT, Bench, BenchmarkError, Driver, environment, whole_run
from benchmarks.report import Report
from benchmarks.timing import interleave

#: What each model needs beside aserpc. Where an index has a torch for processors alone, pip takes
#: that of this version.
REQUIREMENTS = {
    "chgnet": ["torch==2.13.0", "chgnet==0.4.2"],
    "sevennet": ["torch==2.13.0", "sevenn==0.13.0"],
}

#: A variable with the Python of a model's environment, where there is one already.
VARIABLE = "ASERPC_BENCHMARK_{}"

#: A model's environment has what aserpc needs, and aserpc itself from here.
CHECKOUT = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}

#: How many processes relax a crystal, and how many steps each takes.
CLIENTS = 16

#: A model that is alone has all processors; of many, each has one.
ALL = {f"{name}_NUM_THREADS": str(os.cpu_count()) for name in ("OMP", "OPENBLAS", "MKL")}

#: Contenders: how many workers, and what they are told.
SERVED: dict[str, tuple[int, tuple[str, ...]]] = {
    "one by one": (1, ("--max-batch", "1")),
    "batches": (1, ("--max-batch", "16")),
    "batches, window 10 ms": (1, ("--max-batch", "16", "--batch-wait", "0.01")),
    "a worker each": (CLIENTS, ("--max-batch", "1")),
}


def run(bench: Bench, report: Report) -> None:
    """Measure what batches bring to models, and what they cost a client that is alone."""
    _alone(bench, report)
    for model in FACTORIES:
        if model not in bench.without and not (bench.quick and model != "chgnet"):
            try:
                python = _python(model)
                _in_process(bench, report, model, python)
                with _part(bench) as part:
                    _relaxations(part, report, model, python)
            except BenchmarkError as error:
                report.skip(f"batches of {model}: {error}")


def _python(model: str) -> Path:
    """Return the Python of an environment with a model."""
    variable = VARIABLE.format(model.upper())
    given = os.environ.get(variable)
    if given:
        if not os.access(given, os.X_OK) or Path(given).is_dir():
            raise BenchmarkError(f"{variable}={given} is no Python")
        return Path(given).absolute()
    wanted = [*REQUIREMENTS[model], *our_dependencies()]
    return environment_with(model, wanted, by_pip=True) / "python"


# ---- a client alone ------------------------------------------------------------------------------


def _alone(bench: Bench, report: Report) -> None:
    """Measure calls of one client whose worker could compute many together."""
    calls = 200 if bench.quick else 1000
    with _part(bench) as part:
        address = _broker(part)
        flags = {"batched": ("--max-batch", "16"), "unbatched": ("--max-batch", "1")}
        for name, words in flags.items():
            command = [*_aserpc(sys.executable), "worker"]
            command += ["benchmarks.calculators:Together", "--name", name]
            part.start(name, [*command, "--broker", address[1], *words])
        client = _client(part, address[0])
        client.do("ready", names=dict.fromkeys(flags, 1), timeout=60.0)
        ask = {
            name: partial(client.do, "forces", name=name, atoms=8, calls=calls, roles={})
            for name in flags
        }
        found = interleave(bench.rounds, ask)
    seconds = {name: [each["seconds"] for each in rounds] for name, rounds in found.items()}
    for name, values in seconds.items():
        report.figure("a call, 1 client, 8 atoms", name, values)
    lost = [one - other for one, other in zip(*seconds.values(), strict=True)]
    report.figure("what a client alone loses a call by batches", "batched", lost)
    report.ratio("a call, 1 client, 8 atoms: batched over unbatched", *seconds.values())


# ---- the model -----------------------------------------------------------------------------------


def _in_process(bench: Bench, report: Report, model: str, python: Path) -> None:
    """Measure the model alone and in batches."""
    structures = 16 if bench.quick else 64
    command = [str(python), "-W", "ignore", "-m", "benchmarks.models"]
    command += [model, str(structures), str(bench.rounds)]
    done = whole_run(command, {**environment(bench.folder), **CHECKOUT, **ALL})
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise BenchmarkError(f"{python}: {last[0]}")
    found = json.loads(done.stdout.splitlines()[-1])
    times = {
        name: {key: [each[key] for each in values] for key in ("seconds", "cpu")}
        for name, values in found["rounds"].items()
    }
    what = f"{structures} crystals of 2 and 4 atoms, {model} on {found['device']}"
    report.machine["threads of a model alone"] = ALL["OMP_NUM_THREADS"]
    for name, values in times.items():
        of = name if name == "alone" else f"batches of {name}"
        cpu = [{"model": seconds} for seconds in values["cpu"]]
        report.figure(what, of, values["seconds"], cpu=cpu)
    for name, values in times.items():
        if name != "alone":
            ratio = f"{what}: alone over batches of {name}, in process"
            report.ratio(ratio, times["alone"]["seconds"], values["seconds"])


# ---- processes that share a worker ---------------------------------------------------------------


def _relaxations(bench: Bench, report: Report, model: str, python: Path) -> None:
    """Measure processes that each relax a crystal."""
    steps = 5 if bench.quick else 20
    served = {
        name: value for name, value in SERVED.items() if not (bench.quick and value[0] == CLIENTS)
    }
    address = _broker(bench)
    clients = [_client(bench, address[0]) for _ in range(CLIENTS)]
    names = {name: f"{model}-{index}" for index, name in enumerate(served)}
    for name, (count, words) in served.items():
        for number in range(count):
            command = [*_aserpc(str(python)), "worker", FACTORIES[model], "--name", names[name]]
            command += ["--broker", address[1], "--idle-timeout", "100000", *words]
            env = {**CHECKOUT, **(ALL if count == 1 else {})}
            bench.start(names[name], command, env=env)
            # A few at a time: what loads wants more memory than what has loaded.
            if number % 4 == 3 or number + 1 == count:
                clients[0].do("ready", names={names[name]: number + 1}, timeout=240.0)
    calls: dict[str, Callable[[], list[dict[str, Any]]]] = {
        name: partial(_together, clients, names[name], steps) for name in served
    }
    for call in calls.values():
        call()
    found = interleave(bench.rounds, calls)
    what = f"{CLIENTS} processes, {steps} steps of BFGS each, {model}"
    walls = {
        name: [max(each["seconds"] for each in answers) for answers in rounds]
        for name, rounds in found.items()
    }
    for name, values in walls.items():
        report.figure(what, name, values)
        sizes = [_mean([each["batch_size"] for each in answers]) for answers in found[name]]
        report.figure(f"{what}: structures a call, mean", name, sizes, "")
    for name in served:
        if name != "one by one":
            least = 2.0 if name == "batches" else None
            ratio = f"{what}: one by one over {name}"
            report.ratio(ratio, walls["one by one"], walls[name], at_least=least)
    for quantity, unit in (("energy", "eV"), ("forces", "eV/Å")):
        for name in served:
            if name != "one by one":
                pairs = zip(found["one by one"], found[name], strict=True)
                most = [_difference(quantity, *pair) for pair in pairs]
                of = f"{what}: largest difference of {quantity}, {unit}"
                report.figure(of, f"{name} - one by one", most, "")


def _together(clients: Sequence[Driver], name: str, steps: int) -> list[dict[str, Any]]:
    """Have all clients relax their crystals, from one instant on."""
    start_at = time.monotonic() + 0.5
    for number, client in enumerate(clients):
        client.tell("relax", name=name, number=number, steps=steps, start_at=start_at)
    return [client.answer() for client in clients]


def _difference(
    quantity: str, one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]
) -> float:
    """Return the largest difference at the first geometry, which is the same for all."""
    pairs = (
        (a, b)
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine[quantity], theirs[quantity], strict=True)
    )
    return max(abs(float(a - b)) for a, b in pairs)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# ---- services ------------------------------------------------------------------------------------


def _part(bench: Bench) -> Bench:
    """Return what ends its processes before the others': models take much memory."""
    return Bench(bench.rounds, quick=bench.quick, without=tuple(bench.without))


def _aserpc(python: str) -> list[str]:
    return [python, "-m", "aserpc"]


def _broker(bench: Bench) -> tuple[str, str]:
    """Start a broker; return its addresses for clients and for workers."""
    front, back = contenders._addresses(bench, "ipc", "batching")
    command = [*_aserpc(sys.executable), "broker", "--frontend", front, "--backend", back]
    bench.start("broker", command)
    return front, back


def _client(bench: Bench, address: str) -> Driver:
    command = [sys.executable, "-m", "benchmarks.driver", "aserpc", address]
    return bench.driver("client", command)
