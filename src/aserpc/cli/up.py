"""What ``aserpc manager``, ``up``, ``logs`` and ``env`` do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from aserpc import logs
from aserpc.broker import Broker
from aserpc.cli.console import print_table
from aserpc.errors import RegistryError
from aserpc.manager.loop import Manager
from aserpc.serving import served_beside, stop_on_signals
from aserpc.settings import load_settings
from aserpc.spawn import SpawnConfig
from aserpc.spawn.environments import check, child_environment, prepare_command
from aserpc.spawn.sources import get_spawn_configs, load_spawn_registry

#: What is served from the current folder where nothing is named.
DEFAULT_FILE = "aserpc.toml"


def load_configs(registry: str | None) -> dict[str, SpawnConfig]:
    """Return what can be started: a registry's, or that of the installed packages and this folder.

    Raises
    ------
    RegistryError
        If that is nothing.
    """
    if registry is not None:
        return load_spawn_registry(registry)
    here = load_spawn_registry(DEFAULT_FILE) if Path(DEFAULT_FILE).exists() else {}
    configs = {**get_spawn_configs(), **here}
    if not configs:
        raise RegistryError(
            f"there is nothing to start: name a registry, write {DEFAULT_FILE} here, or install a "
            "package with entry points of the group aserpc.spawn"
        )
    return configs


def make_manager(
    registry: str | None,
    broker: str | None,
    heartbeat: float | None,
    gpus: str | None,
    max_workers_total: int | None,
) -> Manager:
    """Make a manager from the command line's words; the errors are those of `load_configs`."""
    given = None if gpus is None else [gpu.strip() for gpu in gpus.split(",") if gpu.strip()]
    ids = find_gpus() if given is None else given

    def load() -> Mapping[str, SpawnConfig]:
        configs = load_configs(registry)
        for config in configs.values():
            if config.gpus > len(ids):
                raise RegistryError(
                    f"each worker of {config.name!r} needs {config.gpus:g} GPUs, and there are "
                    f"{len(ids)}; say which with --gpus"
                )
        return configs

    return Manager(
        load(), broker, heartbeat, gpus=ids, max_workers_total=max_workers_total, load=load
    )


def build_environment(name: str, registry: str | None) -> int:
    """Build the environment of a calculator's workers ahead; return the exit code.

    Raises
    ------
    RegistryError
        If there is no such calculator.
    SpawnError
        If the environment can't be built.
    """
    configs = load_configs(registry)
    if name not in configs:
        raise RegistryError(f"nothing starts {name!r}; there are {', '.join(sorted(configs))}")
    config = configs[name]
    command = prepare_command(config)
    if not command:
        print(f"{name}: its command brings an environment of its own; there is nothing to build")
        return 0
    rendered = config.render(broker="", spawn_id="", gpu="0" if config.gpus else None)
    environ = child_environment(os.environ, rendered, config, os.cpu_count() or 1)
    done = subprocess.run(  # noqa: S603 -- the configuration's own command
        command, env=environ, cwd=rendered.cwd, stdout=subprocess.DEVNULL, check=False
    )
    return check_environments({name: config}) if done.returncode == 0 else 1


def check_environments(configs: Mapping[str, SpawnConfig]) -> int:
    """Print which environments are ready; return 0 if all are, else 1."""
    states = {name: check(config) for name, config in sorted(configs.items())}
    rows = [(name, "yes" if s.ready else "no", s.text) for name, s in states.items()]
    print_table("Environments", ["Name", "Ready", ""], rows)
    return 0 if all(state.ready for state in states.values()) else 1


def find_gpus() -> list[str]:
    """Return the ids of the GPUs that nvidia-smi lists; none without it."""
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(  # noqa: S603 -- a fixed command
            command, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.split()


def serve(manager: Manager, broker: Broker | None = None) -> None:
    """Serve until a signal: the manager ends with its workers, then the broker."""

    def hang_up(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        manager.reload()

    with ExitStack() as stack:
        if broker is not None:
            stack.enter_context(served_beside(broker, "aserpc broker", manager.stop))
        signal.signal(signal.SIGHUP, hang_up)
        with stop_on_signals(manager.stop, manager.waker):
            manager.serve()


def show_logs(name: str, *, follow: bool) -> None:
    """Print the log of a calculator's last worker."""
    folder = load_settings().ipc_dir / "logs"
    label = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
    found = [
        path for path in folder.glob(f"{label}-*.log") if path.stem.rpartition("-")[0] == label
    ]
    if not found:
        raise RegistryError(f"no worker of {name!r} has left a log in {folder}")
    newest = max(found, key=lambda path: path.stat().st_mtime)
    logs.show(newest, sys.stdout.buffer, follow=follow)
