"""Calls of uvx: found in commands, and given our own aserpc."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest

import aserpc
from aserpc.errors import SpawnError
from aserpc.spawn.own import OwnRequirement, own_command, own_requirement
from aserpc.spawn.uvx import find_call, find_uv

OWN = OwnRequirement("aserpc==9")
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "words",
    [
        "uvx aserpc worker LJ",
        "uvx --with tblite aserpc worker LJ",
        "uvx -w tblite -w=dftd4 --with=x,y aserpc worker LJ",
        "uvx --with aserpc aserpc worker LJ",
        "uvx --from aserpc aserpc worker LJ",
        "uvx --from aserpc[test] aserpc worker LJ",
        "uvx --with aserpc-example aserpc worker LJ",
        "uvx --offline --no-index -q --python 3.11 -p3.11 --index https://x/aserpc aserpc worker",
        "uvx --no-build-package x --isolated -U -- aserpc worker LJ",
        "uv tool run --with tblite aserpc worker LJ",
        "/opt/uv/bin/uvx --with tblite aserpc worker LJ",
        "srun --gres gpu:1 uvx --with tblite aserpc worker LJ",
        "env A=1 uv tool run aserpc worker LJ",
    ],
)
def test_a_call_gets_our_own(words: str) -> None:
    command = words.split()
    call = find_call(command)
    assert call is not None
    at = 1 + max(i for i, w in enumerate(command) if w.endswith("uvx") or w == "run")
    assert call.command(OWN) == [*command[:at], "--with", "aserpc==9", *command[at:]]
    assert call.command(None) == command


@pytest.mark.parametrize(
    "words",
    [
        "uvx aserpc@0.1.3 worker LJ",
        "uvx aserpc==0.1.3 worker LJ",
        "uvx aserpc@latest worker LJ",
        "uvx --from aserpc==0.1.3 aserpc worker LJ",
        "uvx --from=aserpc>=0.2 aserpc worker LJ",
        "uvx --from ./fork aserpc worker LJ",
        "uvx --from git+https://x/aserpc aserpc worker LJ",
        "uvx --with tblite,aserpc==0.1.3 aserpc worker LJ",
        "uvx -waserpc[x]<1 aserpc worker LJ",
    ],
)
def test_a_call_that_says_which_aserpc_keeps_it(words: str) -> None:
    call = find_call(words.split())
    assert call is not None
    assert call.command(OWN) == words.split()


@pytest.mark.parametrize(
    "words",
    [
        "aserpc worker LJ",
        "uvx",
        "uvx --with aserpc",
        "uvx ruff aserpc",
        "uvx --with aserpc python -m x",
        "uv run aserpc worker LJ",
        "bash -c uvx\\ aserpc",
        "uvx aserpcx",
    ],
)
def test_no_call_of_aserpc(words: str) -> None:
    assert find_call(words.split()) is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("uvx --with x aserpc worker LJ", "uvx --from aserpc --offline --with x python -V"),
        ("uvx --from a aserpc worker LJ", "uvx --offline --from a python -V"),
        ("uvx aserpc@0.1.3 worker", "uvx --from aserpc==0.1.3 --offline python -V"),
        ("uvx aserpc@latest worker", "uvx --from aserpc --offline python -V"),
    ],
)
def test_something_else_in_the_same_environment(words: str, expected: str) -> None:
    call = find_call(words.split())
    assert call is not None
    assert call.command(None, "--offline", tool=["python", "-V"]) == expected.split()


def test_uv_beside_the_manager_is_found_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(SpawnError, match="`pip install uv` in the environment of the manager"):
        find_uv(path=str(tmp_path / "nowhere"))
    (tmp_path / "uvx").touch()
    assert find_uv(path=str(tmp_path / "nowhere")) == str(tmp_path / "uvx")


# ----------------------------------------------------------------------------- where we are from


def test_this_checkout_is_our_own() -> None:
    assert own_requirement() == OwnRequirement(str(REPOSITORY), is_tree=True)
    assert own_requirement().uv_options == ("--with-editable", str(REPOSITORY))


def test_a_comma_in_the_path_of_a_tree() -> None:
    options = OwnRequirement("/a b/c,d", is_tree=True).uv_options
    assert options == ("--with-editable", "file:///a%20b/c%2Cd")


class Distribution:
    version = "0.2.0"

    def __init__(self, direct: str | None) -> None:
        self.direct = direct

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.direct


@pytest.mark.parametrize(
    ("direct", "expected"),
    [
        (None, OwnRequirement("aserpc==0.2.0")),
        (
            '{"url": "https://h/aserpc.whl", "archive_info": {}}',
            OwnRequirement("aserpc @ https://h/aserpc.whl"),
        ),
        (
            '{"url": "file://HERE/a%20b.whl", "archive_info": {}}',
            OwnRequirement("aserpc @ file://HERE/a%20b.whl"),
        ),
        ('{"url": "file://HERE/gone.whl", "archive_info": {}}', OwnRequirement("aserpc==0.2.0")),
        ('{"url": "file://HERE", "dir_info": {}}', OwnRequirement("HERE", is_tree=True)),
        ('{"url": "file://HERE/gone", "dir_info": {}}', OwnRequirement("aserpc==0.2.0")),
        (
            '{"url": "https://h/r", "vcs_info": {"vcs": "git", "commit_id": "abc"},'
            ' "subdirectory": "py"}',
            OwnRequirement("aserpc @ git+https://h/r@abc#subdirectory=py"),
        ),
    ],
)
def test_where_an_installed_one_comes_from(
    direct: str | None, expected: OwnRequirement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def distribution(name: str) -> Any:
        return Distribution(direct and direct.replace("HERE", str(tmp_path)))

    (tmp_path / "a b.whl").touch()
    monkeypatch.setattr(aserpc, "__file__", str(tmp_path / "lib/aserpc/__init__.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    text = expected.text.replace("HERE", str(tmp_path))
    assert own_requirement() == OwnRequirement(text, is_tree=expected.is_tree)


def test_one_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(aserpc, "__file__", str(tmp_path / "aserpc/__init__.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    with pytest.raises(SpawnError, match="is not installed"):
        own_requirement()


def test_our_own_command_is_the_script_beside_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert own_command() == [str(tmp_path / "python"), "-m", "aserpc"]
    (tmp_path / "aserpc").touch()
    assert own_command() == [str(tmp_path / "aserpc")]
