"""How workers are started: configurations, where they come from, environments."""

from aserpc.spawn.config import Rendered, SpawnConfig

__all__ = ["Rendered", "SpawnConfig"]
