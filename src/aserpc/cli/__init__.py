"""The command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aserpc.cli.app import app, main

if TYPE_CHECKING:
    from aserpc.entries import load_factory

__all__ = ["app", "load_factory", "main"]


def __getattr__(name: str) -> Any:
    # Of aserpc 0.1.3; the command line does without, and is quicker so.
    if name == "load_factory":
        from aserpc.entries import load_factory

        return load_factory
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
