"""Registries and names: what they say, and what a mistake says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ase.build import molecule
from ase.calculators.lj import LennardJones

from aserpc.errors import RegistryError
from aserpc.registry import load_registry, resolve
from aserpc.worker import Worker
from support.packages import message, write

pytestmark = pytest.mark.usefixtures("folder")

EXAMPLES = Path(__file__).parents[2] / "registry_examples"


# ------------------------------------------------------------------------------ registry files


def test_the_registry_of_the_readme_of_0_1_3(folder: Path) -> None:
    write(
        folder / "tmp/registry.py",
        """
        from ase.calculators.lj import LennardJones

        CALCULATORS = {
            "LJ": LennardJones,
        }
        """,
    )
    entry = resolve("LJ", registry="tmp/registry.py:CALCULATORS")
    assert entry.source == "registry.py:CALCULATORS"
    assert entry.describe() == {
        "factory": "ase.calculators.lj:LennardJones",
        "args": [],
        "kwargs": {},
    }
    assert isinstance(entry.make(), LennardJones)


@pytest.mark.parametrize("name", ["LJ", "argon", "two-wells"])
def test_the_example_registry(name: str) -> None:
    atoms = molecule("H2O")
    atoms.calc = load_registry(f"{EXAMPLES}/registry.py:CALCULATORS")[name].make()
    assert atoms.get_potential_energy() != 0


def test_the_example_registries_agree() -> None:
    python = load_registry(f"{EXAMPLES}/registry.py:CALCULATORS")
    toml = load_registry(f"{EXAMPLES}/calculators.toml")
    described = [entries["argon"].describe() for entries in (python, toml)]
    assert described[0]["factory"] == described[1]["factory"]
    assert described[0]["kwargs"] == pytest.approx(described[1]["kwargs"], rel=1e-4)
    assert set(toml) == {"argon", "copper", "gfn2"}
    assert toml["gfn2"].kwargs == {"method": "GFN2-xTB", "accuracy": 0.1}


def test_a_function_that_returns_a_registry(folder: Path) -> None:
    write(folder / "r.py", "def table(): return {'p': print, 'q': {'factory': print}}")
    entries = load_registry("r.py:table")
    assert [entry.factory for entry in entries.values()] == [print, print]


def test_a_registry_in_a_module_of_the_current_folder(folder: Path) -> None:
    write(folder / "pkg_here/reg.py", "CALCS = {'a': print}")
    assert load_registry("pkg_here.reg:CALCS")["a"].source == "pkg_here.reg:CALCS"
    assert str(folder) in sys.path


def test_files_are_looked_for_in_the_base(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "base/r.py", "CALCS = {'a': print}")
    write(tmp_path / "base/r.toml", "[calculators.b]\nfactory = 'm:f'")
    assert "a" in load_registry("r.py:CALCS", base=tmp_path / "base")
    assert "b" in load_registry("r.toml", base=tmp_path / "base")


def test_a_file_imports_its_siblings_both_ways(folder: Path) -> None:
    write(folder / "sub/helper_a.py", "A = 1")
    write(folder / "sub/helper_b.py", "B = 2")
    text = "import helper_a\nfrom .helper_b import B\nR = {f'x{helper_a.A}{B}': print}"
    write(folder / "sub/with_siblings.py", text)
    assert list(load_registry("sub/with_siblings.py:R")) == ["x12"]


def test_a_file_is_imported_under_its_stem_once(folder: Path) -> None:
    write(folder / "stemmed.py", "class C: pass\nR = {'c': C}")
    entry = load_registry("stemmed.py:R")["c"]
    assert entry.factory_path == "stemmed:C"
    assert load_registry("./stemmed.py:R")["c"].factory is entry.factory
    assert resolve("stemmed.py:C").factory_path == "stemmed:C"


def test_a_file_never_replaces_another_module(folder: Path) -> None:
    write(folder / "json.py", "R = {'json': print}")
    write(folder / "a/twin.py", "R = {'a': print}")
    write(folder / "b/twin.py", "R = {'b': print}")
    assert list(load_registry("json.py:R")) == ["json"]
    assert sys.modules["json"] is json
    assert list(load_registry("a/twin.py:R")) == ["a"]
    assert list(load_registry("b/twin.py:R")) == ["b"]


def test_manager_keys_are_known(folder: Path) -> None:
    write(
        folder / "r.toml",
        """
        [calculators."my mace [large]"]
        factory = "mace.calculators:mace_mp"
        kwargs = { model = "large" }
        packages = ["mace-torch"]
        gpus = 1
        max_workers = 2
        """,
    )
    assert load_registry("r.toml")["my mace [large]"].kwargs == {"model": "large"}


def test_what_a_table_says_of_batches_is_the_worker_s(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        folder / "r.toml",
        """
        [calculators.a]
        factory = "ase.calculators.emt:EMT"
        max_batch = "auto"
        max_batch_atoms = 100
        batch_wait = 0.5
        """,
    )
    write(folder / "pyproject.toml", "[tool.aserpc]\nmax_batch = 9\nbatch_wait = 9")
    monkeypatch.setenv("ASERPC_MAX_BATCH_ATOMS", "50")
    worker = Worker("a", resolve("a", registry="r.toml"), batch_wait=0.1)
    assert (worker.max_batch, worker.max_batch_atoms, worker.batch_wait) == ("auto", 50, 0.1)
    assert Worker("b", resolve("EMT")).max_batch == 9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[calculators.a]\nargs = []", ["'a' has no factory"]),
        ("[calculators.a]\nfactory = 'm:f'\nkwarg = 1", ["'kwarg'", "'kwargs' is probably"]),
        ("[calculators.a]\nfactory = 'm:f'\nmax_worker = 1", ["'max_workers' is probably"]),
        ("[calculators.a]\nfactory = 'm:f'\nzzz = 1", ["'zzz'", "there are factory"]),
        ("[calculators.a]\nfactory = 'm:f'\nmax_batch = 0", ["has max_batch = 0 (int)"]),
        ("[calculators.a]\nfactory = 'm:f'\nbatch_wait = '1'", ["has batch_wait = '1'"]),
        ("[calculators.a]\nfactory = 3", ["3 (int)"]),
        ("[calculators]\na = 'm:f'", ["'a' is the text 'm:f'"]),
        ("[calculator.a]\nfactory = 'm:f'", ["'calculator'", "[calculators.NAME]"]),
        ("", ["is empty"]),
        ("[calc", ["no valid TOML"]),
        ("[calculators.'']\nfactory = 'm:f'", ["''", "no calculator name"]),
        ("[calculators.\"a\\nb\"]\nfactory = 'm:f'", ["no calculator name"]),
    ],
)
def test_a_mistake_in_a_toml_registry_is_named(folder: Path, text: str, words: list[str]) -> None:
    write(folder / "r.toml", text)
    with pytest.raises(RegistryError) as error:
        load_registry("r.toml")
    for word in ["r.toml", *words]:
        assert word in message(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n\nR = {'a': undefined}", ["bad.py:3: NameError", "'undefined'"]),
        ("R = {\n", ["bad.py:1: SyntaxError"]),
        ("import json\n\njson.loads('{')", ["bad.py:3: JSONDecodeError"]),
        ("import nothing_of_that_name", ["bad.py:1: ModuleNotFoundError", "install it"]),
        ("raise SystemExit", ["bad.py:1: it ended with sys.exit(None)"]),
        ("def R(): return 1 / 0", ["bad.py:1: ZeroDivisionError"]),
        ("R = {'a': None}", ["None, which is not callable"]),
        ("R = [1]", ["not a dict"]),
        ("r = {}", ["no 'R'", "r is probably meant"]),
        ("class Table:\n    def __getattr__(self, n): raise OSError('x')\nR = Table()", ["not"]),
    ],
)
def test_a_mistake_in_a_python_registry_is_named(folder: Path, text: str, words: list[str]) -> None:
    (folder / "bad.py").write_text(text)
    with pytest.raises(RegistryError) as error:
        load_registry("bad.py:R")
    for word in ["bad.py", *words]:
        assert word in message(error)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("none.py:R", ["no file", "none.py"]),
        ("none.toml", ["none.toml cannot be read", "No such file"]),
        ("none.py", ["write none.py:NAME"]),
        ("none", ["module:NAME or file.py:NAME"]),
        ("a/b:R", ["file.py:NAME"]),
        ("none_pkg.reg:R", ["no module 'none_pkg'", "install it"]),
        ("ase.calculators.nothing:R", ["no module 'ase.calculators.nothing'"]),
        ("ase.calculators.lj:", ["module:NAME"]),
        (":R", ["module:NAME"]),
        ("", ["module:NAME"]),
        ("a b:R", ["module:NAME"]),
    ],
)
def test_a_reference_to_nothing_is_named(reference: str, words: list[str]) -> None:
    with pytest.raises(RegistryError) as error:
        load_registry(reference)
    for word in words:
        assert word in message(error)


def test_a_file_that_hides_an_installed_package_is_named(folder: Path) -> None:
    write(folder / "tblite.py", "from tblite.ase import TBLite")
    with pytest.raises(RegistryError, match=r"tblite\.py hides the installed package tblite"):
        load_registry("tblite.py:R")


# ------------------------------------------------------------------------------------- resolve


def test_a_name_in_another_case_is_served_as_it_was_written() -> None:
    entry = resolve("lj")
    assert (entry.name, entry.factory_path) == ("lj", "ase.calculators.lj:LennardJones")


def test_an_ambiguous_case_is_refused(folder: Path) -> None:
    write(folder / "cases.py", "R = {'ab': print, 'AB': print, 'c': print}")
    assert resolve("AB", registry="cases.py:R").name == "AB"
    with pytest.raises(RegistryError, match=r"there are ab, AB$"):
        resolve("Ab", registry="cases.py:R")


def test_a_name_to_serve_it_as() -> None:
    assert resolve("LJ", name="my [lj] ä").name == "my [lj] ä"
    for bad in ("", "a\nb", "a\x7f", "ü" * 128, "\ud800"):
        with pytest.raises(RegistryError, match="no calculator name"):
            resolve("LJ", name=bad)


def test_arguments_replace_and_update_those_of_the_registry(folder: Path) -> None:
    text = "R = {'a': {'factory': print, 'args': [1, 2], 'kwargs': {'x': 1, 'y': 1}}}"
    write(folder / "arguments.py", text)
    entry = resolve("a", registry="arguments.py:R", args=[3], kwargs={"y": 2, "z": 2})
    assert (entry.args, entry.kwargs) == ((3,), {"x": 1, "y": 2, "z": 2})
    entry = resolve("a", registry="arguments.py:R", args=[])
    assert (entry.args, entry.kwargs) == ((), {"x": 1, "y": 1})


def test_arguments_replace_those_of_a_partial_too(folder: Path) -> None:
    write(
        folder / "partials.py",
        "from functools import partial\nR = {'a': partial(dict, [(1, 2)], x=1)}",
    )
    entry = resolve("a", registry="partials.py:R", args=[], kwargs={"y": 2})
    assert entry.describe() == {"factory": "builtins:dict", "args": [], "kwargs": {"x": 1, "y": 2}}


@pytest.mark.parametrize(("args", "kwargs"), [("xy", None), (None, {1: 2}), (3, None)])
def test_arguments_of_the_wrong_kind_are_refused(args: Any, kwargs: Any) -> None:
    with pytest.raises(RegistryError, match="of 'LJ' are"):
        resolve("LJ", args=args, kwargs=kwargs)


def test_a_factory_by_its_path_is_not_imported_yet() -> None:
    entry = resolve("nothing.at.all:Calculator", kwargs={"a": 1})
    assert (entry.name, entry.source) == ("Calculator", "command line")
    with pytest.raises(RegistryError, match="no module 'nothing'"):
        entry.make()


def test_a_factory_in_a_file_is_found_from_another_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "maker.py", "import used_later\nfrom ase.calculators.emt import EMT\nmake = EMT")
    write(folder / "used_later.py", "")
    entry = resolve("maker.py:make", name="x")
    monkeypatch.chdir(tmp_path)
    assert entry.make().name == "emt"


def test_modules_of_the_folder_are_found_from_another_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "made_here.py", "from ase.calculators.emt import EMT")
    entry = resolve("made_here:EMT")
    monkeypatch.chdir(tmp_path)
    assert entry.make().name == "emt"


def test_a_known_calculator_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aserpc.calculators._is_installed", lambda factory: False)
    with pytest.raises(RegistryError, match="needs the package mace, which is not installed"):
        resolve("mace_mp")


def test_dots_instead_of_a_colon_are_understood() -> None:
    with pytest.raises(RegistryError, match=r"ase\.calculators\.lj:LennardJones meant"):
        resolve("ase.calculators.lj.LennardJones")


def test_relative_paths_of_the_arguments_become_absolute(folder: Path) -> None:
    write(folder / "models/my.model", "")
    entry = resolve("m:f", args=["models/my.model"], kwargs={"size": "models"})
    assert entry.args == (str(folder / "models/my.model"),)
    assert entry.kwargs == {"size": "models"}
