"""The command line: parse, settings, run a loop."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from aserpc.cli import keys, tunnel, verify
from aserpc.cli.console import complain, configure_logging, print_table
from aserpc.cli.ending import run as run_command
from aserpc.cli.manager import commands
from aserpc.cli.options import (
    AllowMixed,
    Frontend,
    Insecure,
    LogLevel,
    Registry,
    from_json,
    positive,
    setting,
)
from aserpc.errors import AddressError
from aserpc.settings import load_settings

#: How long a question waits for the broker, ms.
PATIENCE = 2000

app = typer.Typer(
    name="aserpc",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Serve ASE calculators: a broker, workers in their own environments, remote calculators.",
)


@app.command()
def broker(
    frontend: Annotated[str | None, setting("ipc_frontend", "--frontend")] = None,
    backend: Annotated[str | None, setting("ipc_backend", "--backend")] = None,
    timeout: Annotated[float | None, setting("worker_timeout", "--timeout")] = None,
    queue_timeout: Annotated[
        float | None, setting("request_queue_timeout", "--queue-timeout")
    ] = None,
    reconnect_grace: Annotated[
        float | None, setting("reconnect_grace", "--reconnect-grace")
    ] = None,
    max_queue: Annotated[int | None, setting("max_queue", "--max-queue")] = None,
    max_queue_bytes: Annotated[int | None, setting("max_queue_bytes", "--max-queue-bytes")] = None,
    orphan_ttl: Annotated[float | None, setting("orphan_ttl", "--orphan-ttl")] = None,
    allow_mixed: AllowMixed = False,
    insecure: Insecure = False,
    log_level: LogLevel = "INFO",
) -> None:
    """Start the broker, which connects clients and workers.

    Addresses of tcp are served besides the sockets on this machine, and take keys: aserpc keys.
    """
    configure_logging(log_level)
    from aserpc import descriptors
    from aserpc.broker import Broker
    from aserpc.broker.garbage import collect_rarely
    from aserpc.serving import stop_on_signals

    descriptors.raise_limit()
    collect_rarely()
    served = Broker(
        frontend,
        backend,
        timeout,
        queue_timeout,
        reconnect_grace=reconnect_grace,
        max_queue=max_queue,
        max_queue_bytes=max_queue_bytes,
        orphan_ttl=orphan_ttl,
        insecure=insecure,
        allow_mixed=allow_mixed,
    )
    with stop_on_signals(served.stop, served.waker):
        served.serve()


@app.command()
def worker(
    calculator: Annotated[str, typer.Argument(help="A registered name, or module:callable")],
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Serve it under this name")
    ] = None,
    kwargs: Annotated[
        str | None, typer.Option(help="Keyword arguments of the factory, as JSON")
    ] = None,
    args: Annotated[str | None, typer.Option(help="Arguments of the factory, as JSON")] = None,
    registry: Registry = None,
    broker: Annotated[str | None, setting("ipc_backend", "--broker")] = None,
    idle_timeout: Annotated[float | None, setting("idle_timeout", "--idle-timeout")] = None,
    heartbeat: Annotated[float | None, setting("heartbeat_interval", "--heartbeat")] = None,
    calculation_timeout: Annotated[
        float | None, setting("calculation_timeout", "--calculation-timeout")
    ] = None,
    max_batch: Annotated[int | None, setting("max_batch", "--max-batch")] = None,
    max_batch_atoms: Annotated[int | None, setting("max_batch_atoms", "--max-batch-atoms")] = None,
    batch_wait: Annotated[float | None, setting("batch_wait", "--batch-wait")] = None,
    workdir: Annotated[
        Path | None,
        typer.Option(
            envvar="ASERPC_WORKDIR",
            show_envvar=False,
            help="Folder to compute in [default: one of its own, removed at the end]",
        ),
    ] = None,
    log_level: LogLevel = "INFO",
) -> None:
    """Start a worker, which serves one calculator.

    Examples: aserpc worker EMT; aserpc worker mace.calculators:mace_mp --name mace
    --kwargs '{"model": "medium"}'
    """
    from aserpc.importing import check_reference
    from aserpc.registry import resolve

    configure_logging(log_level)
    entry = resolve(
        calculator,
        registry=registry,
        name=name,
        args=from_json("--args", args, list),
        kwargs=from_json("--kwargs", kwargs, dict),
    )
    if isinstance(entry.factory, str):
        # Said at once, not only to whoever waits for the worker to load.
        check_reference(entry.factory, Path.cwd())
    import faulthandler

    from aserpc.serving import stop_on_signals
    from aserpc.worker import Worker

    faulthandler.enable()  # a calculator that crashes the process leaves its stack in the log
    served = Worker(
        entry.name,
        entry,
        broker,
        idle_timeout,
        heartbeat,
        workdir=None if workdir is None else workdir.absolute(),
        calculation_timeout=calculation_timeout,
        max_batch=max_batch,
        max_batch_atoms=max_batch_atoms,
        batch_wait=batch_wait,
    )
    # Under the signals, so that none of them leaves the folder behind.
    with stop_on_signals(served.stop, served.waker), ExitStack() as stack:
        if served.workdir is None:
            served.workdir = stack.enter_context(_folder_of_its_own(entry.name))
        served.serve()


@contextmanager
def _folder_of_its_own(name: str) -> Iterator[Path]:
    """Make a folder for a worker to compute in, and remove it at the end.

    The process's number alone would not make it its own: each container has a process 1.
    """
    from aserpc.socket_folder import make_private_folder

    folder, started_in = load_settings().ipc_dir.absolute(), Path.cwd()
    make_private_folder(folder)
    work, safe = folder / "work", re.sub(r"[^\w.-]+", "_", name)
    try:
        work.mkdir(exist_ok=True)
        own = Path(tempfile.mkdtemp(prefix=f"{safe}-{os.getpid()}-", dir=work))
    except OSError as error:
        msg = f"cannot make a folder to compute in, in {work}: {error.strerror}"
        raise AddressError(f"{msg}; name one with --workdir") from None
    try:
        yield own
    finally:
        with suppress(OSError):  # it may be gone
            os.chdir(started_in)
        shutil.rmtree(own, ignore_errors=True)


@app.command(name="list")
def list_(
    registry: Registry = None,
    broker: Annotated[
        str | None,
        setting("ipc_frontend", "--broker", text="List what the broker at this address serves"),
    ] = None,
    running: Annotated[
        bool, typer.Option("--running", help="List what the broker serves now")
    ] = False,
) -> None:
    """List calculators: those that can be started, or those that are served."""
    load_settings()  # a bad setting is told here too, where people look first
    if registry is not None and (running or broker is not None):
        raise typer.BadParameter("choose --registry or --broker/--running")
    if running or broker is not None:
        from aserpc.client.control import list_calculators

        served = list_calculators(broker, PATIENCE)
        print_table("Calculators served", ["Name", "Workers"], sorted(served.items()))
        return
    from aserpc.registry import discover, load_registry

    entries, failures = (load_registry(registry), []) if registry else discover()
    print_table(
        "Calculators",
        ["Name", "Factory", "From"],
        [(name, entry.factory_path, entry.source) for name, entry in sorted(entries.items())],
    )
    for failure in failures:
        complain(f"provider {failure.provider}: {failure.error}")


@app.command()
def status(
    broker: Frontend = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Show how the broker fares."""
    from aserpc.client.control import broker_status

    now = broker_status(broker, PATIENCE)
    if as_json:
        print(json.dumps(now, indent=2))
        return
    workers, pending, runs = now["workers"], now["pending_requests"], now["running_requests"]
    spawning = now["spawning"]
    columns = ["total", "idle", "busy", "loading"]
    rows = [
        (
            name,
            *(workers.get(name, {}).get(c, 0) for c in columns),
            runs.get(name, 0),
            pending.get(name, 0),
        )
        for name in sorted({*workers, *pending, *spawning})
    ]
    titles = ["Calculator", *map(str.capitalize, columns), "Running", "Pending"]
    print_table("Broker", titles, rows)
    gpus = [
        (gpu["id"], f"{gpu['free']:g}", manager["host"], ", ".join(map(_holder, gpu["workers"])))
        for manager in now["managers"]
        for gpu in manager["gpus"]
    ]
    if gpus:
        print_table("GPUs", ["GPU", "Free", "Host", "Workers"], gpus)
    for name, told in spawning.items():
        if told["fatal"] or told["text"]:
            print(f"{name}: {told['fatal'] or told['text']}")


def _holder(worker: dict[str, Any]) -> str:
    """Say who has a GPU: a worker, or a process that is none yet or no longer."""
    name, pid, state = worker["calculator"], worker["pid"], worker["state"]
    return f"{name} (not serving)" if state is None else f"{name} (process {pid}, {state})"


@app.command()
def shutdown(
    broker: Frontend = None,
    workers: Annotated[str | None, typer.Option(help="Name of the calculator")] = None,
    every: Annotated[bool, typer.Option("--all", help="The workers of all calculators")] = False,
) -> None:
    """Have workers finish what they compute and end."""
    if (workers is None) == (not every):
        raise typer.BadParameter("say --workers NAME or --all")
    from aserpc.client.control import shutdown_workers

    told = shutdown_workers(workers, broker, PATIENCE)
    print(f"told {told} worker{'' if told == 1 else 's'} to shut down")


@app.command()
def run(
    calculator: Annotated[
        str, typer.Argument(help="A registered or served name, or module:callable")
    ],
    files: Annotated[list[Path], typer.Argument(help="Structure files that ASE reads")],
    index: Annotated[str, typer.Option(help="Which structures of each file")] = "::",
    relax: Annotated[bool, typer.Option("--relax", help="Relax the positions (BFGS)")] = False,
    fmax: Annotated[
        float,
        typer.Option(
            parser=positive, metavar="<number>", help="Relax until no force is larger, eV/Å"
        ),
    ] = 0.05,
    steps: Annotated[int, typer.Option(min=0, help="Relax for at most so many steps")] = 200,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers to start [default: 1]", show_default=False)
    ] = None,
    broker: Annotated[
        str | None,
        setting("ipc_frontend", "--broker", text="Use the workers of the broker at this address"),
    ] = None,
    registry: Registry = None,
    kwargs: Annotated[
        str | None, typer.Option(help="Keyword arguments of the factory, as JSON")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write structures with results, in any format of ASE; what OUTPUT.done says is"
            " finished is not computed again",
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Compute also what is finished already, see --output"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
    allow_nonfinite: Annotated[
        bool,
        typer.Option(
            "--allow-nonfinite", help="Take NaN and infinite positions, cells and results too"
        ),
    ] = False,
    log_level: LogLevel = "CRITICAL",  # what fails is told structure by structure
) -> None:
    """Evaluate or relax all structures of some files, in parallel.

    Without --broker it starts a broker and workers of its own for the time of the run.
    """
    configure_logging(log_level)
    if broker is not None and (workers is not None or registry or kwargs):
        raise typer.BadParameter("--workers, --registry and --kwargs are for workers of its own")
    if restart and output is None:
        raise typer.BadParameter("--restart is for runs with --output")
    from aserpc.cli.run import Job, run_job

    job = Job(
        calculator=calculator,
        files=files,
        index=index,
        relax=relax,
        fmax=fmax,
        steps=steps,
        workers=workers or 1,
        broker=broker,
        registry=registry,
        kwargs=from_json("--kwargs", kwargs, dict),
        output=output,
        restart=restart,
        as_json=as_json,
        allow_nonfinite=allow_nonfinite,
    )
    raise typer.Exit(run_job(job))


app.add_typer(commands)
app.add_typer(tunnel.commands)
app.add_typer(keys.commands, name="keys")
app.add_typer(verify.commands)


def _show_version(asked: bool) -> None:
    if asked:
        import aserpc

        print(f"aserpc {aserpc.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version"),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    sys.exit(run_command(app))
