"""The options that several commands share; what stands in `Settings` is written only there."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from aserpc.settings import options


def setting(name: str, *flags: str) -> Any:
    """Return the option for a setting; its help and default are those of `Settings`."""
    option = next(option for option in options() if option.name == name)
    unit = f" {option.unit}" if option.unit else ""
    text = f"{option.help} [default: {option.default}{unit}; {option.variable}]"
    kind: dict[str, Any] = {"parser": number, "metavar": "<number>"} if option.unit else {}
    return typer.Option(*flags, help=text, show_default=False, **kind)


def number(text: Any) -> float:
    """Read a number given on the command line."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None


Frontend = Annotated[str | None, setting("ipc_frontend", "--broker")]
LogLevel = Annotated[
    str, typer.Option("--log-level", envvar="ASERPC_LOG_LEVEL", help="DEBUG, INFO, WARNING, ERROR")
]
Registry = Annotated[
    str | None,
    typer.Option("--registry", help="file.py:ATTR, pkg.module:ATTR or file.toml with calculators"),
]


AllowMixed = Annotated[
    bool,
    typer.Option("--allow-mixed", help="Workers of one name may differ in arguments, versions"),
]
Gpus = Annotated[
    str | None,
    typer.Option(help="Ids of the GPUs for workers, as 0,1 [default: what nvidia-smi lists]"),
]
MaxTotal = Annotated[
    int | None, typer.Option("--max-workers-total", min=1, help="Most workers of all calculators")
]


SpawnRegistry = Annotated[
    str | None,
    typer.Option(
        "--registry",
        help="file.toml, file.py:ATTR or pkg.module:ATTR [default: aserpc.toml here, entry points]",
    ),
]
