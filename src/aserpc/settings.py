"""Settings: defaults < ``pyproject.toml`` < calculator's table < environment < command line.

Each option is written once, in `Settings`; the command line and the documentation are made
from `options`. Nothing here creates a file or a folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aserpc.default_folders import FOLDER, KEYS_FOLDER, default_folder, default_keys_folder, upward
from aserpc.errors import SettingsError
from aserpc.setting_values import (
    MAX_COUNT,
    PLACEHOLDER,
    Given,
    read_address,
    read_count,
    read_duration,
    read_folder,
    read_text,
)

#: What every environment variable of ours begins with.
PREFIX = "ASERPC_"

#: Variables that are no settings: a manager gives its workers their spawn's id, and the command
#: line takes its log level from there.
OTHER_VARIABLES = ("ASERPC_SPAWN_ID", "ASERPC_LOG_LEVEL", "ASERPC_WORKDIR")

# An environment variable is taken for a misspelt setting from this likeness on; others may well
# belong to someone else's script.
_LIKENESS = 0.8


def _option(
    help_: str,
    *,
    unit: str = "",
    text: str = "",
    never: bool = False,
    least: float | None = None,
    most: int = MAX_COUNT,
) -> dict[str, Any]:
    limits = {"never": never, "least": least, "most": most}
    return {"help": help_, "unit": unit, "text": text, **limits}


@dataclass(frozen=True)
class Settings:
    """What every part of the service can be told.

    Make one with `load_settings`.
    """

    ipc_dir: Path = field(
        metadata=_option(
            "Folder of the sockets. Unless set: the nearest .aserpc from the current folder "
            "upward that is mine, has mode 0700 and is not above my home; else beside the "
            "nearest pyproject.toml; else in the current folder",
            text=FOLDER,
        )
    )
    ipc_frontend: str = field(
        metadata=_option("Address for clients", text=f"ipc://{PLACEHOLDER}/frontend.ipc")
    )
    ipc_backend: str = field(
        metadata=_option("Address for workers", text=f"ipc://{PLACEHOLDER}/backend.ipc")
    )
    worker_timeout: float = field(
        default=30.0, metadata=_option("Time before a silent worker is lost", unit="s")
    )
    heartbeat_interval: float = field(
        default=5.0, metadata=_option("Time between two signs of life of a worker", unit="s")
    )
    idle_timeout: float = field(
        default=300.0,
        metadata=_option("Time before an idle worker shuts down; inf: never", unit="s", never=True),
    )
    calculation_timeout: float = field(
        default=math.inf,
        metadata=_option(
            "Time before a calculation is ended together with its worker; inf: never",
            unit="s",
            never=True,
        ),
    )
    max_batch: int | Literal["auto"] = field(
        default=16,
        metadata=_option(
            "Most structures that a worker computes together, if its calculator can; 1: each "
            "alone; auto: as many as a trial at the start says",
            unit="structures",
        ),
    )
    max_batch_atoms: int | None = field(
        default=None,
        metadata=_option(
            "Most atoms of structures that are computed together; unless set, a trial of auto "
            "decides about it, too",
            unit="atoms",
            text="512",
        ),
    )
    batch_wait: float = field(
        default=0.0,
        metadata=_option(
            "Time that a worker waits for more to compute together", unit="s", least=0
        ),
    )
    request_queue_timeout: float = field(
        default=60.0,
        metadata=_option(
            "Time that a request waits while no worker of its calculator is there; inf: for ever",
            unit="s",
            never=True,
        ),
    )
    reconnect_grace: float = field(
        default=2.0,
        metadata=_option(
            "Time that a broken connection of a worker on another machine may take to come back "
            "before its requests run elsewhere",
            unit="s",
        ),
    )
    max_queue: int = field(
        default=100_000,
        metadata=_option(
            "How many requests may wait for one calculator", unit="requests", most=10_000_000
        ),
    )
    max_queue_bytes: int = field(
        default=4 << 30,
        metadata=_option(
            "How much memory all requests at the broker may take", unit="bytes", most=1 << 60
        ),
    )
    orphan_ttl: float = field(
        default=60.0,
        metadata=_option(
            "Time that the broker keeps an answer for a client that is not known to have it",
            unit="s",
        ),
    )
    client_timeout_ms: float = field(
        default=60000,
        metadata=_option(
            "Silence of the broker after which a client gives up; inf: never",
            unit="ms",
            never=True,
        ),
    )
    keys_dir: Path = field(
        default=Path(KEYS_FOLDER),
        metadata=_option("Folder of the keys, for connections by tcp", text=KEYS_FOLDER),
    )
    broker_key: str = field(
        default="",
        metadata=_option(
            "Name or public key of the broker to connect to by tcp, where several are allowed",
            text="the one that is allowed",
        ),
    )

    @property
    def local_frontend(self) -> str:
        """Address for clients on this machine, whatever there is for others."""
        return self._local("frontend", self.ipc_frontend)

    @property
    def local_backend(self) -> str:
        """Address for workers on this machine, whatever there is for others."""
        return self._local("backend", self.ipc_backend)

    def _local(self, side: str, address: str) -> str:
        return address if address.startswith("ipc://") else f"ipc://{self.ipc_dir}/{side}.ipc"


@dataclass(frozen=True)
class Option:
    """One setting, for the command line's help and the documentation.

    Attributes
    ----------
    name : str
        Its key in ``[tool.aserpc]``, and `Settings`' attribute.
    variable : str
        Its environment variable.
    default : str
        The default as one would write it.
    unit : str
        Of its value; empty for text.
    help : str
        One sentence.
    """

    name: str
    variable: str
    default: str
    unit: str
    help: str


@functools.cache
def options() -> tuple[Option, ...]:
    """Return all settings, in the order of `Settings`."""
    return tuple(
        Option(
            name=item.name,
            variable=PREFIX + item.name.upper(),
            default=item.metadata["text"] or str(item.default),
            unit=item.metadata["unit"],
            help=item.metadata["help"],
        )
        for item in dataclasses.fields(Settings)
    )


_FIELDS = {item.name: item for item in dataclasses.fields(Settings)}
_VARIABLES = {option.variable: option.name for option in options()}
_DEFAULT_ADDRESSES = {
    option.name: option.default for option in options() if PLACEHOLDER in option.default
}


def load_settings(
    overrides: Mapping[str, object] | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    table: Mapping[str, object] | None = None,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Gather the settings from everywhere they can be set.

    Parameters
    ----------
    overrides
        What the command line or the caller gives, by name; None is "not given".
    labels
        What the overrides are called where they are given, as ``--broker``; by default their names.
    table
        What the table of a worker's calculator says, by name.
    cwd
        Where the search for files begins; the current folder by default.
    environ
        The environment; ``os.environ`` by default.

    Raises
    ------
    SettingsError
        A bad value, an unknown name or a broken file: which, and where it came from.
    """
    try:
        folder = os.path.abspath(cwd) if cwd is not None else os.getcwd()  # noqa: PTH100, PTH109
    except FileNotFoundError:
        msg = "the current folder does not exist any more; change into another one"
        raise SettingsError(msg) from None
    folders = upward(folder)
    given = _from_pyproject(folders)
    for name, value in (table or {}).items():
        given[name] = Given(value, name, "the calculator's table", folder)
    given.update(_from_environment(os.environ if environ is None else environ, folder))
    for name, value in (overrides or {}).items():
        if name not in _FIELDS:
            raise _unknown(name, value, "given by the caller")
        if value is not None:
            label = (labels or {}).get(name, name)
            source = "command line" if label.startswith("-") else "given by the caller"
            given[name] = Given(value, label, source, folder)

    values: dict[str, Any] = {}
    sockets, keys = given.get("ipc_dir"), given.get("keys_dir")
    ipc_dir = read_folder(sockets, "the sockets") if sockets else default_folder(folders)
    values["ipc_dir"] = Path(ipc_dir)
    keys_dir = read_folder(keys, "the keys") if keys else default_keys_folder(ipc_dir)
    values["keys_dir"] = Path(keys_dir)
    if "broker_key" in given:
        values["broker_key"] = read_text(given["broker_key"])
    for name, default in _DEFAULT_ADDRESSES.items():
        item = given.get(name) or Given(default, name, "default", folder)
        values[name] = read_address(item, ipc_dir)
    for name, item in given.items():
        if name not in values:
            metadata = _FIELDS[name].metadata
            read = read_duration if metadata["unit"] in ("s", "ms") else read_count
            values[name] = read(item, metadata)
    return Settings(**values)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; ValueError says what is wrong with which file."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror or error}"
        raise ValueError(msg) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is no valid TOML: {error}"
        raise ValueError(msg) from None
    return content


# ------------------------------------------------------------------------------------ sources


def _from_pyproject(folders: list[str]) -> dict[str, Given]:
    """Return what the nearest ``pyproject.toml`` with a ``[tool.aserpc]`` sets."""
    for folder in folders:
        path = os.path.join(folder, "pyproject.toml")  # noqa: PTH118
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        table = _read_table(path, status.st_mtime_ns, status.st_size, status.st_ino)
        if table is None:
            continue
        source = f"[tool.aserpc] in {path}"
        for name, value in table.items():
            if name not in _FIELDS:
                raise _unknown(name, value, source)
        return {name: Given(value, name, source, folder) for name, value in table.items()}
    return {}


@functools.lru_cache(maxsize=64)
def _read_table(path: str, mtime: int, size: int, inode: int) -> dict[str, Any] | None:  # noqa: ARG001
    """Return ``[tool.aserpc]`` of a file, None without one; read again only when it changed."""
    try:
        content = read_toml(Path(path))
    except ValueError as error:
        raise SettingsError(str(error)) from None
    tool = content.get("tool")
    table = tool.get("aserpc") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        msg = f"tool.aserpc = {table!r} in {path} is no table; write [tool.aserpc]"
        raise SettingsError(msg)
    return table


def _from_environment(environ: Mapping[str, str], cwd: str) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for variable in [key for key in environ if key[:7].upper() == PREFIX]:
        name = _VARIABLES.get(variable)
        if name is not None:
            given[name] = Given(environ[variable], variable, "environment", cwd)
        elif variable not in OTHER_VARIABLES and (nearest := _nearest_variable(variable)):
            msg = (
                f"{variable} = {environ[variable]!r} (environment) is no setting; "
                f"{nearest} is probably meant"
            )
            raise SettingsError(msg)
    return given


def _nearest_variable(variable: str) -> str:
    """Return the variable that a misspelt one means; what all have in common does not count."""
    known = [name.removeprefix(PREFIX) for name in _VARIABLES]
    close = difflib.get_close_matches(variable[7:].upper(), known, n=1, cutoff=_LIKENESS)
    return PREFIX + close[0] if close else ""


def _unknown(name: str, value: object, source: str) -> SettingsError:
    close = difflib.get_close_matches(str(name).lower(), _FIELDS, n=1, cutoff=0.5)
    text = repr(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    hint = f"{close[0]} is probably meant" if close else f"there are {', '.join(_FIELDS)}"
    msg = f"{name} = {text} ({source}) is no setting; {hint}"
    return SettingsError(msg)
