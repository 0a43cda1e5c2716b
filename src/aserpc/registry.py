"""The registry: which calculators there are, by name.

Names are found without importing any calculator's package; `CalculatorEntry.load` does that.
Whatever a person can get wrong is a `RegistryError`: what, where, and what to do.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from aserpc.calculators import package_of
from aserpc.entries import (
    CalculatorEntry,
    absolute_paths,
    check_args,
    check_kwargs,
    check_name,
    load_factory,
    read_entries,
)
from aserpc.errors import RegistryError
from aserpc.importing import is_file, make_importable, split_reference
from aserpc.providers import ProviderFailure, call_reference, entry_points, read_providers
from aserpc.settings import read_toml

__all__ = [
    "CalculatorEntry",
    "absolute_paths",
    "discover",
    "load_factory",
    "load_registry",
    "resolve",
]

#: Entry points of this group are providers: functions that return a registry.
GROUP = "aserpc.calculators"

_OWN_PROVIDER = "aserpc.calculators:get_calculators"


def discover() -> tuple[dict[str, CalculatorEntry], list[ProviderFailure]]:
    """Return the calculators of all installed providers, and what failed.

    Of several providers of a name the alphabetically first is used, ours last; the others are
    reported.
    """
    failures: list[ProviderFailure] = []
    read = partial(read_entries, strict=False)
    return read_providers(_providers(failures), read, failures), failures


def _providers(failures: list[ProviderFailure]) -> list[tuple[str, str]]:
    """Return label and reference of each provider, ours last."""
    others = [item for item in entry_points(GROUP, failures) if item[1] != _OWN_PROVIDER]
    # Ours is there also where the package is used without being installed.
    return [*others, (f"entry point 'aserpc' ({_OWN_PROVIDER})", _OWN_PROVIDER)]


def load_registry(reference: str, base: Path | None = None) -> dict[str, CalculatorEntry]:
    """Read a registry.

    Parameters
    ----------
    reference
        ``"file.py:ATTR"``, ``"package.module:ATTR"`` or ``"file.toml"``. ATTR is a dict, or a
        function that returns one, of factories or of ``{"factory", "args", "kwargs"}``.
    base
        Where a relative file is looked for, and modules first; the current folder by default.

    Raises
    ------
    RegistryError
        What is wrong with it.
    """
    base = Path.cwd() if base is None else base.absolute()
    make_importable(base)
    if reference.endswith(".toml"):
        table, source = toml_table(base / os.path.expanduser(reference)), reference  # noqa: PTH111
        found, problems = read_entries(table, source, strict=True)
    else:
        value = call_reference(reference, base)
        module, attribute = split_reference(reference)
        source = f"{Path(module).name}:{attribute}" if is_file(module) else reference
        found, problems = read_entries(value, source, strict=False)
    if problems:
        msg = f"registry {source}: {'; '.join(problems)}"
        raise RegistryError(msg)
    return found


def toml_table(path: Path) -> dict[str, Any]:
    """Read the tables ``[calculators.NAME]`` of a file."""
    try:
        content = read_toml(path)
    except ValueError as error:
        msg = f"the registry {error}"
        raise RegistryError(msg) from None
    for key in content:
        if key != "calculators":
            msg = f"the registry {path} has {key!r} in it; its tables are [calculators.NAME]"
            raise RegistryError(msg)
    table = content.get("calculators")
    if not isinstance(table, dict):
        msg = f"the registry {path} is empty; write tables [calculators.NAME] with a factory"
        raise RegistryError(msg)
    return table


def resolve(
    calculator: str,
    *,
    registry: str | None = None,
    name: str | None = None,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> CalculatorEntry:
    """Return what a worker that is started here with these arguments serves.

    Parameters
    ----------
    calculator
        A registered name, in upper or lower case where that is unambiguous, or
        ``"module:callable"``.
    registry
        See `load_registry`; the installed providers by default.
    name
        What to serve it as; by default `calculator` as it is written here, so that clients can
        write the same, or the callable's name.
    args, kwargs
        `args` replace the registry's, `kwargs` update them. Relative paths in all of them become
        absolute, see `absolute_paths`.

    Raises
    ------
    RegistryError
        Nothing is registered under that name; what there is, the nearest first.
    """
    here = Path.cwd()
    make_importable(here)
    entries, failures = (load_registry(registry), []) if registry else discover()
    entry = _find(calculator, entries, failures, registry)
    entry = replace(entry, name=check_name(entry.name if name is None else name))
    factory = entry.factory
    if args is not None and isinstance(factory, partial):
        keywords = {**factory.keywords, **entry.kwargs}
        entry = replace(entry, factory=factory.func, kwargs=keywords)
    if args is not None:
        entry = replace(entry, args=check_args(entry.name, args))
    if kwargs is not None:
        keywords = {**entry.kwargs, **check_kwargs(entry.name, kwargs)}
        entry = replace(entry, kwargs=keywords)
    return replace(
        entry, args=absolute_paths(entry.args, here), kwargs=absolute_paths(entry.kwargs, here)
    )


def _find(
    calculator: str,
    entries: Mapping[str, CalculatorEntry],
    failures: Sequence[ProviderFailure],
    registry: str | None,
) -> CalculatorEntry:
    if calculator in entries:
        return entries[calculator]
    folded = {name: name.casefold() for name in entries}
    same = [name for name in entries if folded[name] == calculator.casefold()]
    if len(same) == 1:
        return replace(entries[same[0]], name=calculator)
    if ":" in calculator or calculator.endswith(".py"):
        module, attribute = split_reference(calculator)
        if is_file(module):
            # Absolute, because the worker imports it after it changed into its own folder.
            file = Path.cwd() / os.path.expanduser(module)  # noqa: PTH111
            calculator = f"{file}:{attribute}"
        return CalculatorEntry(attribute.rpartition(".")[2], calculator, source="command line")
    where = f"in {registry}" if registry else "installed"
    wanted = calculator.casefold()
    nearest = same or sorted(
        entries,
        key=lambda n: difflib.SequenceMatcher(None, wanted, folded[n]).ratio(),
        reverse=True,
    )
    msg = f"no calculator {calculator!r} {where}; there are {', '.join(nearest) or 'none'}"
    if failures:
        broken = dict.fromkeys(f"{failure.provider}: {failure.error}" for failure in failures)
        msg += f". Providers that failed: {'; '.join(broken)}"
    if not registry and (package := package_of(calculator)):
        msg += f". It needs the package {package}, which is not installed in this environment"
    if "." in calculator:
        msg += f". Is {':'.join(calculator.rsplit('.', 1))} meant?"
    raise RegistryError(msg)
