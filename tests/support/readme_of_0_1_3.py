"""The spawn configurations of aserpc 0.1.3's README, verbatim: they must go on to work.

A manager can read them from here: ``--registry readme_of_0_1_3.py:get_spawn_configs``.
"""

from __future__ import annotations

from aserpc.spawn import SpawnConfig


def get_spawn_configs() -> dict[str, SpawnConfig]:
    """Return the configurations by name."""
    return {
        "mace_mp": SpawnConfig(
            name="mace_mp",
            command=[
                "uvx", "--with", "mace-torch", "aserpc", "worker",
                "mace.calculators:mace_mp", "--kwargs", '{"model": "medium"}',
            ],
            idle_timeout=120.0,
        ),
        "lj": SpawnConfig(
            name="lj",
            command=["aserpc", "worker", "ase.calculators.lj:LennardJones", "--name", "lj"],
            idle_timeout=60.0,
        ),
    }  # fmt: skip
