"""The broker: routes requests from clients to workers and answers back."""

from aserpc.broker.loop import Broker

__all__ = ["Broker"]
