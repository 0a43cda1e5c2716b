"""One entry of the registry: how it is made and described, and what a mistake says."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.lj import LennardJones

from aserpc.entries import CalculatorEntry, absolute_paths, load_factory
from aserpc.errors import RegistryError
from aserpc.registry import resolve
from support.packages import message, write

pytestmark = pytest.mark.usefixtures("folder")


# ------------------------------------------------------------------------------------- entries


def test_a_partial_is_described_with_its_arguments() -> None:
    entry = CalculatorEntry("a", partial(LennardJones, sigma=2.0), (), {"rc": 5.0})
    assert entry.factory_path == "ase.calculators.lj:LennardJones"
    assert entry.describe()["kwargs"] == {"sigma": 2.0, "rc": 5.0}


def test_a_description_is_plain_and_the_same_everywhere() -> None:
    value = {"a": np.arange(3), "p": Path("x"), 1: (np.float64(2), object(), LennardJones, 1j)}
    described = CalculatorEntry("a", partial, (value,)).describe()
    assert described["args"] == [
        {
            "a": [0, 1, 2],
            "p": "x",
            "1": [2.0, "<object object>", "ase.calculators.lj:LennardJones", "1j"],
        }
    ]
    json.dumps(described)


def test_a_method_is_a_factory(folder: Path) -> None:
    text = """
        from ase.calculators.emt import EMT
        class Maker:
            @classmethod
            def small(cls): return EMT()
    """
    write(folder / "methods.py", text)
    entry = resolve("methods:Maker.small")
    assert (entry.name, entry.factory_path) == ("small", "methods:Maker.small")
    assert entry.make().name == "emt"


@pytest.mark.parametrize(
    ("factory", "kwargs", "words"),
    [
        (lambda: None, {}, ["returned None", "no get_property"]),
        (lambda: LennardJones, {}, ["the class LennardJones, not an instance"]),
        (lambda: 3, {}, ["3 (int)"]),
        (LennardJones, {"sigm\n": 1, "neighbor_list": 2, "atoms": 3}, ["failed:"]),
        (lambda **_: sys.exit(1), {}, ["sys.exit(1)"]),
        (lambda: 1 / 0, {}, ["ZeroDivisionError: division by zero"]),
        ("math:pi", {}, ["math:pi is 3.14", "not callable"]),
        ("math:pie", {}, ["math has no 'pie'; pi is probably meant"]),
    ],
)
def test_a_factory_that_makes_no_calculator_is_named(
    factory: Any, kwargs: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(RegistryError) as error:
        CalculatorEntry("mine", factory, (), kwargs).make()
    for word in ["'mine'", *words]:
        assert word in message(error)


def test_the_factorys_own_error_is_the_cause() -> None:
    with pytest.raises(RegistryError) as error:
        CalculatorEntry("mine", lambda: {"a": 1}["b"]).make()
    assert isinstance(error.value.__cause__, KeyError)


def test_ctrl_c_is_no_registry_error() -> None:
    def factory() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CalculatorEntry("mine", factory).make()


def test_versions() -> None:
    versions = CalculatorEntry("a", "msgpack:Packer").versions()
    assert {"ase", "numpy", "aserpc", "msgpack"} == set(versions)
    assert all(version[0].isdigit() for version in versions.values())
    assert set(CalculatorEntry("a", "nothing:f").versions()) == {"ase", "numpy", "aserpc"}


def test_a_runtime_that_is_loaded_counts_though_another_package_requires_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "torch.py", "")
    write(folder / "torch-9.1+cpu.dist-info/METADATA", "Name: torch\nVersion: 9.1+cpu\n")
    write(folder / "lazy.py", "def make():\n    import torch\n    return print\n")
    monkeypatch.syspath_prepend(str(folder))
    entry = CalculatorEntry("a", "lazy:make")
    assert "torch" not in entry.versions()
    entry.load()()
    assert entry.versions()["torch"] == "9.1+cpu"


def test_load_factory(folder: Path) -> None:
    write(folder / "factories.py", "def make(): return 1")
    assert load_factory("factories.py:make")() == 1
    assert load_factory("factories:make")() == 1
    assert load_factory("ase.calculators.lj:LennardJones") is LennardJones


# --------------------------------------------------------------------------------------- paths


def test_paths_become_absolute_in_nested_values(folder: Path) -> None:
    write(folder / "models/big.model", "")
    write(folder / "my.model", "")
    value = {"a": ["my.model", ("./models", "models/big.model")], "b": 3, "c": Path("my.model")}
    assert absolute_paths(value, folder) == {
        "a": [f"{folder}/my.model", (f"{folder}/models", f"{folder}/models/big.model")],
        "b": 3,
        "c": folder / "my.model",
    }


@pytest.mark.parametrize(
    "value",
    ["medium", "plain", "a.folder", ".", "none.model", "none/x.model", "https://x.org/y", "/", "",
     "a\0b/", "x" * 5000 + "/y", Path("none"), None, True, b"my.model", {1}],
)  # fmt: skip
def test_what_names_no_file_stays_as_it_is(folder: Path, value: Any) -> None:
    for name in ("medium", "a.folder", "my.model"):
        (folder / name).mkdir()
    write(folder / "plain", "")
    assert absolute_paths(value, folder) == value
