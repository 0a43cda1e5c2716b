"""Providers: functions of installed packages, found by their entry points, that return a registry.

Whatever is wrong with one is reported and breaks nobody else's.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from aserpc.errors import RegistryError
from aserpc.importing import explain, import_reference

__all__ = [
    "ProviderFailure",
    "call_reference",
    "entry_points",
    "named_entry_points",
    "read_providers",
]


@dataclass(frozen=True)
class ProviderFailure:
    """What was wrong with a provider or with one of its entries."""

    provider: str
    error: str


class Provided(Protocol):
    """An entry of a registry."""

    @property
    def source(self) -> str:
        """Where it comes from, for people."""


Entry = TypeVar("Entry", bound=Provided)


def entry_points(group: str, failures: list[ProviderFailure]) -> list[tuple[str, str]]:
    """Return label and reference of each installed provider of a group, in alphabetical order."""
    points = named_entry_points(group, failures)
    return [(f"entry point {name!r} ({value})", value) for name, value in points]


def named_entry_points(group: str, failures: list[ProviderFailure]) -> list[tuple[str, str]]:
    """Return name and reference of each entry point of a group, in alphabetical order."""
    try:
        # An entry point's extras, "module:attr [extra]", are nothing to import.
        points = {
            (point.name, re.sub(r"\[.*|\s", "", point.value))
            for point in importlib.metadata.entry_points(group=group)
        }
    except Exception as error:  # noqa: BLE001  whatever the metadata of a stranger's package do
        failures.append(ProviderFailure("entry points", explain(error)))
        points = set()
    return sorted(points)


def read_providers(
    providers: Iterable[tuple[str, str]],
    read: Callable[[Any, str], tuple[Mapping[str, Entry], list[str]]],
    failures: list[ProviderFailure],
) -> dict[str, Entry]:
    """Return the entries of several providers; of a name, the first one's.

    Parameters
    ----------
    providers
        Label and reference of each.
    read
        Makes of what a provider returns, and of its label, the good entries and what is wrong
        with the others.
    failures
        What is wrong is added here, and which entries are not used.
    """
    entries: dict[str, Entry] = {}
    for label, reference in providers:
        try:
            found, problems = read(call_reference(reference), label)
        except RegistryError as error:
            failures.append(ProviderFailure(label, str(error)))
            continue
        failures += [ProviderFailure(label, problem) for problem in problems]
        for name, entry in found.items():
            if name in entries:
                problem = f"its {name!r} is not used; there is one from {entries[name].source}"
                failures.append(ProviderFailure(label, problem))
            else:
                entries[name] = entry
    return entries


def call_reference(reference: str, base: Path | None = None) -> Any:
    """Import a registry: a dict, or what a function returns."""
    value = import_reference(reference, base, "the registry")
    if isinstance(value, Mapping) or not callable(value):
        return value
    try:
        return value()
    except (Exception, SystemExit) as error:
        msg = f"{reference}() failed: {explain(error)}"
        raise RegistryError(msg) from error
