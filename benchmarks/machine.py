"""Where it was measured."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import zmq

from benchmarks.processes import THREADS


def machine(rounds: int) -> dict[str, Any]:
    """Return what one has to know to compare figures."""
    packages = ("aserpc", "pyzmq", "ase", "numpy", "msgpack")
    versions = [f"{name} {metadata.version(name)}" for name in packages]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "machine": f"{_processor()}, {os.cpu_count()} processors, {platform.system()}",
        "python": f"{platform.python_version()}, {', '.join(versions)}, libzmq {zmq.zmq_version()}",
        "threads": " ".join(f"{name}={value}" for name, value in THREADS.items()),
        "load before": f"{load} (of the last 1, 5 and 15 minutes)",
        "rounds": f"{rounds}, all contenders in turn",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
