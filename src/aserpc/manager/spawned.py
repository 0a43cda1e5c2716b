"""The file in which a manager notes its workers, for one that comes after it was killed.

``{spawn id: {"name", "gpus", "part", "handle"}}`` in JSON; the handle is the spawner's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypedDict, cast


class Spawned(TypedDict):
    """A worker that was started."""

    name: str
    gpus: list[str]
    #: How much it has of each of its GPUs.
    part: float
    handle: dict[str, Any]


def pack_spawned(spawned: Mapping[str, Spawned]) -> bytes:
    """Return the contents of the file."""
    return json.dumps(spawned).encode()


def unpack_spawned(data: bytes) -> dict[str, Spawned]:
    """Read the contents of the file; raise ValueError where they are none."""
    try:
        spawned = json.loads(data)
    except RecursionError:
        spawned = None
    if not isinstance(spawned, dict) or not all(map(_is_spawned, spawned.values())):
        raise ValueError("workers that were started are {spawn id: {name, gpus, part, handle}}")
    return cast("dict[str, Spawned]", spawned)


def _is_spawned(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() >= {"name", "gpus", "part", "handle"}
        and isinstance(entry["name"], str)
        and isinstance(entry["gpus"], list)
        and all(isinstance(gpu, str) for gpu in entry["gpus"])
        and type(entry["part"]) in (int, float)
        and 0 <= entry["part"] <= 1
        and isinstance(entry["handle"], dict)
    )
