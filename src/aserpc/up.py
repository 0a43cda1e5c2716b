"""What ``aserpc manager``, ``aserpc up`` and ``aserpc logs`` do."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from aserpc.broker import Broker
from aserpc.errors import AserpcError, RegistryError
from aserpc.manager.loop import Manager
from aserpc.serving import stop_on_signals
from aserpc.settings import load_settings
from aserpc.spawn import SpawnConfig
from aserpc.spawn_sources import get_spawn_configs, load_spawn_registry

#: What is served from the current folder where nothing is named.
DEFAULT_FILE = "aserpc.toml"


def make_manager(
    registry: str | None,
    broker: str | None,
    heartbeat: float | None,
    gpus: str | None,
    max_workers_total: int | None,
) -> Manager:
    """Make a manager from the command line's words.

    Raises
    ------
    RegistryError
        If there is nothing that it could start.
    """

    def load() -> Mapping[str, SpawnConfig]:
        if registry is not None:
            return load_spawn_registry(registry)
        here = load_spawn_registry(DEFAULT_FILE) if Path(DEFAULT_FILE).exists() else {}
        return {**get_spawn_configs(), **here}

    configs = load()
    if not configs:
        raise RegistryError(
            f"there is nothing to start: name a registry, write {DEFAULT_FILE} here, or install a "
            "package with entry points of the group aserpc.spawn"
        )
    ids = (
        find_gpus() if gpus is None else [part.strip() for part in gpus.split(",") if part.strip()]
    )
    return Manager(
        configs, broker, heartbeat, gpus=ids, max_workers_total=max_workers_total, load=load
    )


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
    thread: threading.Thread | None = None
    failed: list[AserpcError] = []

    def serve_broker() -> None:
        assert broker is not None
        try:
            broker.serve()
        except AserpcError as error:
            failed.append(error)
            manager.stop()

    def hang_up(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        manager.reload()

    if broker is not None:
        thread = threading.Thread(target=serve_broker, name="aserpc broker", daemon=True)
        thread.start()
        while not broker.serving.wait(0.05) and not failed:
            pass
        if failed:
            raise failed[0]
    signal.signal(signal.SIGHUP, hang_up)
    try:
        with stop_on_signals(manager.stop, manager.waker):
            manager.serve()
    finally:
        if broker is not None and thread is not None:
            broker.stop()
            thread.join()


def show_logs(name: str, *, follow: bool) -> None:
    """Print the log of a calculator's last worker."""
    folder = load_settings().ipc_dir / "logs"
    label = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
    found = [
        path for path in folder.glob(f"{label}-*.log") if path.stem.rpartition("-")[0] == label
    ]
    if not found:
        raise RegistryError(f"no worker of {name!r} has left a log in {folder}")
    path = max(found, key=lambda path: path.stat().st_mtime)
    with path.open(errors="replace") as file:
        while True:
            text = file.read()
            sys.stdout.write(text)
            sys.stdout.flush()
            if not follow:
                return
            if not text:
                time.sleep(0.2)
