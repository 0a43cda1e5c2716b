"""The command for whether a served calculator answers as it should."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aserpc.cli.console import configure_logging
from aserpc.cli.options import Frontend, LogLevel, Registry, from_json, positive

#: Joined to the others by `aserpc.cli.app`.
commands = typer.Typer()


@commands.command()
def verify(
    calculator: Annotated[str, typer.Argument(help="A served name")],
    against: Annotated[
        str | None,
        typer.Option(help="Compare with this, made here: a registered name, or module:callable"),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Compare with nothing: check what must hold anyway")
    ] = False,
    kwargs: Annotated[
        str | None, typer.Option(help="Keyword arguments of what is made here, as JSON")
    ] = None,
    registry: Registry = None,
    structures: Annotated[
        list[Path] | None,
        typer.Option(
            help="Ask for the structures of this file, not the usual ones; can be repeated",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            parser=positive,
            metavar="<number>",
            help="How much results may differ, relative to their largest number or 1"
            " [default: 5e-6]",
            show_default=False,
        ),
    ] = None,
    broker: Frontend = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
    log_level: LogLevel = "ERROR",
) -> None:
    """Check that a served calculator answers as it should.

    It is compared with the same one here, where that can be made; else with itself.
    """
    configure_logging(log_level)
    if alone and (against is not None or registry is not None or kwargs is not None):
        raise typer.BadParameter(
            "--against, --registry and --kwargs are for what --alone leaves out"
        )
    from aserpc.cli.verification import Question
    from aserpc.cli.verification import verify as verify_calculator

    question = Question(
        calculator=calculator,
        against=against,
        alone=alone,
        kwargs=from_json("--kwargs", kwargs, dict),
        registry=registry,
        files=structures or [],
        tolerance=tolerance,
        broker=broker,
        as_json=as_json,
    )
    raise typer.Exit(verify_calculator(question))
