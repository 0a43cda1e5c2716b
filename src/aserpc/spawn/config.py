"""Spawn configurations: how a manager starts the workers of one calculator.

::

    SpawnConfig("lj", ["aserpc", "worker", "ase.calculators.lj:LennardJones", "--name", "lj"])
    SpawnConfig("gfn2", packages=["tblite"], factory="tblite.ase:TBLite", max_workers=2)
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aserpc.entries import BATCH_KEYS, check_batching
from aserpc.errors import SpawnError
from aserpc.importing import split_reference
from aserpc.settings import load_settings
from aserpc.spawn import checks
from aserpc.spawn.own import OwnRequirement, own_command, own_requirement, problem_of_venv
from aserpc.spawn.uvx import find_call, find_uv

__all__ = ["Rendered", "SpawnConfig"]

# Only these are replaced: any other brace may be JSON's.
_TEMPLATE = re.compile(r"\{(name|broker|idle_timeout|gpu)\}")

#: Variables of the environment that a worker gets from its manager.
BROKER, IDLE_TIMEOUT, SPAWN_ID = "ASERPC_IPC_BACKEND", "ASERPC_IDLE_TIMEOUT", "ASERPC_SPAWN_ID"
#: Those that it gets where the configuration says so, by what that calls them.
OPTIONAL = {key: f"ASERPC_{key.upper()}" for key in ("calculation_timeout", *BATCH_KEYS)}
GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Rendered:
    """A process to start: all that a spawner needs to know.

    Attributes
    ----------
    command : list of str
        What to run.
    env : dict
        What is added to the environment.
    cwd : str or None
        Folder to start in; None for the manager's own.
    """

    command: list[str]
    env: dict[str, str]
    cwd: str | None


@dataclass(frozen=True)
class SpawnConfig:
    """How a manager starts workers of a calculator, and how many.

    Either `command`, or what a command is built from: `packages` and `python` (an environment
    made by uv), or `venv` (a ready one), or neither (the manager's own environment), with
    `factory`, `args` and `kwargs`.

    In `command`, `env` and `cwd`, ``{name}``, ``{broker}``, ``{idle_timeout}`` and ``{gpu}`` are
    replaced; every other brace stays as it is. A command without them works too: the worker
    finds the same in its environment.

    Parameters
    ----------
    name
        The calculator's name, which clients ask for and workers register under.
    command
        Starts a worker. In a call of ``uvx ... aserpc``, the manager adds its own aserpc.
    env
        Variables added to the environment.
    cwd
        Folder to start in; by default the manager's, and for a TOML file the file's.
    idle_timeout
        Time after which an idle worker ends, s; ``math.inf`` for never.
    max_workers, min_workers
        Most and fewest workers. `min_workers` are kept also while nobody asks.
    gpus
        GPUs a worker: whole ones, or a part of one. A worker sees no others, and counts its own
        from 0: the device of its first one is ``"cuda"``, whatever ``{gpu}`` is.
    start_timeout
        Time for a process to become a worker that is ready, s, downloads included.
    stop_timeout
        Time for a worker to end when told to, s, before it is killed.
    calculation_timeout
        Time after which a calculation is killed together with its worker, s; None for never.
    max_batch
        Most structures that a worker computes together, if its calculator can; 1 for each alone,
        ``"auto"`` for as many as a trial says. By default the setting of that name, as for the next
        two.
    max_batch_atoms
        Most atoms of structures that are computed together.
    batch_wait
        Time that a worker waits for more to compute together, s.
    max_restarts
        Failed starts in a row before the manager gives up. Five span half a minute of waiting,
        enough for a network or a file server to come back.
    packages
        Requirements of the calculator, as ``["mace-torch==0.3.16"]``, or paths of local ones.
    python
        Version of Python for `packages`; by default the manager's.
    factory
        ``"module:callable"`` that makes the calculator. By default `name` must be one that aserpc
        finds in the worker's environment, see ``aserpc list``.
    args, kwargs
        What `factory` is called with; plain values, as JSON has them.
    venv
        Folder of a virtual environment that has aserpc.
    source
        Where the configuration comes from, for people.

    Raises
    ------
    RegistryError
        A value that can't be used, and what could be.
    """

    name: str
    command: list[str] | None = None
    env: dict[str, str] | None = None
    cwd: str | None = None
    idle_timeout: float = 300.0
    max_workers: int = 1
    min_workers: int = 0
    gpus: float = 0
    start_timeout: float = 600.0
    stop_timeout: float = 10.0
    calculation_timeout: float | None = None
    max_batch: int | str | None = None
    max_batch_atoms: int | None = None
    batch_wait: float | None = None
    max_restarts: int = 5
    packages: list[str] | None = None
    python: str | None = None
    factory: str | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    venv: str | None = None
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        checks.check_name(self.name)
        # Copies: a list that the caller changes later would not be checked.
        checked: dict[str, Any] = {
            "command": checks.texts(self, "command", empty=False),
            "packages": checks.texts(self, "packages", empty=True),
            "env": checks.variables(self),
            "args": checks.json_value(self, "args", list),
            "kwargs": checks.json_value(self, "kwargs", dict),
            "gpus": checks.gpus(self),
        }
        checked |= {key: checks.text(self, key) for key in ("cwd", "python", "factory", "venv")}
        checked |= {
            "idle_timeout": checks.seconds(self, "idle_timeout", never="math.inf"),
            "start_timeout": checks.seconds(self, "start_timeout"),
            "stop_timeout": checks.seconds(self, "stop_timeout"),
            "calculation_timeout": checks.seconds(self, "calculation_timeout", never="None"),
            "max_workers": checks.count(self, "max_workers", least=1),
            "min_workers": checks.count(self, "min_workers"),
            "max_restarts": checks.count(self, "max_restarts"),
        }
        checked |= check_batching(self.name, vars(self))
        for key, value in checked.items():
            object.__setattr__(self, key, value)
        if self.factory is not None:
            split_reference(self.factory, f"the factory of {self.name!r},")
        checks.together(self)
        self._check_templates()

    def _check_templates(self) -> None:
        env = self.env or {}
        if not self.gpus and any("{gpu}" in text for text in self._templates()):
            raise checks.bad(self, "uses {gpu}, but gets none: gpus is 0; say how many it needs")
        given = [SPAWN_ID, BROKER, IDLE_TIMEOUT, *([GPUS] if self.gpus else [])]
        given += self._optional()
        for key in given:
            if key in env and not _TEMPLATE.search(env[key]):
                raise checks.bad(self, f"sets {key} in its env, which the manager does; drop it")

    def _optional(self) -> dict[str, str]:
        """Return the variables of what is said here, and else left to the settings."""
        values = {variable: getattr(self, key) for key, variable in OPTIONAL.items()}
        return {variable: str(value) for variable, value in values.items() if value is not None}

    def _templates(self) -> list[str]:
        return [*(self.command or ()), *(self.env or {}).values(), self.cwd or ""]

    # ---------------------------------------------------------------------------- what it is

    @property
    def kind(self) -> Literal["command", "uvx", "venv", "own"]:
        """Where its workers run: `own` is the manager's environment."""
        if self.command is not None:
            return "command"
        if self.venv is not None:
            return "venv"
        return "own" if self.packages is None and self.python is None else "uvx"

    @property
    def is_isolated(self) -> bool:
        """Whether its workers run in an environment that aserpc knows to be another."""
        return self.kind in ("uvx", "venv") or find_call(self.command or ()) is not None

    @property
    def environment(self) -> str:
        """Where its workers run, in words."""
        if self.kind == "uvx":
            python = [f"Python {self.python}"] if self.python else []
            return " ".join(["uvx", *(self.packages or ()), *python])
        if self.kind == "venv":
            return f"venv {self.venv}"
        return "the manager's own" if self.kind == "own" else "a command of its own"

    @property
    def venv_folder(self) -> Path:
        """The absolute path of `venv`."""
        return Path.cwd() / os.path.expanduser(self.venv or "")  # noqa: PTH111

    # --------------------------------------------------------------------------- the command

    def render_command(self, broker: str | None = None, gpu: str | None = None) -> list[str]:
        """Return the command as a person would write it.

        Parameters
        ----------
        broker
            The address for workers; by default that of the settings.
        gpu
            Id of the GPU; ``{gpu}`` stays as it is without one.
        """
        if self.command is None:
            return [*self._start(), *self._worker()]
        if broker is None:
            used = any("{broker}" in text for text in self.command)
            broker = load_settings().ipc_backend if used else ""
        return [self._fill(text, broker, gpu) for text in self.command]

    def render(
        self,
        *,
        broker: str,
        spawn_id: str,
        gpu: str | None = None,
        own: OwnRequirement | None = None,
    ) -> Rendered:
        """Return the process to start.

        Parameters
        ----------
        broker
            The address for workers.
        spawn_id
            What ties the process to its worker.
        gpu
            Ids of its GPUs, as ``"0"`` or ``"2,3"``.
        own
            The aserpc for ``uvx``; by default this one.

        Raises
        ------
        SpawnError
            It can't be started from here: uv, the environment or the folder is missing.
        """
        env = {key: self._fill(text, broker, gpu) for key, text in (self.env or {}).items()}
        given = {BROKER: broker, IDLE_TIMEOUT: str(self.idle_timeout), SPAWN_ID: spawn_id}
        if gpu is not None:
            given[GPUS] = gpu
        given |= self._optional()
        # What stands in `env` too stands there as a template, see `_check_templates`.
        env = {**given, **env}
        command = self._startable(self.render_command(broker, gpu), env.get("PATH"), own)
        return Rendered(command, env, self._folder(broker, gpu))

    def _fill(self, text: str, broker: str, gpu: str | None) -> str:
        values = {
            "name": self.name,
            "broker": broker,
            "idle_timeout": str(self.idle_timeout),
            "gpu": "{gpu}" if gpu is None else gpu,
        }
        # In one go: a value with braces in it is no template.
        return _TEMPLATE.sub(lambda match: values[match[1]], text)

    def _start(self) -> list[str]:
        """Return what starts aserpc in the environment that this describes."""
        if self.venv is not None:
            return [str(self.venv_folder / "bin" / "aserpc")]
        if self.kind == "own":
            return own_command()
        python = self.python or "{}.{}".format(*sys.version_info[:2])
        added = [word for package in self.packages or () for word in ("--with", package)]
        return ["uvx", "--python", python, *added, "aserpc"]

    def _worker(self) -> list[str]:
        """Return the arguments of ``aserpc`` that start a worker."""
        arguments = []
        if self.factory is not None:
            # With "=", a name that begins with a hyphen is no option.
            hyphen = self.name.startswith("-")
            arguments += [f"--name={self.name}"] if hyphen else ["--name", self.name]
        if self.args is not None:
            arguments += ["--args", json.dumps(self.args)]
        if self.kwargs is not None:
            arguments += ["--kwargs", json.dumps(self.kwargs)]
        target = self.factory or self.name
        if target.startswith("-"):
            return ["worker", *arguments, "--", target]
        return ["worker", target, *arguments]

    def _startable(
        self, command: list[str], path: str | None, own: OwnRequirement | None
    ) -> list[str]:
        """Return a command that starts from here, with the manager's own aserpc in it."""
        if self.venv is not None and (problem := problem_of_venv(self.venv_folder)):
            raise SpawnError(f"calculator {self.name!r}: {problem}")
        if command[0] == "aserpc":
            return [*own_command(), *command[1:]]
        call = find_call(command)
        if call is None:
            return command
        if command[0] in ("uvx", "uv"):
            try:
                call.start[0] = find_uv(command[0], path)
            except SpawnError as error:
                msg = f"calculator {self.name!r}: {error}"
                raise SpawnError(msg) from None
        return call.command(None if call.says_which_aserpc else own or own_requirement())

    def _folder(self, broker: str, gpu: str | None) -> str | None:
        if self.cwd is None:
            return None
        folder = os.path.abspath(os.path.expanduser(self._fill(self.cwd, broker, gpu)))  # noqa: PTH100, PTH111
        if not os.path.isdir(folder):  # noqa: PTH112
            msg = f"calculator {self.name!r}: its cwd {folder} is no folder"
            raise SpawnError(msg)
        return folder
