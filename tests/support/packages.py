"""Registries and installed packages, made for a test."""

from __future__ import annotations

import itertools
from pathlib import Path
from textwrap import dedent

import pytest

from aserpc.errors import RegistryError

_numbers = itertools.count()


def write(path: Path, text: str) -> Path:
    """Write a file, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text).lstrip())
    return path


def message(error: pytest.ExceptionInfo[RegistryError]) -> str:
    """Return what an error says, which is one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def install_metadata(site: Path, package: str, entry_point: str, group: str) -> None:
    """Install a distribution with an entry point, ``"name = module:attribute"``, as pip would."""
    info = site / f"{package}-1.0.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    write(info / "entry_points.txt", f"[{group}]\n{entry_point}\n")


def install_provider(
    site: Path, name: str, code: str, group: str, reference: str | None = None
) -> str:
    """Install a package with a provider, ``get`` of `code` by default; return its reference."""
    module = f"provider_{next(_numbers)}"
    write(site / f"{module}.py", code)
    reference = reference or f"{module}:get"
    install_metadata(site, module, f"{name} = {reference}", group)
    return reference
