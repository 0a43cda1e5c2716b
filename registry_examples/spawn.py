"""Spawn configurations in Python, for what a TOML file can't say.

::

    aserpc manager --registry spawn.py:get_spawn_configs

A package offers such a function to all who install it with an entry point::

    [project.entry-points."aserpc.spawn"]
    mypackage = "mypackage.spawn:get_spawn_configs"
"""

import os

from aserpc.spawn import SpawnConfig


def get_spawn_configs():
    """Return name -> configuration; called once, when the manager starts or reloads."""
    configs = [
        # A command of your own. The aserpc in it is the manager's, and finds the broker by itself.
        SpawnConfig(
            name="lj",
            command=["aserpc", "worker", "ase.calculators.lj:LennardJones", "--name", "lj"],
            idle_timeout=60.0,
        ),
        # With templates, for a launcher or script that wants to be told; other braces, as JSON's,
        # stay as they are.
        SpawnConfig(
            name="argon",
            command=[
                *("aserpc", "worker", "ase.calculators.lj:LennardJones", "--name", "{name}"),
                *("--kwargs", '{"sigma": 3.4, "epsilon": 0.0103, "rc": 8.5}'),
                *("--broker", "{broker}", "--idle-timeout", "{idle_timeout}"),
            ],
        ),
        # Without a command: the factory in the manager's own environment.
        SpawnConfig("copper", factory="ase.calculators.emt:EMT", max_workers=os.cpu_count() or 1),
    ]
    # One method at several accuracies: what a loop says shortest.
    for accuracy in (1.0, 0.01):
        config = SpawnConfig(
            f"gfn2-{accuracy}",
            packages=["tblite==0.8.0"],
            factory="tblite.ase:TBLite",
            kwargs={"method": "GFN2-xTB", "accuracy": accuracy, "verbosity": 0},
        )
        configs.append(config)
    return {config.name: config for config in configs}
