"""What a manager asks for: the entry point of the group `aserpc.spawn`."""

from __future__ import annotations

from aserpc.spawn import SpawnConfig


def get_spawn_configs() -> dict[str, SpawnConfig]:
    """Return how workers are started, by name; a calculator without one is started by hand.

    Without a command or a factory, a worker runs in the manager's environment and finds the
    calculator by its name, as ``aserpc worker harmonic-trap`` does.
    """
    return {"harmonic-trap": SpawnConfig("harmonic-trap", max_workers=2, idle_timeout=60.0)}
