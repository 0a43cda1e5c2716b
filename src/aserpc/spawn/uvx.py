"""Calls of uvx in commands: found, and given our own aserpc."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aserpc.errors import SpawnError
from aserpc.spawn.own import OwnRequirement

__all__ = ["UvxCall", "find_call", "find_uv"]

# Of the options of `uv tool run` (uv 0.13), those without a value; the others take theirs from the
# next argument.
_FLAGS = {
    *("--isolated", "--lfs", "--upgrade", "--reinstall", "--refresh", "--compile-bytecode"),
    *("--offline", "--managed-python", "--require-build-hashes", "--system-certs", "--native-tls"),
    *("--quiet", "--verbose", "--version", "--help"),
}
_SHORT = {"-w": "--with", "-c": "", "-b": "", "-i": "", "-f": "", "-P": "", "-C": "", "-p": ""}

# A requirement that leaves the version open, and one of aserpc that does not, perhaps in a list.
_ANY_VERSION = re.compile(r"[\w.-]+\s*(\[[^]]*\])?\s*")
_PINNED_ASERPC = re.compile(r"(^|,)\s*aserpc\s*(\[[^]]*\])?\s*[=<>~!@]", re.IGNORECASE)


@dataclass(frozen=True)
class UvxCall:
    """A command that calls ``uvx`` or ``uv tool run``.

    Attributes
    ----------
    start : list of str
        Up to ``uvx`` itself, with what stands before it.
    options : list of str
        Options of uvx.
    tool : str
        What is run, as ``"aserpc"``.
    arguments : list of str
        The tool's own.
    origin : str
        The requirement in ``--from``; empty without.
    added : list of str
        Those in ``--with``.
    """

    start: list[str]
    options: list[str]
    tool: str
    arguments: list[str]
    origin: str
    added: list[str]

    @property
    def runs_aserpc(self) -> bool:
        """Whether it runs aserpc, in whatever version."""
        return re.split("[@=<>~! ]", self.tool, maxsplit=1)[0] == "aserpc"

    @property
    def says_which_aserpc(self) -> bool:
        """Whether the person has chosen a version or place of aserpc."""
        if self.tool != "aserpc" or (self.origin and not _ANY_VERSION.fullmatch(self.origin)):
            return True
        return any(_PINNED_ASERPC.search(text) for text in self.added)

    def command(
        self, own: OwnRequirement | None, *more: str, tool: Sequence[str] | None = None
    ) -> list[str]:
        """Return the command with our own aserpc, unless it says which one it wants.

        Parameters
        ----------
        own
            What to add; None adds nothing.
        more
            Further options of uvx.
        tool
            Run this in the same environment, instead of aserpc.
        """
        options = [*more, *self.options]
        if own is not None and not self.says_which_aserpc:
            options = [*own.uv_options, *options]
        if tool is None:
            return [*self.start, *options, self.tool, *self.arguments]
        if not self.origin:
            name, _, version = self.tool.partition("@")
            pinned = f"{name}=={version}" if version not in ("", "latest") else name
            options = ["--from", pinned, *options]
        return [*self.start, *options, *tool]


def find_call(command: Sequence[str]) -> UvxCall | None:
    """Find a call of uvx that runs aserpc, also behind ``srun``, ``env`` and such."""
    for index, word in enumerate(command):
        name = word.rpartition("/")[2]
        if name == "uvx":
            return _parse(command, index + 1)
        if name == "uv" and list(command[index + 1 : index + 3]) == ["tool", "run"]:
            return _parse(command, index + 3)
    return None


def _parse(command: Sequence[str], start: int) -> UvxCall | None:
    origin, added = "", []
    index = start
    while index < len(command) and command[index].startswith("-"):
        word = command[index]
        index += 1
        if word == "--":
            break
        option, equals, value = word.partition("=")
        if word[:2] in _SHORT:
            option, value = _SHORT[word[:2]], word[2:]
            equals = value
        elif _is_flag(option):
            continue
        if not equals and index < len(command):
            value = command[index]
            index += 1
        if option == "--from":
            origin = value
        elif option == "--with":
            added.append(value)
    if index >= len(command):
        return None
    call = UvxCall(
        start=list(command[:start]),
        options=list(command[start:index]),
        tool=command[index],
        arguments=list(command[index + 1 :]),
        origin=origin,
        added=added,
    )
    return call if call.runs_aserpc else None


def _is_flag(option: str) -> bool:
    if not option.startswith("--") or option in _FLAGS:
        return True
    return option.startswith("--no-") and not option.endswith("-package")


def find_uv(program: str = "uvx", path: str | None = None) -> str:
    """Return the path of ``uvx`` or ``uv``: the one on the path, or the manager's own.

    Raises
    ------
    SpawnError
        There is none; how to get it.
    """
    found = shutil.which(program, path=path)
    beside = Path(sys.executable).with_name(program)
    if found is None and beside.is_file():
        found = str(beside)
    if found is None:
        msg = (
            f"{program} is not installed; `pip install uv` in the environment of the manager, or "
            "see https://docs.astral.sh/uv/getting-started/installation/. Without uv, name a "
            'ready environment that has aserpc: venv = "path"'
        )
        raise SpawnError(msg)
    return found
