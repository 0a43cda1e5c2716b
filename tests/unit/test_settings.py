"""Settings: where they come from, which wins, and what a mistake says."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import pytest
import typer

from aserpc.cli.options import count, count_or_auto
from aserpc.errors import SettingsError
from aserpc.settings import Settings, load_settings, options


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with nothing above it that could be found."""
    home = tmp_path / "home" / "me"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    return home


def load(cwd: Path, environ: dict[str, str] | None = None, **overrides: object) -> Settings:
    return load_settings(overrides, cwd=cwd, environ=environ or {})


def pyproject(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pyproject.toml"
    path.write_text(text)
    return path


def sockets(folder: Path, mode: int = 0o700) -> Path:
    path = folder / ".aserpc"
    path.mkdir(parents=True)
    path.chmod(mode)
    return path


# ---------------------------------------------------------------------------------- the table


def test_names_and_defaults_are_those_promised() -> None:
    assert [(o.variable, o.default, o.unit) for o in options()] == [
        ("ASERPC_IPC_DIR", ".aserpc", ""),
        ("ASERPC_IPC_FRONTEND", "ipc://{IPC_DIR}/frontend.ipc", ""),
        ("ASERPC_IPC_BACKEND", "ipc://{IPC_DIR}/backend.ipc", ""),
        ("ASERPC_WORKER_TIMEOUT", "30.0", "s"),
        ("ASERPC_HEARTBEAT_INTERVAL", "5.0", "s"),
        ("ASERPC_IDLE_TIMEOUT", "300.0", "s"),
        ("ASERPC_CALCULATION_TIMEOUT", "inf", "s"),
        ("ASERPC_MAX_BATCH", "16", "structures"),
        ("ASERPC_MAX_BATCH_ATOMS", "512", "atoms"),
        ("ASERPC_BATCH_WAIT", "0.0", "s"),
        ("ASERPC_REQUEST_QUEUE_TIMEOUT", "60.0", "s"),
        ("ASERPC_RECONNECT_GRACE", "2.0", "s"),
        ("ASERPC_MAX_QUEUE", "100000", "requests"),
        ("ASERPC_MAX_QUEUE_BYTES", "4294967296", "bytes"),
        ("ASERPC_ORPHAN_TTL", "60.0", "s"),
        ("ASERPC_CLIENT_TIMEOUT_MS", "60000", "ms"),
        ("ASERPC_KEYS_DIR", "~/.config/aserpc/keys", ""),
        ("ASERPC_BROKER_KEY", "the one that is allowed", ""),
    ]
    assert all(option.help for option in options())


def test_defaults(home: Path) -> None:
    assert load(home) == Settings(
        ipc_dir=home / ".aserpc",
        ipc_frontend=f"ipc://{home}/.aserpc/frontend.ipc",
        ipc_backend=f"ipc://{home}/.aserpc/backend.ipc",
        worker_timeout=30.0,
        heartbeat_interval=5.0,
        idle_timeout=300.0,
        calculation_timeout=math.inf,
        max_batch=16,
        max_batch_atoms=None,
        batch_wait=0.0,
        request_queue_timeout=60.0,
        reconnect_grace=2.0,
        client_timeout_ms=60000,
        keys_dir=home / ".config/aserpc/keys",
        broker_key="",
    )


def test_the_keys_of_somebody_without_a_home_are_beside_the_sockets(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    settings = load(home, {"ASERPC_IPC_DIR": "/run/x"})
    assert settings.keys_dir == Path("/run/x/keys")


def test_the_local_addresses_stay_beside_tcp(home: Path) -> None:
    settings = load(home, {"ASERPC_IPC_DIR": "/run/x"}, ipc_backend="tcp://127.0.0.1:5555")
    assert settings.local_backend == "ipc:///run/x/backend.ipc"
    assert settings.local_frontend == settings.ipc_frontend == "ipc:///run/x/frontend.ipc"


def test_the_current_folder_and_environment_by_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("ASERPC_IDLE_TIMEOUT", "7")
    settings = load_settings()
    assert (settings.ipc_dir, settings.idle_timeout) == (home / ".aserpc", 7.0)


def test_nothing_is_created(home: Path) -> None:
    load(home)
    assert list(home.iterdir()) == []


def test_settings_are_frozen(home: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(home).worker_timeout = 1.0  # type: ignore[misc]


# ----------------------------------------------------------------------------------- the order


def test_each_source_wins_over_the_one_before(home: Path) -> None:
    pyproject(home, "[tool.aserpc]\nworker_timeout = 1\nidle_timeout = 1\nheartbeat_interval = 1")
    environ = {"ASERPC_IDLE_TIMEOUT": "2", "ASERPC_HEARTBEAT_INTERVAL": "2"}
    settings = load(home, environ, heartbeat_interval=3, worker_timeout=None)
    times = (settings.worker_timeout, settings.idle_timeout, settings.heartbeat_interval)
    assert times == (1.0, 2.0, 3.0)
    assert settings.request_queue_timeout == 60.0


def test_the_nearest_pyproject_with_a_table_counts(home: Path) -> None:
    pyproject(home, "[tool.aserpc]\nworker_timeout = 1")
    pyproject(home / "a", "[tool.aserpc]\nworker_timeout = 2")
    pyproject(home / "a/b", "[project]\nname = 'b'")
    assert load(home / "a/b").worker_timeout == 2.0


def test_a_changed_pyproject_is_read_again(home: Path) -> None:
    pyproject(home, "[tool.aserpc]\nworker_timeout = 1")
    assert load(home).worker_timeout == 1.0
    pyproject(home, "[tool.aserpc]\nworker_timeout = 22")
    assert load(home).worker_timeout == 22.0


# ------------------------------------------------------------------------------------- ipc_dir


def test_the_nearest_private_folder_of_mine_is_found(home: Path) -> None:
    sockets(home)
    found = sockets(home / "project")
    (home / "project/run/1").mkdir(parents=True)
    assert load(home / "project/run/1").ipc_dir == found


def test_a_folder_that_others_can_enter_is_passed_by(home: Path) -> None:
    found = sockets(home)
    sockets(home / "project", mode=0o755)
    assert load(home / "project").ipc_dir == found


def test_an_inherited_set_group_id_bit_is_no_access(home: Path) -> None:
    assert load(home).ipc_dir == sockets(home, mode=0o2700)


def test_a_file_of_that_name_is_passed_by(home: Path) -> None:
    found = sockets(home)
    (home / "project").mkdir()
    (home / "project/.aserpc").write_text("")
    assert load(home / "project").ipc_dir == found


def test_a_folder_of_somebody_else_is_passed_by(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets(home)
    (home / "project").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: home.stat().st_uid + 1)
    assert load(home / "project").ipc_dir == home / "project/.aserpc"


def test_a_folder_above_home_is_passed_by(home: Path) -> None:
    sockets(home.parent)
    (home / "project").mkdir()
    assert load(home / "project").ipc_dir == home / "project/.aserpc"


def test_a_folder_above_the_place_that_home_links_to_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "disk" / "me"
    real.mkdir(parents=True)
    (tmp_path / "home").symlink_to(real)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    sockets(tmp_path / "disk")
    assert load(real).ipc_dir == real / ".aserpc"


def test_outside_of_home_a_folder_of_mine_is_found(home: Path, tmp_path: Path) -> None:
    found = sockets(tmp_path / "scratch")
    (tmp_path / "scratch/job").mkdir()
    assert load(tmp_path / "scratch/job").ipc_dir == found


def test_else_it_is_beside_the_nearest_pyproject(home: Path) -> None:
    pyproject(home / "project", "[project]\nname = 'p'")
    (home / "project/a/b").mkdir(parents=True)
    assert load(home / "project/a/b").ipc_dir == home / "project/.aserpc"


def test_relative_in_pyproject_is_relative_to_that_file(home: Path) -> None:
    pyproject(home, "[tool.aserpc]\nipc_dir = 'run/sockets'")
    (home / "a").mkdir()
    settings = load(home / "a")
    assert settings.ipc_dir == home / "run/sockets"
    assert settings.ipc_backend == f"ipc://{home}/run/sockets/backend.ipc"


def test_relative_in_the_environment_is_relative_to_the_current_folder(home: Path) -> None:
    pyproject(home, "[tool.aserpc]\nipc_dir = 'run'")
    (home / "a").mkdir()
    settings = load(home / "a", {"ASERPC_IPC_DIR": "../x"})
    assert settings.ipc_dir == home / "x"
    assert settings.ipc_frontend == f"ipc://{home}/x/frontend.ipc"


def test_the_home_folder_is_expanded(home: Path, tmp_path: Path) -> None:
    assert load(tmp_path, {"ASERPC_IPC_DIR": "~/s"}).ipc_dir == home / "s"
    assert load(tmp_path, ipc_dir=Path("~/s")).ipc_dir == home / "s"


def test_addresses_take_the_folder_in(home: Path) -> None:
    pyproject(home, "[tool.aserpc]\nipc_frontend = 'ipc://{IPC_DIR}/f'")
    settings = load(home, {"ASERPC_IPC_DIR": "/run/x"}, ipc_backend="tcp://127.0.0.1:5555")
    assert settings.ipc_frontend == "ipc:///run/x/f"
    assert settings.ipc_backend == "tcp://127.0.0.1:5555"


def test_relative_sockets_become_absolute(home: Path) -> None:
    pyproject(home, "[tool.aserpc]\nipc_frontend = 'ipc://f.ipc'")
    (home / "a").mkdir()
    settings = load(home / "a", ipc_backend="ipc://b.ipc")
    assert settings.ipc_frontend == f"ipc://{home}/f.ipc"
    assert settings.ipc_backend == f"ipc://{home}/a/b.ipc"


# ------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("worker_timeot = 3", ["worker_timeot", "3", "worker_timeout is probably meant"]),
        ("[tool.aserpc.workshop]\nx = 1", ["workshop", "there are ipc_dir"]),
        ("worker_timeout = -1", ["worker_timeout", "-1", "positive"]),
        ("worker_timeout = inf", ["worker_timeout", "inf", "finite"]),
        ("idle_timeout = nan", ["idle_timeout", "nan"]),
        ("idle_timeout = 0", ["idle_timeout", "0", "inf: never"]),
        ("idle_timeout = true", ["idle_timeout", "True", "no number of seconds"]),
        ("idle_timeout = '30'", ["idle_timeout", "'30'", "no number"]),
        ("max_batch = 0", ["max_batch", "0", "from 1 to 32768, or auto"]),
        ("max_batch = 'many'", ["max_batch", "'many'", "no whole number of structures"]),
        ("max_batch = 2.5", ["max_batch", "2.5", "no whole number"]),
        ("max_batch = true", ["max_batch", "True", "no whole number"]),
        ("max_batch_atoms = 'auto'", ["max_batch_atoms", "'auto'", "no whole number of atoms"]),
        ("max_batch_atoms = 40000", ["max_batch_atoms", "40000", "32768"]),
        ("batch_wait = -0.1", ["batch_wait", "-0.1", "from 0 up"]),
        ("batch_wait = inf", ["batch_wait", "inf", "finite"]),
        ("batch_wait = nan", ["batch_wait", "nan", "finite"]),
        ("client_timeout_ms = [1]", ["client_timeout_ms", "[1]", "milliseconds"]),
        ("ipc_dir = 3", ["ipc_dir", "3", "no text"]),
        ("ipc_dir = ''", ["ipc_dir", "empty"]),
        ("ipc_dir = 'pyproject.toml'", ["ipc_dir", "is a file"]),
        ("ipc_dir = '~nobodyatall/x'", ["ipc_dir", "home folder"]),
        ("ipc_frontend = 'localhost'", ["ipc_frontend", "localhost", "tcp://HOST:PORT"]),
        ("ipc_frontend = 'ipc://{IPCDIR}/f'", ["{IPCDIR}", "{IPC_DIR}"]),
        ("ipc_frontend = 'ipc://a\\u0000'", ["ipc_frontend"]),
    ],
)
def test_a_mistake_in_the_file_is_named(home: Path, text: str, words: list[str]) -> None:
    if "\\u" in text:
        text = text.replace("'", '"')
    path = pyproject(home, f"[tool.aserpc]\n{text}\n")
    with pytest.raises(SettingsError) as error:
        load(home)
    assert "\n" not in str(error.value)
    for word in [*words, str(path)]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ASERPC_WORKER_TIMEOUT", "soon", ["'soon'", "no number of seconds"]),
        ("ASERPC_WORKER_TIMEOUT", "", ["''", "no number"]),
        ("ASERPC_HEARTBEAT_INTERVAL", "inf", ["finite"]),
        ("ASERPC_CLIENT_TIMEOUT_MS", "nan", ["positive"]),
        ("ASERPC_MAX_BATCH", "2.5", ["'2.5'", "no whole number"]),
        ("ASERPC_BATCH_WAIT", "short", ["'short'", "no number of seconds"]),
        ("ASERPC_IPC_DIR", "", ["empty"]),
        ("ASERPC_WORKER_TIMEOT", "3", ["ASERPC_WORKER_TIMEOUT is probably meant"]),
        ("ASERPC_IPC_DIRS", "x", ["ASERPC_IPC_DIR is probably meant"]),
        ("aserpc_idle_timeout", "3", ["ASERPC_IDLE_TIMEOUT is probably meant"]),
    ],
)
def test_a_mistake_in_the_environment_is_named(
    home: Path, variable: str, value: str, words: list[str]
) -> None:
    with pytest.raises(SettingsError) as error:
        load(home, {variable: value})
    for word in [variable, "environment", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "variable", ["ASERPC_SPAWN_ID", "ASERPC_LOG_LEVEL", "ASERPC_JOB", "ASERPC_SCRATCH_FOLDER"]
)
def test_other_variables_are_left_alone(home: Path, variable: str) -> None:
    assert load(home, {variable: "x"}) == load(home)


@pytest.mark.parametrize("name", ["idle_timeout", "request_queue_timeout", "client_timeout_ms"])
def test_never_can_be_said(home: Path, name: str) -> None:
    assert math.isinf(getattr(load(home, {f"ASERPC_{name.upper()}": "inf"}), name))
    pyproject(home, f"[tool.aserpc]\n{name} = inf")
    assert math.isinf(getattr(load(home), name))


@pytest.mark.parametrize(("text", "number"), [("auto", "auto"), ("1", 1), ("32768", 32768)])
def test_how_many_are_computed_together(home: Path, text: str, number: object) -> None:
    assert load(home, {"ASERPC_MAX_BATCH": text}).max_batch == number
    assert load(home, max_batch=number).max_batch == number
    assert load(home, {"ASERPC_BATCH_WAIT": "0"}).batch_wait == 0


def test_on_the_command_line_too() -> None:
    assert [count_or_auto(text) for text in ("auto", "1")] == ["auto", 1]
    with pytest.raises(typer.BadParameter, match="'many' is neither a whole number nor auto"):
        count_or_auto("many")
    with pytest.raises(typer.BadParameter, match="'auto' is no whole number"):
        count("auto")
    (text,) = (option.help for option in options() if option.name == "max_batch")
    assert "1: each alone; auto: as many as" in text


def test_a_mistake_of_the_caller_is_named(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"worker_timeout = '3' .*no number"):
        load(home, worker_timeout="3")
    with pytest.raises(SettingsError, match="worker_timeout is probably meant"):
        load(home, workertimeout=3)
    with pytest.raises(SettingsError, match="positive, finite"):
        load(home, worker_timeout=10**400)


@pytest.mark.parametrize(
    ("label", "source"), [("--broker", "command line"), ("broker", "given by the caller")]
)
def test_a_mistake_is_told_under_the_name_that_the_caller_used(
    home: Path, label: str, source: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^{label} = 'foo' \({source}\) is no address"):
        load_settings({"ipc_frontend": "foo"}, labels={"ipc_frontend": label}, cwd=home, environ={})


@pytest.mark.parametrize(
    "content", [b"[tool.aserpc\n", b"\xff\xfe", b"a = " + b"[" * 5000, b"tool = 1\n[tool.aserpc]"]
)
def test_a_broken_file_is_named(home: Path, content: bytes) -> None:
    (home / "pyproject.toml").write_bytes(content)
    with pytest.raises(SettingsError, match="no valid TOML") as error:
        load(home)
    assert str(home / "pyproject.toml") in str(error.value)


def test_a_table_that_is_none_is_named(home: Path) -> None:
    pyproject(home, "[tool]\naserpc = 3")
    with pytest.raises(SettingsError, match=r"aserpc = 3 .*\[tool.aserpc\]"):
        load(home)


def test_a_folder_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SettingsError, match="current folder does not exist"):
        load_settings()
