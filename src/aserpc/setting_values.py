"""Values of settings: read, checked, and refused with where they came from."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from aserpc.errors import SettingsError

#: The largest number of things.
MAX_COUNT = 32768

#: Stands for the sockets' folder in an address.
PLACEHOLDER = "{IPC_DIR}"


class Given(NamedTuple):
    """A value somebody set: where it says so, and the folder its relative paths start from."""

    value: object
    label: str
    source: str
    base: str

    def bad(self, problem: str) -> SettingsError:
        """Return the error that says so."""
        msg = f"{self.label} = {self.value!r} ({self.source}) {problem}"
        return SettingsError(msg)


def read_text(item: Given) -> str:
    """Return a text that is not empty."""
    value = os.fspath(item.value) if isinstance(item.value, os.PathLike) else item.value
    if not isinstance(value, str):
        raise item.bad("is no text")
    if not value.strip():
        raise item.bad("is empty; leave it out to get the default")
    if "\0" in value:
        raise item.bad("has a NUL character in it")
    return value


def _absolute(path: str, item: Given) -> str:
    expanded = os.path.expanduser(path)  # noqa: PTH111
    if expanded.startswith("~"):
        raise item.bad("begins with the home folder of somebody unknown here")
    return os.path.normpath(os.path.join(item.base, expanded))  # noqa: PTH118


def read_folder(item: Given, of_what: str) -> str:
    """Return the absolute path of a folder, which need not be there."""
    path = _absolute(read_text(item), item)
    if os.path.exists(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112
        raise item.bad(f"is a file; name a folder for {of_what}")
    return path


def read_address(item: Given, ipc_dir: str) -> str:
    """Return an address; that of a file is absolute, because workers leave their folder."""
    text = read_text(item)
    if unknown := re.search(r"\{\w*\}", text.replace(PLACEHOLDER, "")):
        raise item.bad(f"has {unknown[0]} in it; only {PLACEHOLDER} is replaced")
    scheme, separator, rest = text.replace(PLACEHOLDER, ipc_dir).partition("://")
    if not separator or scheme not in ("ipc", "tcp") or not rest:
        raise item.bad("is no address; write ipc:///path/to/socket or tcp://HOST:PORT")
    return f"{scheme}://{_absolute(rest, item) if scheme == 'ipc' else rest}"


def read_duration(item: Given, metadata: Mapping[str, Any]) -> float:
    """Return a positive number; `metadata` says of which unit, and whether it may be infinite."""
    value: object = item.value
    if isinstance(value, str) and item.source == "environment":
        try:
            value = float(value)
        except ValueError:
            value = None
    unit = {"s": "seconds", "ms": "milliseconds"}[metadata["unit"]]
    never = " (or inf: never)" if metadata["never"] else ""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise item.bad(f"is no number of {unit}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if metadata["least"] is not None:
        if not metadata["least"] <= number < math.inf:
            raise item.bad(f"must be a finite number of {unit} from {metadata['least']:g} up")
    elif not number > 0 or (math.isinf(number) and not never):
        raise item.bad(f"must be a positive, finite number of {unit}{never}")
    return number


def read_count(item: Given, metadata: Mapping[str, Any]) -> int | str:
    """Return a number of things from 1 up, or of structures perhaps ``auto``."""
    value: object = item.value
    can_be_found = metadata["unit"] == "structures"
    if value == "auto" and can_be_found:
        return "auto"
    if isinstance(value, str) and item.source == "environment":
        try:
            value = int(value)
        except ValueError:
            value = None
    number = 0 if isinstance(value, bool) or not isinstance(value, Integral) else int(value)
    most = metadata["most"]
    if not 0 < number <= most:
        auto = ", or auto" if can_be_found else ""
        raise item.bad(f"is no whole number of {metadata['unit']} from 1 to {most}{auto}")
    return number
