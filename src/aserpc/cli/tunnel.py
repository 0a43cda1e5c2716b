"""The command for a broker on another machine, which ssh reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

#: Joined to the others by `aserpc.cli.app`.
commands = typer.Typer()


@commands.command()
def tunnel(
    destination: Annotated[
        str, typer.Argument(metavar="USER@HOST", help="The broker's machine, as for ssh")
    ],
    via: Annotated[
        str | None, typer.Option(metavar="USER@HOST", help="Host to go by, as for ssh -J")
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--dir",
            help="Folder of the broker's sockets there, from your home there [default: .aserpc]",
        ),
    ] = None,
    frontend: Annotated[
        str | None,
        typer.Option(help="Instead of a folder: the broker's tcp address, as seen from there"),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="The same, for workers that are to run here")
    ] = None,
    local: Annotated[
        Path | None, typer.Option(help="Folder for the sockets here [default: ~/.aserpc-HOST]")
    ] = None,
    ssh: Annotated[str, typer.Option(help="The program, and options of its own")] = "ssh",
    run: Annotated[bool, typer.Option("--run", help="Run it, until Ctrl-C")] = False,
) -> None:
    """Show how ssh connects this machine to a broker on another one, or have it done.

    Clients and workers here then use that broker by a folder of their own, without keys.
    """
    from aserpc.cli.forwarding import plan

    planned = plan(
        destination,
        via=via,
        folder=folder,
        frontend=frontend,
        backend=backend,
        local=local,
        ssh=ssh,
    )
    if run:
        planned.run()
    else:
        print(planned.script())
