"""Spawn configurations: what they say, and the processes that come of it."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from aserpc.entries import BATCH_KEYS, ENTRY_KEYS, MANAGER_KEYS
from aserpc.errors import RegistryError, SpawnError
from aserpc.spawn import Rendered, SpawnConfig
from aserpc.spawn.own import OwnRequirement, own_command
from support import readme_of_0_1_3

TREE = OwnRequirement("/source", is_tree=True)
INDEX = OwnRequirement("aserpc==0.2.0")
UVX = ["uvx", "--with", "mace-torch", "aserpc", "worker", "mace.calculators:mace_mp"]


def render(config: SpawnConfig, own: OwnRequirement = TREE, gpu: str | None = None) -> Rendered:
    return config.render(broker="ipc:///b", spawn_id="id1", gpu=gpu, own=own)


def command(config: SpawnConfig, own: OwnRequirement = TREE) -> list[str]:
    """The command without where uv is."""
    first, *rest = render(config, own).command
    return [Path(first).name, *rest]


# -------------------------------------------------------------------------- as in aserpc 0.1.3


@pytest.mark.parametrize("name", ["mace_mp", "lj"])
def test_commands_of_its_readme_stay_verbatim(name: str) -> None:
    config = readme_of_0_1_3.get_spawn_configs()[name]
    assert config.render_command() == config.command


def test_its_lj_starts_the_managers_own_aserpc() -> None:
    rendered = render(readme_of_0_1_3.get_spawn_configs()["lj"])
    worker = ["worker", "ase.calculators.lj:LennardJones", "--name", "lj"]
    assert rendered.command == [*own_command(), *worker]
    assert rendered.cwd is None
    assert rendered.env == {
        "ASERPC_IPC_BACKEND": "ipc:///b",
        "ASERPC_IDLE_TIMEOUT": "60.0",
        "ASERPC_SPAWN_ID": "id1",
    }


def test_its_mace_gets_our_aserpc_and_keeps_its_json() -> None:
    found = command(readme_of_0_1_3.get_spawn_configs()["mace_mp"])
    json = ["--kwargs", '{"model": "medium"}']
    assert found == ["uvx", "--with-editable", "/source", *UVX[1:], *json]


def test_its_templates() -> None:
    words = ["aserpc", "worker", "{name}", "--broker", "{broker}", "--idle-timeout"]
    config = SpawnConfig("mace", [*words, "{idle_timeout}"])
    filled = ["aserpc", "worker", "mace", "--broker", "ipc:///x", "--idle-timeout", "300.0"]
    assert config.render_command("ipc:///x") == filled


def test_its_order_of_arguments() -> None:
    config = SpawnConfig("n", ["c"], {"K": "v"}, "/", 5)
    assert (config.env, config.cwd, config.idle_timeout) == ({"K": "v"}, "/", 5)
    assert (config.min_workers, config.max_workers, config.gpus) == (0, 1, 0)


def test_the_default_broker_is_that_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ASERPC_IPC_DIR", str(tmp_path))
    config = SpawnConfig("n", ["c", "{broker}"])
    assert config.render_command() == ["c", f"ipc://{tmp_path}/backend.ipc"]


# ---------------------------------------------------------------------------------- templates


@pytest.mark.parametrize(
    "text",
    [
        '{"model": "medium"}', "{}", "{0}", "{Name}", "{ name }", "{names}", "{name!r}", "{{", "}",
        "${HOME}", "{id}", '{"a": {"b": [1]}}',
    ],
)  # fmt: skip
def test_other_braces_stay(text: str) -> None:
    assert SpawnConfig("n", ["c", text]).render_command("b") == ["c", text]


def test_a_value_with_braces_is_no_template() -> None:
    config = SpawnConfig("{broker}", ["c", "{name}{name}", '{{name}: "{idle_timeout}"}'])
    expected = ["c", "{broker}{broker}", '{{broker}: "300.0"}']
    assert config.render_command("b") == expected


@pytest.mark.parametrize(("value", "text"), [(60, "60"), (0.5, "0.5"), (1e6, "1000000.0")])
def test_an_idle_timeout_is_written_as_it_was_given(value: float, text: str) -> None:
    config = SpawnConfig("n", ["c", "{idle_timeout}"], idle_timeout=value)
    assert config.render_command("b") == ["c", text]
    assert render(config).env["ASERPC_IDLE_TIMEOUT"] == text


def test_templates_in_env_and_cwd(tmp_path: Path) -> None:
    (tmp_path / "n").mkdir()
    env = {"WHERE": "{broker}", "JSON": '{"a": 1}', "DEVICES": "{gpu}"}
    config = SpawnConfig("n", ["c"], env, f"{tmp_path}/{{name}}", gpus=2)
    rendered = render(config, gpu="2,3")
    assert rendered.cwd == str(tmp_path / "n")
    assert rendered.env["WHERE"] == "ipc:///b"
    assert rendered.env["JSON"] == '{"a": 1}'
    assert rendered.env["DEVICES"] == rendered.env["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_arguments_that_we_write_are_no_templates() -> None:
    config = SpawnConfig("n", factory="m:f", kwargs={"pattern": "{name}"})
    assert render(config).command[-1] == '{"pattern": "{name}"}'


def test_without_gpus_the_devices_stay_as_they_are() -> None:
    assert "CUDA_VISIBLE_DEVICES" not in render(SpawnConfig("n", ["c"])).env


def test_the_gpu_stays_open_until_there_is_one() -> None:
    config = SpawnConfig("n", ["c", "{gpu}"], gpus=0.5)
    assert config.render_command("b") == ["c", "{gpu}"]
    assert config.render_command("b", "3") == ["c", "3"]


# ------------------------------------------------------------------------------ built commands


def test_packages_become_a_call_of_uvx() -> None:
    config = SpawnConfig(
        "mace",
        packages=["mace-torch==0.3.16", "numpy<3"],
        python="3.11",
        factory="mace.calculators:mace_mp",
        args=[1],
        kwargs={"model": "medium"},
    )
    assert config.render_command() == [
        *("uvx", "--python", "3.11", "--with", "mace-torch==0.3.16", "--with", "numpy<3"),
        *("aserpc", "worker", "mace.calculators:mace_mp", "--name", "mace"),
        *("--args", "[1]", "--kwargs", '{"model": "medium"}'),
    ]
    assert command(config)[:4] == ["uvx", "--with-editable", "/source", "--python"]
    assert command(config, INDEX)[:4] == ["uvx", "--with", "aserpc==0.2.0", "--python"]


def test_without_a_version_python_is_the_managers() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert SpawnConfig("n", packages=[]).render_command()[:3] == ["uvx", "--python", version]


def test_without_a_factory_the_name_is_looked_up_where_the_worker_runs() -> None:
    config = SpawnConfig("dftd4", packages=["dftd4"])
    assert config.render_command()[-2:] == ["worker", "dftd4"]


def test_without_packages_it_runs_in_the_managers_environment() -> None:
    config = SpawnConfig("lj", factory="ase.calculators.lj:LennardJones")
    worker = ["worker", "ase.calculators.lj:LennardJones", "--name", "lj"]
    assert render(config).command == config.render_command() == [*own_command(), *worker]


def test_a_name_like_an_option() -> None:
    assert SpawnConfig("-x").render_command()[-3:] == ["worker", "--", "-x"]
    config = SpawnConfig("-x", factory="m:f")
    assert config.render_command()[-3:] == ["worker", "m:f", "--name=-x"]


def test_a_venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = tmp_path / "env" / "bin"
    binaries.mkdir(parents=True)
    for program in ("python", "aserpc"):
        (binaries / program).touch()
    monkeypatch.chdir(tmp_path)
    config = SpawnConfig("n", venv="env")
    assert render(config).command == [str(binaries / "aserpc"), "worker", "n"]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ((), "is no folder"),
        (("env/x",), "is no virtual environment, there is no bin/python"),
        (("env/bin/python",), "has no aserpc; `"),
    ],
)
def test_a_venv_that_is_none(files: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    with pytest.raises(SpawnError, match=f"calculator 'n': its venv {tmp_path}/env") as caught:
        render(SpawnConfig("n", venv=f"{tmp_path}/env"))
    assert problem in str(caught.value)


def test_a_cwd_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SpawnError, match=f"calculator 'n': its cwd {tmp_path}/n is no folder"):
        render(SpawnConfig("n", ["c"], cwd=f"{tmp_path}/{{name}}"))


@pytest.mark.parametrize(
    ("config", "kind", "isolated"),
    [
        (SpawnConfig("n", ["aserpc", "worker", "n"]), "command", False),
        (SpawnConfig("n", UVX), "command", True),
        (SpawnConfig("n", packages=["p"]), "uvx", True),
        (SpawnConfig("n", python="3.12"), "uvx", True),
        (SpawnConfig("n", venv="v"), "venv", True),
        (SpawnConfig("n", factory="m:f"), "own", False),
    ],
)
def test_kinds(config: SpawnConfig, kind: str, isolated: bool) -> None:
    assert (config.kind, config.is_isolated) == (kind, isolated)


# ------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"command": "aserpc worker n"}, "list of words, as ['aserpc', 'worker', 'n']"),
        ({"command": []}, "with at least one"),
        ({"command": [""]}, "'' (str) in its command"),
        ({"command": ["c", 5]}, "5 (int) in its command"),
        ({"command": ["c", "\0"]}, "which is no text"),
        ({"packages": "mace-torch"}, "a list, as ['mace-torch']"),
        ({"packages": ["--index"]}, "the option '--index' in its packages"),
        ({"env": ["A=1"]}, "a table of names and texts"),
        ({"env": {"A=B": "1"}}, "which names no variable"),
        ({"env": {"OMP_NUM_THREADS": 1}}, "OMP_NUM_THREADS = 1 (int) in its env"),
        ({"env": {"ASERPC_SPAWN_ID": "1"}}, "which the manager does; drop it"),
        ({"env": {"CUDA_VISIBLE_DEVICES": "0"}, "gpus": 1}, "which the manager does"),
        ({"cwd": ""}, "must be text"),
        ({"cwd": 1}, "must be text"),
        ({"python": 3.11}, 'must be text, as "3.10"'),
        ({"factory": print}, 'must be text, "module:callable"'),
        ({"factory": "mace.calculators.mace_mp"}, "'mace.calculators:mace_mp' is probably meant"),
        ({"kwargs": [1]}, "a table of names and values"),
        ({"args": "abc"}, "must be a list"),
        ({"kwargs": {"a": {1}}}, "{1} (set) in its kwargs"),
        ({"kwargs": {"a": {1: 2}}}, "{1: 2} (dict) in its kwargs"),
        ({"idle_timeout": 0}, "a positive number of seconds (math.inf: never)"),
        ({"idle_timeout": "60"}, "a positive number of seconds"),
        ({"idle_timeout": True}, "a positive number of seconds"),
        ({"idle_timeout": math.nan}, "a positive number of seconds"),
        ({"start_timeout": math.inf}, "a positive number of seconds"),
        ({"stop_timeout": -1}, "a positive number of seconds"),
        ({"calculation_timeout": 0}, "a positive number of seconds (None: never)"),
        ({"max_batch": 0}, 'a whole number from 1 to 32768, or "auto"'),
        ({"max_batch": "many"}, 'a whole number from 1 to 32768, or "auto"'),
        ({"max_batch_atoms": "auto"}, "a whole number from 1 to 32768"),
        ({"max_batch_atoms": 1.5}, "a whole number from 1 to 32768"),
        ({"batch_wait": -1}, "a number of seconds from 0 up"),
        ({"batch_wait": "1"}, "a number of seconds from 0 up"),
        ({"env": {"ASERPC_MAX_BATCH": "1"}, "max_batch": 4}, "which the manager does; drop it"),
        ({"max_workers": 0}, "a whole number from 1 up"),
        ({"max_workers": 1.5}, "a whole number from 1 up"),
        ({"min_workers": -1}, "a whole number from 0 up"),
        ({"min_workers": 2}, "min_workers = 2, max_workers = 1"),
        ({"max_restarts": None}, "a whole number from 0 up"),
        ({"gpus": -1}, "less than 1 to share one"),
        ({"gpus": 1.5}, "less than 1 to share one"),
        ({"gpus": math.inf}, "less than 1 to share one"),
        ({"command": ["c", "{gpu}"]}, "gpus is 0"),
        ({"command": ["c"], "packages": ["p"], "venv": "v"}, "a command and also packages, venv"),
        ({"command": ["c"], "kwargs": {}}, "a command and also kwargs"),
        ({"venv": "v", "packages": ["p"], "python": "3"}, "venv and also packages and python"),
    ],
)
def test_a_mistake_is_said_in_a_line(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(RegistryError) as caught:
        SpawnConfig("n", **values)
    assert problem in str(caught.value)
    assert "'n'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a\nb", 5, None])
def test_a_bad_name(name: Any) -> None:
    with pytest.raises(RegistryError, match="is no calculator name"):
        SpawnConfig(name, ["c"])


def test_an_unknown_key_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="idle_timout"):
        SpawnConfig("n", ["c"], idle_timout=5)  # type: ignore[call-arg]


def test_what_the_caller_changes_later_changes_nothing() -> None:
    words, kwargs = ["c"], {"a": [1]}
    first = SpawnConfig("n", words)
    second = SpawnConfig("n", factory="m:f", kwargs=kwargs)
    words.append("d")
    kwargs["a"].append(2)
    assert first.command == ["c"]
    assert second.kwargs == {"a": [1]}


def test_paths_and_tuples_will_do(tmp_path: Path) -> None:
    words: Any = (tmp_path / "run.sh", "")
    config = SpawnConfig("n", words, cwd=tmp_path)  # type: ignore[arg-type]
    assert (config.command, config.cwd) == ([str(tmp_path / "run.sh"), ""], str(tmp_path))
    kwargs = SpawnConfig("n", factory="m:f", kwargs={"model": tmp_path}).kwargs
    assert kwargs == {"model": str(tmp_path)}


def test_where_it_comes_from_makes_no_difference() -> None:
    config = SpawnConfig("n", ["c"])
    assert config == dataclasses.replace(config, source="here")
    assert config != dataclasses.replace(config, max_workers=2)


def test_the_registry_knows_all_our_keys() -> None:
    keys = {item.name for item in dataclasses.fields(SpawnConfig)} - {"name", "source"}
    assert keys == {*ENTRY_KEYS, *BATCH_KEYS, *MANAGER_KEYS}
