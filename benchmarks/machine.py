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
    return {
        "machine": f"{_processor()}, {os.cpu_count()} processors, {platform.system()}",
        "python": f"{platform.python_version()}, {', '.join(versions)}, libzmq {zmq.zmq_version()}",
        "threads": " ".join(f"{name}={value}" for name, value in THREADS.items()),
        "rounds": f"{rounds}, all contenders in turn",
        "load before": load(),
    }


def load() -> str:
    """Return how many processes want to run."""
    values = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{values} (of the last 1, 5 and 15 minutes)"


def overloaded() -> str:
    """Return a warning if more processes want to run than can, else nothing."""
    wanted, processors = os.getloadavg()[0], os.cpu_count() or 1
    if wanted <= processors:
        return ""
    return (
        f"the load was {wanted:.1f} on {processors} processors before anything was measured; "
        "figures repeat where little else runs"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
