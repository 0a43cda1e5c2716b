"""Which process has which GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Devices:
    """A pool of GPUs; a process takes whole ones, or a part of one.

    Parameters
    ----------
    ids
        The devices' ids, as ``CUDA_VISIBLE_DEVICES`` takes them.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = list(ids)
        self._taken: dict[str, tuple[tuple[str, ...], float]] = {}

    def find(self, amount: float) -> tuple[str, ...] | None:
        """Return devices that have so much free; None if there are none.

        A part of one goes where the most of it is taken already, so that whole ones stay free.
        """
        if amount == 0:
            return ()
        free = {device: self._free(device) for device in self.ids}
        if amount < 1:
            fitting = [device for device in self.ids if free[device] >= amount - 1e-9]
            return (min(fitting, key=lambda device: free[device]),) if fitting else None
        whole = [device for device in self.ids if free[device] == 1]
        return tuple(whole[: int(amount)]) if len(whole) >= amount else None

    def take(self, spawn_id: str, devices: tuple[str, ...], amount: float) -> None:
        """Give devices to a process."""
        self._taken[spawn_id] = (devices, min(amount, 1.0))

    def give_back(self, spawn_id: str) -> None:
        """Take back what a process had."""
        self._taken.pop(spawn_id, None)

    def of(self, spawn_id: str) -> tuple[str, ...]:
        """Return the devices of a process."""
        return self._taken.get(spawn_id, ((), 0.0))[0]

    def part_of(self, spawn_id: str) -> float:
        """Return how much a process has of each of its devices."""
        return self._taken.get(spawn_id, ((), 0.0))[1]

    def table(self, names: Mapping[str, str]) -> list[list[Any]]:
        """Return who has which device, as `aserpc.messages.Gpus` tells it.

        Parameters
        ----------
        names
            The calculator of each process.
        """
        # A process that was taken over may have one that is not in the pool.
        given = [device for devices, _ in self._taken.values() for device in devices]
        return [
            [
                device,
                round(max(0.0, self._free(device)), 6) if device in self.ids else 0.0,
                [
                    [spawn_id, names[spawn_id]]
                    for spawn_id, (devices, _) in self._taken.items()
                    if device in devices
                ],
            ]
            for device in dict.fromkeys([*self.ids, *given])
        ]

    def _free(self, device: str) -> float:
        return 1 - sum(part for devices, part in self._taken.values() if device in devices)
