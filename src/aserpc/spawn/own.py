"""Where this aserpc comes from, and how another environment gets the same one."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aserpc
from aserpc.errors import SpawnError
from aserpc.settings import read_toml

__all__ = ["OwnRequirement", "own_command", "own_requirement", "problem_of_venv"]


@dataclass(frozen=True)
class OwnRequirement:
    """The aserpc that a worker's environment needs to speak with its manager.

    Attributes
    ----------
    text : str
        A requirement, as ``"aserpc==0.2.0"``, or the absolute path of a source tree.
    is_tree : bool
        Whether it is a source tree.
    """

    text: str
    is_tree: bool = False

    @property
    def uv_options(self) -> tuple[str, str]:
        """What adds it to a call of ``uvx``.

        A tree is added as an editable install. Of any other, uv keeps what it once built until
        ``pyproject.toml`` changes, and workers would run older code than their manager.
        """
        if not self.is_tree:
            return ("--with", self.text)
        # uv takes a comma for the end of a path, but not in an address.
        comma = "," in self.text
        path = Path(self.text).as_uri().replace(",", "%2C") if comma else self.text
        return ("--with-editable", path)

    @property
    def pip_arguments(self) -> str:
        """What ``pip install`` is called with, as a person writes it."""
        return f"-e {self.text}" if self.is_tree else f"'{self.text}'"


def own_requirement() -> OwnRequirement:
    """Return where this aserpc comes from.

    A source tree (editable, installed from its folder, or just imported from there), a wheel,
    a repository, or else its version from the package index. Read from ``direct_url.json``
    (https://packaging.python.org/specifications/direct-url/).

    Raises
    ------
    SpawnError
        It is not installed and no source tree either.
    """
    package = Path(aserpc.__file__).resolve().parent
    for folder in (package.parent, package.parent.parent):
        if _is_source_tree(folder):
            return OwnRequirement(str(folder), is_tree=True)
    try:
        distribution = importlib.metadata.distribution("aserpc")
        direct = json.loads(distribution.read_text("direct_url.json") or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        msg = (
            f"aserpc in {package} is not installed, so that environments of their own can't get "
            "the same one; `pip install` it"
        )
        raise SpawnError(msg) from None
    return _from_direct_url(direct) or OwnRequirement(f"aserpc=={distribution.version}")


def _is_source_tree(folder: Path) -> bool:
    try:
        content = read_toml(folder / "pyproject.toml")
    except ValueError:
        return False
    project = content.get("project")
    return isinstance(project, dict) and project.get("name") == "aserpc"


def _from_direct_url(direct: dict[str, Any]) -> OwnRequirement | None:
    """Return what a ``direct_url.json`` tells; None if what it names is there no longer."""
    url = str(direct.get("url", ""))
    parts = urlsplit(url)
    path = Path(unquote(parts.path)) if parts.scheme == "file" else None
    subdirectory = str(direct.get("subdirectory", ""))
    if not url or (path is not None and not path.exists()):
        return None
    if "dir_info" in direct:
        return OwnRequirement(str(path), is_tree=True) if path is not None else None
    suffix = f"#subdirectory={subdirectory}" if subdirectory else ""
    if isinstance(vcs := direct.get("vcs_info"), dict):
        return OwnRequirement(f"aserpc @ {vcs['vcs']}+{url}@{vcs['commit_id']}{suffix}")
    return OwnRequirement(f"aserpc @ {url}{suffix}")


def own_command() -> list[str]:
    """Return the command that starts this aserpc.

    The script beside the interpreter, where there is one: ``python -m aserpc`` would run an
    ``aserpc.py`` of the current folder.
    """
    script = Path(sys.executable).with_name("aserpc")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "aserpc"]


def problem_of_venv(folder: Path) -> str:
    """Say why a virtual environment can't start our workers; "" if it looks as if it could."""
    python = folder / "bin" / "python"
    if not folder.is_dir():
        return f"its venv {folder} is no folder"
    if not python.is_file():
        return f"its venv {folder} is no virtual environment, there is no bin/python"
    if not (folder / "bin" / "aserpc").is_file():
        install = f"{python} -m pip install {own_requirement().pip_arguments}"
        return f"its venv {folder} has no aserpc; `{install}`"
    return ""
