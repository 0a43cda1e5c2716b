"""The command line."""

from aserpc.cli.app import app, load_factory, main

__all__ = ["app", "load_factory", "main"]
