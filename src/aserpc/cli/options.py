"""The options that several commands share; what stands in `Settings` is written only there."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

from aserpc.settings import load_settings, options


def setting(name: str, *flags: str, text: str = "") -> Any:
    """Return the option for a setting; help, unless given, and default are those of `Settings`.

    What is wrong with its value is told with the name of the option.
    """
    option = next(option for option in options() if option.name == name)
    unit = f" {option.unit}" if option.unit else ""
    text = text or f"{option.help} [default: {option.default}{unit}; {option.variable}]"
    kind: dict[str, Any] = {}
    if option.unit:
        is_time = option.unit in ("s", "ms")
        parser = count_or_auto if option.unit == "structures" else count
        kind = {"parser": number if is_time else parser, "metavar": "<number>"}

    def check(value: Any) -> Any:
        load_settings({name: value}, labels={name: flags[0]})
        return value

    return typer.Option(*flags, help=text, show_default=False, callback=check, **kind)


def number(text: Any) -> float:
    """Read a number given on the command line."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None


def count(text: Any) -> int:
    """Read a number of things given on the command line."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no whole number") from None


def count_or_auto(text: Any) -> int | str:
    """Read a number of things given on the command line, or ``auto``."""
    try:
        return "auto" if text == "auto" else int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a whole number nor auto") from None


def positive(text: Any) -> float:
    """Read a positive, finite number given on the command line."""
    value = number(text)
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text!r} is no positive, finite number")
    return value


def from_json(flag: str, text: str | None, kind: type) -> Any:
    """Read a list or an object given on the command line as JSON."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{flag} is no JSON: {error}: {text}") from None
    if not isinstance(value, kind):
        wanted = "a list" if kind is list else "an object"
        raise typer.BadParameter(f"{flag} is {wanted} in JSON, not {text}")
    return value


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
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="Serve addresses of tcp without keys: to all who reach them"),
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
