"""What a script may give for a calculator, as a configuration that workers start with."""

from __future__ import annotations

import dataclasses
import functools
import os
import site
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from aserpc.client.arguments import number_from
from aserpc.entries import short
from aserpc.errors import RegistryError
from aserpc.importing import check_reference
from aserpc.local_service import LIMITS, command_config
from aserpc.registry import resolve
from aserpc.spawn import SpawnConfig
from aserpc.spawn.environments import THREAD_VARIABLES

#: Set in workers, so that a script that one of them imports starts none of its own.
INSIDE = "_ASERPC_LOCAL"

#: A factory; the name of a registered one; "module:callable"; a registry's table; a configuration.
Served: TypeAlias = Callable[..., Any] | str | Mapping[str, Any] | SpawnConfig


def configurations(
    calculators: Mapping[str, Served] | Iterable[str], workers: int | Mapping[str, int]
) -> dict[str, SpawnConfig]:
    """Return how the workers of some calculators start.

    Raises
    ------
    RegistryError
        If a worker could not make one of them; which, and what to do.
    """
    if isinstance(calculators, str):
        calculators = [calculators]
    if not isinstance(calculators, Mapping):
        if isinstance(calculators, type) or not isinstance(calculators, Iterable):
            raise RegistryError(f"calculators is {short(calculators)}; give {{name: factory}}")
        calculators = {name: name for name in calculators}
    if not calculators:
        raise RegistryError("no calculator is given; give {name: factory}")
    if isinstance(workers, Mapping) and (others := [n for n in workers if n not in calculators]):
        raise ValueError(f"workers has a number for {others[0]!r}, which is not served")
    counts = {name: _count(name, workers) for name in calculators}
    total = sum(counts.values())
    return {
        name: _configuration(name, served, counts[name], total)
        for name, served in calculators.items()
    }


def _count(name: str, workers: int | Mapping[str, int]) -> int:
    count = workers.get(name, 1) if isinstance(workers, Mapping) else workers
    return number_from(1, "workers", count, "a number of processes")


def _configuration(name: str, served: Served, count: int, total: int) -> SpawnConfig:
    config = _made_of(name, served)
    env = {INSIDE: "1", **(config.env or {})}
    if not config.is_isolated:
        env.setdefault("PYTHONPATH", os.pathsep.join(_own_folders()))
    if total > 1 and not os.environ.get(THREAD_VARIABLES[0]):
        share = str(max(1, (os.cpu_count() or 1) // total))
        for variable in THREAD_VARIABLES:
            if not os.environ.get(variable):
                env.setdefault(variable, share)
    return dataclasses.replace(config, name=name, env=env, min_workers=count, max_workers=count)


def _made_of(name: str, served: Served) -> SpawnConfig:
    if isinstance(served, SpawnConfig):
        return served
    if isinstance(served, Mapping):
        keys = {field.name for field in dataclasses.fields(SpawnConfig)} - {"name", "source"}
        if unknown := [key for key in served if key not in keys]:
            raise RegistryError(f"calculator {name!r} has the unknown key {unknown[0]!r}")
        given = dict(served)
        if callable(given.get("factory")):
            made = _factory(name, given.pop("factory"))
            given = {**made, **given, "kwargs": {**made["kwargs"], **given.get("kwargs", {})}}
        return SpawnConfig(name, **{**LIMITS, **given})
    if isinstance(served, str) and ":" not in served:
        resolve(served)
        return command_config(name, ["--", served], 1)
    if isinstance(served, str):
        check_reference(served, Path.cwd())
        return SpawnConfig(name, factory=served, **LIMITS)
    return SpawnConfig(name, **LIMITS, **_factory(name, served))


def _factory(name: str, factory: Any) -> dict[str, Any]:
    """Return factory, args and kwargs by which another process makes the same."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    while isinstance(factory, functools.partial):
        args, kwargs = [*factory.args, *args], {**factory.keywords, **kwargs}
        factory = factory.func
    if not callable(factory):
        raise RegistryError(
            f"calculator {name!r} is {short(factory)}; give what makes it: its class, a function, "
            'a name that is registered, or "module:callable"'
        )
    return {"factory": _reference(name, factory), "args": args, "kwargs": kwargs}


def _reference(name: str, factory: Any) -> str:
    module = getattr(factory, "__module__", None) or ""
    path = getattr(factory, "__qualname__", "")
    found: Any = sys.modules.get(module)
    where = module
    if module == "__main__":
        spec, file = getattr(found, "__spec__", None), getattr(found, "__file__", None)
        if file and not Path(file).exists():  # "<stdin>"
            file = None
        where = spec.name if spec is not None else str(Path(file).absolute()) if file else ""
    try:
        for part in path.split("."):
            found = getattr(found, part)
    except AttributeError:
        found = None
    if not where or not path or found != factory:
        raise RegistryError(
            f"calculator {name!r}: its factory {short(factory)} is in no file that a worker could "
            "import it from, as in a notebook, or it is a lambda or inside a function. Write it to "
            "a file and give 'file.py:NAME'; for arguments use functools.partial"
        )
    return f"{where}:{path}"


def _own_folders() -> list[str]:
    """Return where this process imports from, except what any worker has too."""
    standard = (sys.prefix, sys.base_prefix, sys.exec_prefix, site.getusersitepackages())
    folders = [str(Path(folder or os.curdir).absolute()) for folder in sys.path]
    inside = tuple(f"{folder.rstrip(os.sep)}{os.sep}" for folder in standard)
    return [folder for folder in folders if not f"{folder}{os.sep}".startswith(inside)]
