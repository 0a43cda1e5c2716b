"""The manager: starts workers on demand, and ends them."""

from aserpc.manager.loop import Manager

__all__ = ["Manager"]
