"""A manager by the real command, and calculators that it starts."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ase import Atoms

from support import puppet
from support.processes import Cli, Process
from support.waiting import wait_for

PUPPET = f"{puppet.__file__}:Puppet"

_numbers = itertools.count(1)


def table(name: str, orders: dict[str, Any] | None = None, **keys: Any) -> str:
    """Return a table of ``aserpc.toml``: a puppet with orders for when it is made."""
    lines = [f"[calculators.{name}]"]
    if "command" not in keys:
        keys = {"factory": PUPPET, "kwargs": orders or {}, **keys}
    for key, value in {"idle_timeout": 60.0, **keys}.items():
        lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)  # as in TOML, for what stands here


def write(cli: Cli, *tables: str) -> None:
    """Write the ``aserpc.toml`` of the current folder."""
    (cli.cwd / "aserpc.toml").write_text(textwrap.dedent("".join(tables)))


def up(cli: Cli, *tables: str, arguments: tuple[str, ...] = (), **env: str) -> Process:
    """Start broker and manager together, and wait until they serve."""
    write(cli, *tables)
    process = cli.start("up", *arguments, **env)
    wait_for(lambda: "offers" in process.errors() or not process.runs(), what=process.errors)
    assert process.runs(), process.errors()
    return process


def manager(cli: Cli, *tables: str, arguments: tuple[str, ...] = (), **env: str) -> Process:
    """Start a manager beside a broker that runs, and wait until the broker has it."""
    if tables:
        write(cli, *tables)
    before = offers(cli)
    process = cli.start("manager", *arguments, **env)
    wait_for(lambda: offers(cli) > before or not process.runs(), what=process.errors)
    assert process.runs(), process.errors()
    return process


def offers(cli: Cli) -> int:
    """Return how many names managers offer now."""
    return len(cli.status()["manager"]["spawnable"])


def system(orders: dict[str, Any] | None = None) -> Atoms:
    """Return an atom with orders for the calculation; no two are equal: each is computed."""
    atoms = Atoms("H", [(next(_numbers), 0, 0)])
    atoms.info["orders"] = orders or {}
    return atoms


def ask(cli: Cli, name: str, orders: dict[str, Any] | None = None, **options: Any) -> Any:
    """Compute something, and return what the puppet tells."""
    atoms = system(orders)
    atoms.calc = cli.calculator(name, **options)
    assert atoms.get_potential_energy() == atoms.positions[0, 0] ** 2 / 2
    return atoms.calc.results["telling"]


def noted(folder: Path, name: str) -> list[int]:
    """Return the processes that have left a note."""
    return [int(path.name.rpartition("-")[2]) for path in folder.glob(f"{name}-*")]


def gone(pid: int) -> bool:
    """Whether a process has ended; whoever inherited it may not have noticed yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def counted(process: Process, words: str) -> Callable[[], int]:
    """Return what counts a manager's log lines with certain words."""
    return lambda: sum(words in line for line in process.errors().splitlines())
