"""Where spawn configurations come from, and what a mistake there says."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest

from aserpc.entries import load_factory
from aserpc.errors import RegistryError
from aserpc.registry import load_registry
from aserpc.spawn import SpawnConfig, sources
from aserpc.spawn.own import own_requirement
from aserpc.spawn.sources import discover_spawn_configs, get_spawn_configs, load_spawn_registry
from aserpc.spawn.uvx import find_uv
from support.packages import install_provider, message, write

pytestmark = pytest.mark.usefixtures("folder")

EXAMPLES = Path(__file__).parents[2] / "registry_examples"
MODELS = ["chgnet", "d4_pbe", "gfn2", "mace_mp", "mattersim", "orb_v3", "sevennet", "uma_omat"]


# ---------------------------------------------------------------------------------------- TOML


def test_a_table_with_the_keys_of_both(folder: Path) -> None:
    write(
        folder / "site.toml",
        """
        [calculators.mace_mp]
        factory = "mace.calculators:mace_mp"
        kwargs = {model = "medium"}
        packages = ["mace-torch==0.3.16"]
        python = "3.11"
        max_workers = 2
        gpus = 1
        """,
    )
    config = load_spawn_registry("site.toml")["mace_mp"]
    assert config == SpawnConfig(
        "mace_mp",
        cwd=str(folder),
        factory="mace.calculators:mace_mp",
        kwargs={"model": "medium"},
        packages=["mace-torch==0.3.16"],
        python="3.11",
        max_workers=2,
        gpus=1,
    )
    assert config.source == "site.toml"
    assert load_registry("site.toml")["mace_mp"].kwargs == {"model": "medium"}


def test_paths_start_from_the_files_folder(folder: Path) -> None:
    write(
        folder / "sub/site.toml",
        """
        [calculators.a]
        venv = "env"
        cwd = "runs/{name}"
        kwargs = {model = "model.pt", size = "medium", list = ["model.pt"]}
        [calculators.b]
        packages = ["./package", "numpy>=1", "x @ file:///y", "./gone"]
        factory = "calc.py:make"
        [calculators.c]
        venv = "~/env"
        cwd = "/abs"
        """,
    )
    (folder / "sub/package").mkdir()
    (folder / "sub/medium").mkdir()
    (folder / "sub/model.pt").touch()
    sub = folder / "sub"
    found = load_spawn_registry("sub/site.toml")
    assert (found["a"].venv, found["a"].cwd) == (f"{sub}/env", f"{sub}/runs/{{name}}")
    model = f"{sub}/model.pt"
    assert found["a"].kwargs == {"model": model, "size": "medium", "list": [model]}
    assert found["b"].packages == [f"{sub}/package", "numpy>=1", "x @ file:///y", "./gone"]
    assert (found["b"].factory, found["b"].cwd) == (f"{sub}/calc.py:make", str(sub))
    assert (found["c"].venv, found["c"].cwd) == ("~/env", "/abs")


def test_a_plain_registry_is_served_from_the_managers_environment() -> None:
    found = load_spawn_registry(f"{EXAMPLES}/calculators.toml")
    assert {config.kind for config in found.values()} == {"own"}


def test_a_table_without_a_factory_is_the_managers_only(folder: Path) -> None:
    write(
        folder / "site.toml",
        """
        [calculators.dftd4]
        packages = ["dftd4"]
        [calculators.script]
        command = ["./run.sh"]
        [calculators.EMT]
        factory = "ase.calculators.emt:EMT"
        """,
    )
    assert set(load_spawn_registry("site.toml")) == {"dftd4", "script", "EMT"}
    assert set(load_registry("site.toml")) == {"EMT"}


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ('pakages = ["x"]', "unknown key 'pakages'; 'packages' is probably meant"),
        ("max_worker = 2", "unknown key 'max_worker'; 'max_workers' is probably meant"),
        ("python = 3.10", 'has python = 3.1 (float); it must be text, as "3.10"'),
        ('command = "aserpc worker x"', "list of words"),
        ('command = ["c"]\nfactory = "m:f"', "a command and also factory"),
        ("kwargs = {day = 2024-01-01}", "datetime.date(2024, 1, 1)"),
        ("env = {A = 1}", "a variable is a text: '1'"),
        ('factory = "m"', "names nothing to import"),
        ('factory = "m.f"', "'m:f' is probably meant"),
    ],
)
def test_a_mistake_in_a_table_is_said_in_a_line(folder: Path, table: str, problem: str) -> None:
    (folder / "site.toml").write_text(f"[calculators.x]\n{table}\n")
    with pytest.raises(RegistryError) as caught:
        load_spawn_registry("site.toml")
    assert message(caught).startswith("registry site.toml: ")
    assert problem in message(caught)


def test_all_mistakes_are_said_at_once(folder: Path) -> None:
    write(
        folder / "site.toml",
        """
        [calculators]
        number = 5
        [calculators.x]
        gpus = -1
        [calculators.y]
        max_workers = 0
        """,
    )
    with pytest.raises(RegistryError) as caught:
        load_spawn_registry("site.toml")
    for problem in ("'number' is 5", "'x' has gpus = -1", "'y' has max_workers = 0"):
        assert problem in message(caught)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[calculator.x]", "has 'calculator' in it; its tables are [calculators.NAME]"),
        ("", "is empty; write tables [calculators.NAME]"),
        ("[calculators.x", "is no valid TOML"),
    ],
)
def test_a_broken_file(folder: Path, text: str, problem: str) -> None:
    (folder / "site.toml").write_text(text)
    with pytest.raises(RegistryError) as caught:
        load_spawn_registry("site.toml")
    assert problem in message(caught)


def test_a_missing_file() -> None:
    with pytest.raises(RegistryError, match="cannot be read: No such file"):
        load_spawn_registry("nowhere.toml")


# -------------------------------------------------------------------------- registries in Python


PYTHON = """
    from aserpc.spawn import SpawnConfig

    CONFIGS = {"lj": SpawnConfig("lj", ["aserpc", "worker", "LJ", "-n", "lj"], cwd=".", venv=None)}

    def get_spawn_configs():
        return CONFIGS
"""


@pytest.mark.parametrize("attribute", ["CONFIGS", "get_spawn_configs"])
def test_a_file(folder: Path, attribute: str) -> None:
    write(folder / "sub/spawning.py", PYTHON)
    found = load_spawn_registry(f"sub/spawning.py:{attribute}")
    assert found["lj"].source == f"spawning.py:{attribute}"
    assert found["lj"].cwd == str(folder / "sub")


def test_a_module(folder: Path) -> None:
    write(folder / "spawning_module.py", PYTHON)
    for read in (load_spawn_registry, get_spawn_configs):
        config = read("spawning_module:get_spawn_configs")["lj"]
        assert (config.source, config.cwd) == ("spawning_module:get_spawn_configs", ".")


def test_tables_in_python(folder: Path) -> None:
    write(folder / "r.py", "T = {'emt': {'factory': 'ase.calculators.emt:EMT', 'max_workers': 2}}")
    config = load_spawn_registry("r.py:T")["emt"]
    assert (config.factory, config.max_workers) == ("ase.calculators.emt:EMT", 2)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("{'x': print}", "calculator 'x' is <built-in function print>"),
        ("{'x': SpawnConfig('y', ['c'])}", "'x' has the configuration of 'y'"),
        ("[1]", "not a dict of names and spawn configurations"),
        ("{5: SpawnConfig('y', ['c'])}", "5 (int) is no calculator name"),
        ("lambda: 1 / 0", "ZeroDivisionError"),
        ("lambda: SpawnConfig('n', 'c')", "a list of words"),
    ],
)
def test_a_mistake_in_python(folder: Path, value: str, problem: str) -> None:
    write(folder / "r.py", f"from aserpc.spawn import SpawnConfig\nT = {value}\n")
    with pytest.raises(RegistryError) as caught:
        load_spawn_registry("r.py:T")
    assert problem in message(caught)


# --------------------------------------------------------------------------------- entry points


def install(folder: Path, name: str, code: str) -> str:
    code = f"from aserpc.spawn import SpawnConfig\n{dedent(code)}"
    return install_provider(folder, name, code, "aserpc.spawn")


def test_providers(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    first = install(folder, "spawn_a", "def get(): return {'x': SpawnConfig('x', ['a'])}")
    install(
        folder,
        "spawn_b",
        """
        def get():
            return {'x': SpawnConfig('x', ['b']), 'y': SpawnConfig('y', ['b']), 'z': 5}
        """,
    )
    install(folder, "spawn_c", "raise RuntimeError('broken')")
    configs, failures = discover_spawn_configs()
    assert {name: config.command for name, config in configs.items()} == {"x": ["a"], "y": ["b"]}
    assert configs["x"].source == f"entry point 'spawn_a' ({first})"
    problems: dict[str, list[str]] = {"spawn_b": [], "spawn_c": []}
    for failure in failures:
        problems[failure.provider.split("'")[1]].append(failure.error)
    assert [len(problems[name]) for name in ("spawn_b", "spawn_c")] == [2, 1]
    assert "'z' is 5" in problems["spawn_b"][0]
    assert "its 'x' is not used; there is one from entry point 'spawn_a'" in problems["spawn_b"][1]
    assert "broken" in problems["spawn_c"][0]

    with caplog.at_level(logging.WARNING):
        assert get_spawn_configs() == configs
    assert len(caplog.records) == len(failures)


def test_without_providers_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "entry_points", lambda group, failures: [])
    assert get_spawn_configs() == {}


# ------------------------------------------------------------------------------------ examples


def example(name: str) -> dict[str, SpawnConfig]:
    return load_spawn_registry(f"{EXAMPLES}/{name}")


def test_the_models_of_the_example() -> None:
    found = example("spawn_uvx.toml")
    assert sorted(found) == MODELS
    for config in found.values():
        rendered = config.render(broker="ipc:///b", spawn_id="i")
        own = list(own_requirement().uv_options)
        assert rendered.command[1:5] == [*own, "--python", "3.11"]
        assert config.factory in rendered.command
    assert found["orb_v3"].factory == f"{EXAMPLES}/orb.py:orb"


def test_the_factory_of_orb_loads_the_model_that_its_calculator_takes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    write(folder / "torch.py", "class cuda:\n    is_available = staticmethod(lambda: False)\n")
    package = folder / "orb_models" / "forcefield"
    for init in (package.parent / "__init__.py", package / "__init__.py"):
        write(init, "")
    write(package / "pretrained.py", "ORB_PRETRAINED_MODELS = {'m': lambda device: ('m', device)}")
    write(package / "calculator.py", "def ORBCalculator(*args, **kwargs): return args, kwargs")
    orb = load_factory(str(example("spawn_uvx.toml")["orb_v3"].factory))
    assert orb("m") == ((("m", "cpu"),), {"device": "cpu"})


def test_the_example_in_python() -> None:
    found = example("spawn.py:get_spawn_configs")
    assert {"lj", "argon", "copper", "gfn2-0.01"} <= set(found)
    rendered = found["argon"].render(broker="ipc:///b", spawn_id="i")
    assert rendered.command[-4:] == ["--broker", "ipc:///b", "--idle-timeout", "300.0"]
    assert '{"sigma": 3.4, "epsilon": 0.0103, "rc": 8.5}' in rendered.command


def resolved(packages: list[str], folder: Path) -> str:
    """Return what `uv pip compile` makes of some requirements together with our own."""
    requirements = write(folder / "requirements.txt", "\n".join([*packages, "aserpc"]))
    overrides = write(folder / "own.txt", f"aserpc @ {EXAMPLES.parent.as_uri()}")
    options = ["--quiet", "--python-version", "3.11", "--overrides", str(overrides)]
    done = subprocess.run(
        [find_uv("uv"), "pip", "compile", *options, str(requirements)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "UV_HTTP_RETRIES": "1"},
    )
    offline = any(w in done.stderr for w in ("error sending request", "dns error", "Connect"))
    if offline and not os.environ.get("CI"):  # there it is a failure
        pytest.skip("the package index is out of reach")
    return done.stdout if done.returncode == 0 else done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_requirements_of_the_examples_resolve(name: str, folder: Path) -> None:
    packages = example("spawn_uvx.toml")[name].packages or []
    found = resolved(packages, folder)
    for package in packages:
        assert package in found


@pytest.mark.slow
def test_the_conflicting_models_conflict_only_together(folder: Path) -> None:
    both = {name: config.packages or [] for name, config in example("conflicting.toml").items()}
    assert "e3nn==0.4.4" in resolved(both["mace"], folder)
    assert "e3nn==0.4.4" not in resolved(both["sevennet"], folder)
    assert "are incompatible" in " ".join(
        resolved([*both["mace"], *both["sevennet"]], folder).split()
    )
