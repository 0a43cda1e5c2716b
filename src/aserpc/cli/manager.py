"""The commands of the manager: start it, load its configurations again, see what it did."""

from __future__ import annotations

from typing import Annotated

import typer

from aserpc.cli.console import configure_logging
from aserpc.cli.options import (
    AllowMixed,
    Frontend,
    Gpus,
    Insecure,
    LogLevel,
    MaxTotal,
    SpawnRegistry,
    setting,
)

#: Joined to the others by `aserpc.cli.app`.
commands = typer.Typer()

environments = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Prepare and check workers' environments."
)
commands.add_typer(environments, name="env")


@environments.command(name="build")
def build_environment(
    name: Annotated[str, typer.Argument(help="Name of the calculator")],
    registry: SpawnRegistry = None,
) -> None:
    """Build an environment ahead, so that the first request need not wait for it."""
    from aserpc.cli import up

    raise typer.Exit(up.build_environment(name, registry))


@environments.command(name="check")
def check_environments(registry: SpawnRegistry = None) -> None:
    """Show which environments are ready."""
    from aserpc.cli import up

    raise typer.Exit(up.check_environments(up.load_configs(registry)))


@commands.command()
def manager(
    registry: SpawnRegistry = None,
    broker: Annotated[str | None, setting("ipc_backend", "--broker")] = None,
    heartbeat: Annotated[float | None, setting("heartbeat_interval", "--heartbeat")] = None,
    gpus: Gpus = None,
    max_workers_total: MaxTotal = None,
    log_level: LogLevel = "INFO",
) -> None:
    """Start a manager, which starts workers when they are asked for."""
    configure_logging(log_level)
    from aserpc.cli.up import make_manager, serve

    serve(make_manager(registry, broker, heartbeat, gpus, max_workers_total))


@commands.command()
def up(
    file: Annotated[
        str | None,
        typer.Argument(help="What to serve [default: aserpc.toml here, and entry points]"),
    ] = None,
    frontend: Annotated[str | None, setting("ipc_frontend", "--frontend")] = None,
    backend: Annotated[str | None, setting("ipc_backend", "--backend")] = None,
    gpus: Gpus = None,
    max_workers_total: MaxTotal = None,
    allow_mixed: AllowMixed = False,
    insecure: Insecure = False,
    log_level: LogLevel = "INFO",
) -> None:
    """Start a broker and a manager together: the usual way to start."""
    configure_logging(log_level)
    from aserpc import descriptors
    from aserpc.broker import Broker
    from aserpc.broker.garbage import collect_rarely
    from aserpc.cli.up import make_manager, serve

    descriptors.raise_limit()
    collect_rarely()
    served = Broker(frontend, backend, allow_mixed=allow_mixed, insecure=insecure)
    # The manager and its workers are on this machine, whatever is served to others.
    serve(make_manager(file, served.local_backend, None, gpus, max_workers_total), served)


@commands.command()
def reload(broker: Frontend = None) -> None:
    """Have the managers load their configurations again."""
    from aserpc.client.control import reload_managers

    told = reload_managers(broker)
    print(f"told {told} manager{'' if told == 1 else 's'} to load again")


@commands.command()
def logs(
    name: Annotated[str, typer.Argument(help="Name of the calculator")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows")] = False,
) -> None:
    """Show what the last worker of a calculator printed."""
    from aserpc.cli.up import show_logs

    show_logs(name, follow=follow)
