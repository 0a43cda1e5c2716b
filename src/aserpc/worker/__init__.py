"""The worker: serves one calculator to a broker."""

from aserpc.worker.loop import Worker

__all__ = ["Worker"]
