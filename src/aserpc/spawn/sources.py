"""Where spawn configurations come from: entry points, registries in Python, TOML files.

A TOML file has a table ``[calculators.NAME]`` for each calculator, with the registry's keys and
the manager's together.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aserpc.entries import absolute_paths, check_key, check_name, short
from aserpc.errors import RegistryError
from aserpc.importing import is_file, make_importable, split_reference
from aserpc.providers import ProviderFailure, call_reference, entry_points, read_providers
from aserpc.registry import toml_table
from aserpc.spawn.config import SpawnConfig

__all__ = ["GROUP", "discover_spawn_configs", "get_spawn_configs", "load_spawn_registry"]

#: Entry points of this group are functions that return ``{name: SpawnConfig}``.
GROUP = "aserpc.spawn"

_log = logging.getLogger(__name__)


def get_spawn_configs(registry_path: str | None = None) -> dict[str, SpawnConfig]:
    """Return the configurations of a registry, or else of the installed providers.

    What is wrong with a provider is logged.
    """
    if registry_path is not None:
        return load_spawn_registry(registry_path)
    configs, failures = discover_spawn_configs()
    for failure in failures:
        _log.warning("provider %s: %s", failure.provider, failure.error)
    return configs


def discover_spawn_configs() -> tuple[dict[str, SpawnConfig], list[ProviderFailure]]:
    """Return the configurations of all installed providers, and what failed.

    Of several providers of a name the alphabetically first is used; the others are reported.
    """
    failures: list[ProviderFailure] = []
    return read_providers(entry_points(GROUP, failures), _read, failures), failures


def load_spawn_registry(reference: str, base: Path | None = None) -> dict[str, SpawnConfig]:
    """Read the configurations of one registry.

    Parameters
    ----------
    reference
        ``"file.py:ATTR"``, ``"package.module:ATTR"`` or ``"file.toml"``. ATTR is a dict, or a
        function that returns one, of `SpawnConfig` or of tables as in TOML. Relative paths in a
        file start from its folder.
    base
        Where a relative file is looked for, and modules first; the current folder by default.

    Raises
    ------
    RegistryError
        Everything that is wrong with it.
    """
    base = Path.cwd() if base is None else base.absolute()
    make_importable(base)
    folder: Path | None = None
    if reference.endswith(".toml"):
        path = base / os.path.expanduser(reference)  # noqa: PTH111
        value, source, folder = toml_table(path), reference, path.parent
    else:
        module, attribute = split_reference(reference, "the registry")
        value, source = call_reference(reference, base), reference
        if is_file(module):
            path = base / os.path.expanduser(module)  # noqa: PTH111
            source, folder = f"{path.name}:{attribute}", path.parent
    configs, problems = _read(value, source, folder, is_toml=reference.endswith(".toml"))
    if problems:
        msg = f"registry {source}: {'; '.join(problems)}"
        raise RegistryError(msg)
    return configs


def _read(
    value: Any, source: str, folder: Path | None = None, *, is_toml: bool = False
) -> tuple[dict[str, SpawnConfig], list[str]]:
    """Return the good configurations, and what is wrong with the others."""
    if not isinstance(value, Mapping):
        msg = f"{source} is {short(value)}, not a dict of names and spawn configurations"
        raise RegistryError(msg)
    configs: dict[str, SpawnConfig] = {}
    problems = []
    for name, item in value.items():
        try:
            config = replace(_config(name, item), source=source)
            configs[name] = config if folder is None else _located(config, folder, is_toml=is_toml)
        except RegistryError as error:  # noqa: PERF203  one bad entry hides no other
            problems.append(str(error))
    return configs, problems


def _config(name: Any, item: Any) -> SpawnConfig:
    check_name(name)
    if isinstance(item, SpawnConfig):
        if item.name != name:
            msg = f"calculator {name!r} has the configuration of {item.name!r}; give both one name"
            raise RegistryError(msg)
        return item
    if not isinstance(item, Mapping):
        msg = f"calculator {name!r} is {short(item)}; give a SpawnConfig or a table of its keys"
        raise RegistryError(msg)
    for key in item:
        check_key(name, key, strict=True)
    return SpawnConfig(name, **item)


def _located(config: SpawnConfig, folder: Path, *, is_toml: bool) -> SpawnConfig:
    """Let relative paths start from the folder of the file that has them."""
    cwd, packages = config.cwd, config.packages
    if cwd is None and is_toml:
        # So that modules beside the file can be imported.
        cwd = "."
    return replace(
        config,
        cwd=_below(folder, cwd),
        venv=_below(folder, config.venv),
        factory=_factory(folder, config.factory),
        packages=None if packages is None else [_package(folder, item) for item in packages],
        args=absolute_paths(config.args, folder),
        kwargs=absolute_paths(config.kwargs, folder),
    )


def _below(folder: Path, path: str | None) -> str | None:
    if path is None or path.startswith("~"):
        return path
    return os.path.normpath(folder / path)


def _factory(folder: Path, factory: str | None) -> str | None:
    if factory is None:
        return None
    module, attribute = split_reference(factory)
    return f"{_below(folder, module)}:{attribute}" if is_file(module) else factory


def _package(folder: Path, package: str) -> str:
    """Return a requirement; that of a local package, a path, absolute."""
    is_path = "/" in package and "@" not in package
    return str(_below(folder, package)) if is_path and (folder / package).exists() else package
