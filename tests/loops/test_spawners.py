"""Spawners do what the manager relies on."""

from __future__ import annotations

from aserpc.manager.spawners import Spawner
from aserpc.manager.spawners.local import LocalSpawner
from aserpc.testing import SpawnerContract


class TestLocalSpawner(SpawnerContract):
    def make_spawner(self) -> Spawner:
        return LocalSpawner()
