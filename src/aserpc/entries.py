"""An entry of the registry: how one calculator is made, and how a table says so."""

from __future__ import annotations

import difflib
import importlib.metadata
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from aserpc.batchers import as_calculator
from aserpc.errors import RegistryError
from aserpc.importing import explain, import_reference, is_file, make_importable, split_reference
from aserpc.messages import MAX_NAME_SIZE
from aserpc.setting_values import MAX_COUNT

#: What a registry's table says about the calculator.
ENTRY_KEYS = ("factory", "args", "kwargs")

#: What it says of structures that are computed together; a manager hands it to its workers.
BATCH_KEYS = ("max_batch", "max_batch_atoms", "batch_wait")

#: What a table says to a manager; known here and left alone.
MANAGER_KEYS = (
    "packages",
    "python",
    "venv",
    "command",
    "env",
    "cwd",
    "idle_timeout",
    "max_workers",
    "min_workers",
    "gpus",
    "start_timeout",
    "stop_timeout",
    "calculation_timeout",
    "max_restarts",
)

# Where a factory's package requires one of these, or has it imported, perhaps through another
# package, its version decides about the numbers too.
_RUNTIMES = ("torch", "jax", "tensorflow")


@dataclass(frozen=True)
class CalculatorEntry:
    """A calculator that can be made.

    Attributes
    ----------
    name : str
        What clients ask for.
    factory : callable or str
        Makes the calculator; a ``"module:attribute"`` is imported by `load` only.
    args, kwargs
        What the factory is called with.
    source : str
        Where the entry comes from, for people.
    batching : dict
        Those of ``max_batch``, ``max_batch_atoms`` and ``batch_wait`` that its workers have unless
        they are told otherwise, see `Worker`.
    """

    name: str
    factory: Callable[..., Any] | str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    batching: dict[str, Any] = field(default_factory=dict)

    @property
    def factory_path(self) -> str:
        """The factory as ``"module:attribute"``; of a partial, the function inside."""
        if isinstance(self.factory, str):
            module, attribute = split_reference(self.factory)
            return f"{Path(module).stem if is_file(module) else module}:{attribute}"
        return _path(self.factory.func if isinstance(self.factory, partial) else self.factory)

    def describe(self) -> dict[str, Any]:
        """Return ``factory``, ``args`` and ``kwargs`` as plain values, those of a partial merged.

        Equal entries have equal descriptions, also in different processes.
        """
        args, kwargs = self.args, self.kwargs
        if isinstance(self.factory, partial):
            args = (*self.factory.args, *args)
            kwargs = {**self.factory.keywords, **kwargs}
        return {"factory": self.factory_path, "args": _plain(args), "kwargs": _plain(kwargs)}

    def load(self) -> Callable[..., Any]:
        """Import the factory.

        Raises
        ------
        RegistryError
            Its module or attribute is missing, fails, or is not callable.
        """
        if not isinstance(self.factory, str):
            return self.factory
        try:
            return load_factory(self.factory)
        except RegistryError as error:
            source = f" ({self.source})" if self.source else ""
            msg = f"calculator {self.name!r}{source}: {error}"
            raise RegistryError(msg) from error.__cause__

    def make(self) -> Any:
        """Make the calculator.

        Raises
        ------
        RegistryError
            The factory fails (its own exception is the cause), or returns no calculator.
        """
        factory = self.load()
        try:
            calculator = factory(*self.args, **self.kwargs)
        except (Exception, SystemExit) as error:
            msg = f"calculator {self.name!r}: {self._call()} failed: {explain(error)}"
            raise RegistryError(msg) from error
        methods = ("get_property", "calculate")
        usable = any(callable(getattr(calculator, method, None)) for method in methods)
        if isinstance(calculator, type):
            what = f"the class {calculator.__name__}, not an instance of it"
        elif not usable:
            what = f"{short(calculator)}, which has no get_property"
        else:
            return calculator
        if not isinstance(calculator, type) and (wrapped := as_calculator(calculator)) is not None:
            return wrapped
        msg = (
            f"calculator {self.name!r}: {self._call()} returned {what}; "
            "a factory returns an ASE calculator"
        )
        raise RegistryError(msg)

    def versions(self) -> dict[str, str]:
        """Return the versions of the installed distributions that the numbers depend on.

        Known best when the calculator has been made.
        """
        names = {"aserpc", "ase", "numpy", *sys.modules.keys() & set(_RUNTIMES)}
        top = re.split("[.:]", self.factory_path, maxsplit=1)[0]
        for distribution in _distributions().get(top, []):
            names.add(distribution)
            required = importlib.metadata.requires(distribution) or []
            required_names = {re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required}
            names.update(required_names.intersection(_RUNTIMES))
        versions = {name: _version(name) for name in sorted(names)}
        return {name: version for name, version in versions.items() if version}

    def _call(self) -> str:
        arguments = [repr(value) for value in self.args]
        arguments += [f"{key}={value!r}" for key, value in self.kwargs.items()]
        text = " ".join(f"{self.factory_path}({', '.join(arguments)})".split())
        return text if len(text) <= 300 else f"{text[:300]}...)"


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    # It reads the list of files of every installed package.
    return importlib.metadata.packages_distributions()


def _version(distribution: str) -> str:
    try:
        # A half-removed package has a folder of metadata without a version.
        return importlib.metadata.version(distribution) or ""
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return ""


def load_factory(path: str) -> Callable[..., Any]:
    """Import a factory from ``"module:callable"`` or ``"file.py:callable"``.

    Raises
    ------
    RegistryError
        It is missing, fails to import, or is not callable.
    """
    make_importable(Path.cwd())
    factory = import_reference(path)
    if not callable(factory):
        msg = f"{path} is {short(factory)}, which is not callable"
        raise RegistryError(msg)
    result: Callable[..., Any] = factory
    return result


# -------------------------------------------------------------------------------------- tables


def read_entries(
    value: Any, source: str, *, strict: bool
) -> tuple[dict[str, CalculatorEntry], list[str]]:
    """Return the good entries of a registry, and what is wrong with the others.

    Parameters
    ----------
    value
        Names with factories, or with ``{"factory", "args", "kwargs"}``.
    source
        Where it comes from.
    strict
        Refuse every unknown key. Otherwise only one that looks misspelt is refused: providers
        may say more in their dicts than we know.
    """
    if not isinstance(value, Mapping):
        msg = f"{source} is {short(value)}, not a dict of calculator names and factories"
        raise RegistryError(msg)
    entries: dict[str, CalculatorEntry] = {}
    problems = []
    for name, item in value.items():
        try:
            if not _is_for_managers_only(item):
                entries[name] = _read_entry(name, item, source, strict=strict)
        except RegistryError as error:  # noqa: PERF203  one bad entry hides no other
            problems.append(str(error))
    return entries, problems


def _is_for_managers_only(item: Any) -> bool:
    """Whether a table says how its workers start, and leaves the calculator to them."""
    starts = ("command", "packages", "python", "venv")
    return isinstance(item, Mapping) and "factory" not in item and any(k in item for k in starts)


def _read_entry(name: Any, item: Any, source: str, *, strict: bool) -> CalculatorEntry:
    check_name(name)
    if isinstance(item, str):
        msg = f'calculator {name!r} is the text {item!r}; write {{"factory": "module:callable"}}'
        raise RegistryError(msg)
    if not isinstance(item, Mapping):
        item = {"factory": item}
    for key in item:
        check_key(name, key, strict=strict)
    if "factory" not in item:
        msg = f'calculator {name!r} has no factory; it needs a factory, "module:callable"'
        raise RegistryError(msg)
    factory = item["factory"]
    if isinstance(factory, str):
        split_reference(factory, f"the factory of {name!r},")
    elif not callable(factory):
        msg = (
            f"the factory of {name!r} is {short(factory)}, which is not callable; "
            'give a class, a function or "module:callable"'
        )
        raise RegistryError(msg)
    args, kwargs = (
        check_args(name, item.get("args", ())),
        check_kwargs(name, item.get("kwargs", {})),
    )
    return CalculatorEntry(name, factory, args, kwargs, source, check_batching(name, item))


def check_key(name: str, key: object, *, strict: bool) -> None:
    """Refuse an unknown key of a table; unless `strict`, only one that looks misspelt."""
    known = ENTRY_KEYS + BATCH_KEYS + MANAGER_KEYS
    if key in known:
        return
    close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5 if strict else 0.75)
    if close or strict:
        hint = f"{close[0]!r} is probably meant" if close else f"there are {', '.join(known)}"
        msg = f"calculator {name!r} has the unknown key {key!r}; {hint}"
        raise RegistryError(msg)


def check_name(name: Any) -> str:
    """Return `name` if a calculator can be called so."""
    good = isinstance(name, str) and name.isprintable()
    if not good or not 0 < len(name.encode()) <= MAX_NAME_SIZE:
        msg = (
            f"{short(name)} is no calculator name; a name is text of 1 to {MAX_NAME_SIZE} bytes "
            "without control characters"
        )
        raise RegistryError(msg)
    return str(name)


def check_batching(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a table says of batches; None is nothing."""
    said = {key: table[key] for key in BATCH_KEYS if table.get(key) is not None}
    for key, value in said.items():
        is_number = not isinstance(value, bool) and isinstance(value, Real)
        if key == "batch_wait":
            good, wanted = is_number and 0 <= value < math.inf, "a number of seconds from 0 up"
        else:
            good = is_number and isinstance(value, Integral) and 1 <= int(value) <= MAX_COUNT
            wanted = f"a whole number from 1 to {MAX_COUNT}"
        if key == "max_batch":
            good, wanted = good or value == "auto", f'{wanted}, or "auto"'
        if not good:
            msg = f"calculator {name!r} has {key} = {short(value)}; it must be {wanted}"
            raise RegistryError(msg)
    return said


def check_args(name: str, args: Any) -> tuple[Any, ...]:
    """Return positional arguments as a tuple."""
    if isinstance(args, str | bytes) or not isinstance(args, Sequence):
        msg = f"the args of {name!r} are {short(args)}; give a list"
        raise RegistryError(msg)
    return tuple(args)


def check_kwargs(name: str, kwargs: Any) -> dict[str, Any]:
    """Return keyword arguments as a dict."""
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        msg = f"the kwargs of {name!r} are {short(kwargs)}; give names and values"
        raise RegistryError(msg)
    return dict(kwargs)


# -------------------------------------------------------------------------------------- values


def absolute_paths(value: Any, base: Path) -> Any:
    """Return arguments with the relative paths in them made absolute.

    Workers compute in a folder of their own, where a relative path would name nothing. A text
    is a path if it names a file or folder below `base` and has a separator in it, or names a
    regular file with a suffix: ``"medium"`` stays what it is, whatever folders are there.
    """
    if isinstance(value, Mapping):
        return {key: absolute_paths(item, base) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(absolute_paths(item, base) for item in value)
    if isinstance(value, Path):
        path = base / value
        return path if path.exists() else value
    if not isinstance(value, str) or not value:
        return value
    path = base / value
    # These two never fail, whatever the text; Path's own do.
    if os.sep in value and os.path.exists(path):  # noqa: PTH110
        return str(path)
    if os.sep not in value and path.suffix and os.path.isfile(path):  # noqa: PTH113
        return str(path)
    return value


def _plain(value: Any) -> Any:
    """Return a value as msgpack and JSON can say it, the same in every process."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if callable(getattr(value, "tolist", None)):
        return _plain(value.tolist())
    if hasattr(value, "__qualname__"):
        return _path(value)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _path(factory: Any) -> str:
    named = factory if hasattr(factory, "__qualname__") else type(factory)
    return f"{named.__module__}:{named.__qualname__}"


def short(value: Any) -> str:
    """Return what a value is, cut to a length that a line bears."""
    text = repr(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return text if value is None else f"{text} ({type(value).__name__})"
