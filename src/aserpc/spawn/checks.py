"""What a spawn configuration may say; whatever it may not is a `RegistryError` of one line."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from aserpc.entries import check_name, short
from aserpc.errors import RegistryError

if TYPE_CHECKING:
    from aserpc.spawn.config import SpawnConfig

__all__ = [
    "bad",
    "check_name",
    "count",
    "gpus",
    "json_value",
    "seconds",
    "text",
    "texts",
    "together",
    "variables",
]


def bad(config: SpawnConfig, problem: str) -> RegistryError:
    """Return the error for a mistake in a configuration."""
    return RegistryError(f"calculator {config.name!r} {problem}")


def _wrong(config: SpawnConfig, key: str, wanted: str) -> RegistryError:
    return bad(config, f"has {key} = {short(getattr(config, key))}; it must be {wanted}")


# ----------------------------------------------------------------------------------------- texts


def text(config: SpawnConfig, key: str) -> str | None:
    """Return a text, or that of a path."""
    value = getattr(config, key)
    if value is None:
        return None
    if not _text(value):
        # Without quotes, TOML and Python read 3.10 as 3.1.
        wanted = {"python": 'text, as "3.10"', "factory": 'text, "module:callable"'}
        raise _wrong(config, key, wanted.get(key, "text"))
    return _text(value)


def _text(value: object) -> str:
    """Return a text, or what a path is; "" for anything that no process can be given."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    return value if isinstance(value, str) and "\0" not in value else ""


def texts(config: SpawnConfig, key: str, *, empty: bool) -> list[str] | None:
    """Return a list of texts or paths, as a new one."""
    value = getattr(config, key)
    if value is None:
        return None
    if isinstance(value, str):
        if key == "command":
            hint = f"a list of words, as {value.split()}"
        else:
            hint = f"a list, as {[value]}"
        raise _wrong(config, key, hint)
    if not isinstance(value, Sequence) or not (value or empty):
        raise _wrong(config, key, f"a list of texts{'' if empty else ', with at least one'}")
    for item in value:
        # A command may have an empty argument, but not an empty program.
        if not _text(item) and (item != "" or key != "command" or item is value[0]):
            raise bad(config, f"has {short(item)} in its {key}, which is no text")
        if key == "packages" and _text(item).startswith("-"):
            problem = f"has the option {item!r} in its packages; write a command for that"
            raise bad(config, problem)
    return [_text(item) for item in value]


def variables(config: SpawnConfig) -> dict[str, str] | None:
    """Return the variables of the environment, as a new dict."""
    if config.env is None:
        return None
    if not isinstance(config.env, Mapping):
        raise _wrong(config, "env", "a table of names and texts")
    for key, value in config.env.items():
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            raise bad(config, f"has {short(key)} in its env, which names no variable")
        if not isinstance(value, str) or "\0" in value:
            problem = f"has {key} = {short(value)} in its env; a variable is a text: {str(value)!r}"
            raise bad(config, problem)
    return dict(config.env)


# --------------------------------------------------------------------------------------- numbers


def seconds(config: SpawnConfig, key: str, never: str = "") -> float | None:
    """Return a duration as it is: a whole number of seconds is written as one in commands."""
    value = getattr(config, key)
    if never == "None" and value is None:
        return None
    wanted = f"a positive number of seconds{f' ({never}: never)' if never else ''}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _wrong(config, key, wanted)
    if not float(value) > 0 or (math.isinf(value) and never != "math.inf"):
        raise _wrong(config, key, wanted)
    return value  # type: ignore[return-value]


def count(config: SpawnConfig, key: str, least: int = 0) -> int:
    """Return a number of things."""
    value = getattr(config, key)
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise _wrong(config, key, f"a whole number from {least} up")
    return int(value)


def gpus(config: SpawnConfig) -> float:
    """Return the number of GPUs a worker."""
    value = config.gpus
    number = not isinstance(value, bool) and isinstance(value, Real)
    if not number or not 0 <= value < math.inf or (value > 1 and value % 1):
        raise _wrong(config, "gpus", "a whole number, or less than 1 to share one")
    return value


# ------------------------------------------------------------------------------------- arguments


def json_value(config: SpawnConfig, key: str, kind: type) -> Any:
    """Return arguments for the command line, copied."""
    value = getattr(config, key)
    if value is None:
        return None
    if kind is list and (isinstance(value, str) or not isinstance(value, Sequence)):
        raise _wrong(config, key, "a list")
    if kind is dict and not isinstance(value, Mapping):
        raise _wrong(config, key, "a table of names and values")
    return _plain(config, key, value)


def _plain(config: SpawnConfig, key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(config, key, item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _plain(config, key, item) for name, item in value.items()}
    problem = f"has {short(value)} in its {key}; a worker gets them as JSON, which has no such"
    raise bad(config, problem)


# ---------------------------------------------------------------------------------------- together


def together(config: SpawnConfig) -> None:
    """Refuse what contradicts itself."""
    built = ("packages", "python", "venv", "factory", "args", "kwargs")
    also = [key for key in built if getattr(config, key) is not None]
    if config.command is not None and also:
        problem = f"has a command and also {', '.join(also)}; the command says all that, choose one"
        raise bad(config, problem)
    if config.venv is not None and (made := [key for key in also if key in ("packages", "python")]):
        problem = f"has a venv and also {' and '.join(made)}; a venv is used as it is, choose one"
        raise bad(config, problem)
    if config.min_workers > config.max_workers:
        numbers = f"min_workers = {config.min_workers}, max_workers = {config.max_workers}"
        raise bad(config, f"has {numbers}; the least is more than the most")
