"""Providers: what is found of them, and that a failing one breaks nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from aserpc.errors import RegistryError
from aserpc.registry import discover, resolve
from support.packages import install_metadata, install_provider, write

pytestmark = pytest.mark.usefixtures("folder")

EXAMPLES = Path(__file__).parents[2] / "registry_examples"


def provider(site: Path, name: str, code: str, value: str | None = None) -> None:
    install_provider(site, name, code, "aserpc.calculators", value)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    return path


def test_our_own_provider_is_found() -> None:
    entries, failures = discover()
    assert failures == []
    assert entries["LJ"].factory_path == "ase.calculators.lj:LennardJones"
    assert "aserpc.calculators:get_calculators" in entries["LJ"].source


def test_a_provider_is_found(site: Path) -> None:
    code = "def get(): return {'mine': {'factory': 'a.b:C', 'args': [1], 'kwargs': {'k': 2}}}"
    provider(site, "my", code)
    entries, failures = discover()
    assert failures == []
    entry = entries["mine"]
    assert (entry.factory, entry.args, entry.kwargs) == ("a.b:C", (1,), {"k": 2})
    assert entry.source.startswith("entry point 'my'")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ValueError('no good')", ["provider", ":1: ValueError: no good"]),
        ("def get(:", ["SyntaxError"]),
        ("import torch_of_nobody", ["torch_of_nobody", "install it"]),
        ("def get(): raise SystemExit(3)", ["sys.exit(3)"]),
        ("import sys; sys.exit('bye')", ["sys.exit('bye')"]),
        ("def get(): return [1]", ["[1] (list)", "not a dict"]),
        ("def get(x): return {}", ["TypeError"]),
        ("def got(): return {}", ["no 'get'", "got is probably meant"]),
        ("def get(): return {'a': {'args': []}}", ["'a' has no factory"]),
        ("def get(): return {'a': {'factory': 'a.b.C'}}", ["'a.b:C' is probably meant"]),
        ("def get(): return {'a': {'factory': 3}}", ["3 (int)", "not callable"]),
        ("def get(): return {'a': {'factory': 'a:b', 'kwarg': {}}}", ["'kwarg'", "'kwargs'"]),
        ("def get(): return {'a': {'factory': 'a:b', 'args': 'xy'}}", ["'xy'", "give a list"]),
        ("def get(): return {'a': {'factory': 'a:b', 'kwargs': [1]}}", ["[1] (list)"]),
        ("def get(): return {3: print}", ["3 (int)", "no calculator name"]),
    ],
)
def test_a_failing_provider_breaks_nobody_else(site: Path, code: str, words: list[str]) -> None:
    provider(site, "broken", code)
    provider(site, "good", "def get(): return {'good': {'factory': 'a.b:C'}}")
    entries, failures = discover()
    assert {"good", "LJ"} <= set(entries)
    (failure,) = failures
    assert failure.provider.startswith("entry point 'broken'")
    assert "\n" not in failure.error
    for word in words:
        assert word in failure.error


def test_a_bad_entry_hides_no_good_one_beside_it(site: Path) -> None:
    provider(site, "half", "def get(): return {'a': 3, 'b': {'factory': 'x:y', 'about': 'B'}}")
    entries, failures = discover()
    assert "b" in entries
    assert "a" not in entries
    assert len(failures) == 1


def test_of_two_with_one_name_the_first_is_used_and_ours_is_last(site: Path) -> None:
    provider(site, "zz", "def get(): return {'LJ': {'factory': 'z:z'}}")
    provider(site, "bb", "def get(): return {'LJ': {'factory': 'b:b'}}")
    entries, failures = discover()
    assert entries["LJ"].factory == "b:b"
    assert [failure.provider.split()[2] for failure in failures] == ["'zz'", "'aserpc'"]
    assert all("'LJ' is not used" in failure.error for failure in failures)


def test_an_entry_point_may_name_a_dict_and_extras(site: Path) -> None:
    write(site / "plain.py", "TABLE = {'plain': print}")
    provider(site, "plain", "", value="plain:TABLE [extra]")
    assert discover()[0]["plain"].factory is print


def test_broken_metadata_of_a_stranger_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(**_: object) -> None:
        raise ValueError("malformed")

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    entries, failures = discover()
    assert "LJ" in entries
    assert "malformed" in failures[0].error


def test_the_example_package_is_found_without_being_imported(tmp_path: Path) -> None:
    source = EXAMPLES / "aserpc-example"
    text = (source / "pyproject.toml").read_text()
    value = text.split("aserpc-example = ")[1].split('"')[1]
    entry_point = f"aserpc-example = {value}"
    install_metadata(tmp_path / "site", "aserpc_example", entry_point, "aserpc.calculators")
    code = """
        import sys
        from aserpc.registry import discover
        entries, failures = discover()
        assert not failures, failures
        assert not {"ase", "numpy", "aserpc_example.trap"} & set(sys.modules)
        from ase import Atoms
        atoms = Atoms("Ar", [[1.0, 2.0, 2.0]])
        atoms.calc = entries["harmonic-trap"].make()
        print(atoms.get_potential_energy(), *atoms.get_forces()[0])
    """
    path = os.pathsep.join([str(source / "src"), str(tmp_path / "site")])
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["4.5", "-1.0", "-2.0", "-2.0"], done.stderr


def test_an_unknown_name_lists_what_there_is_nearest_first(site: Path) -> None:
    provider(site, "sick", "raise ValueError('no good')")
    with pytest.raises(RegistryError) as error:
        resolve("LJJ")
    assert "no calculator 'LJJ' installed; there are LJ, " in str(error.value)
    assert "entry point 'sick'" in str(error.value)
    assert "no good" in str(error.value)
