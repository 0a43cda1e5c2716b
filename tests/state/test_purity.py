"""States decide and do nothing else: what they may import, and what the packages may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import aserpc

ROOT = Path(aserpc.__file__).parent

BROKER = (
    "tables", "peers", "records", "answers", "clients", "requests", "ahead", "orphans", "deaths",
    "workers", "managers", "roster", "restart", "state", "effects", "snapshot", "queues",
)  # fmt: skip
MESSAGES = ("__init__", "base", "client", "manager", "requests", "sides", "worker")
PURE = [
    *(f"broker/{name}.py" for name in BROKER),
    "manager/tables.py",
    "manager/devices.py",
    "manager/fleets.py",
    "manager/records.py",
    "manager/state.py",
    "worker/batching.py",
    "worker/given.py",
    "worker/state.py",
    "client/state.py",
    "client/needs.py",
    "client/failures.py",
    "errors.py",
    "header.py",
    *(f"messages/{name}.py" for name in MESSAGES),
    "nesting.py",
    "security/roles.py",
    "slow_links.py",
    "timers.py",
]
FORBIDDEN = {
    "ase", "asyncio", "multiprocessing", "random", "select", "selectors", "signal", "socket",
    "subprocess", "threading", "time", "zmq",
}  # fmt: skip
PACKAGES = ("broker", "worker", "client", "manager")


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, also in its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def file_of(module: str) -> Path | None:
    """Return a module's file; None for a name in a module."""
    path = ROOT.parent / module.replace(".", "/")
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.exists()), None)


@pytest.mark.parametrize("name", PURE)
def test_a_state_imports_no_clock_socket_or_calculator(name: str) -> None:
    assert {module.split(".")[0] for module in imports(ROOT / name)}.isdisjoint(FORBIDDEN)


@pytest.mark.parametrize("name", PURE)
def test_a_state_imports_of_aserpc_only_what_is_pure_too(name: str) -> None:
    pure = {ROOT / other for other in PURE}
    # rebuild() knows the names of ASE's exceptions and imports ASE when there is one to raise.
    pure.add(ROOT / "remote_error.py")
    # A configuration's values; what renders it is not called.
    pure.update((ROOT / "spawn/__init__.py", ROOT / "spawn/config.py"))
    ours = {module for module in imports(ROOT / name) if module.startswith("aserpc.")}
    assert {file for module in ours if (file := file_of(module)) is not None} <= pure


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_do_not_import_each_other(package: str) -> None:
    others = tuple(f"aserpc.{other}" for other in PACKAGES if other != package)
    for path in (ROOT / package).glob("**/*.py"):
        for module in imports(path):
            assert not f"{module}.".startswith(tuple(f"{o}." for o in others)), path
