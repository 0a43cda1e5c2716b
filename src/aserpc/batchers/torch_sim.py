"""Batches for the models of torch-sim, which compute nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

#: What a model may want to know of a structure: read from ``info`` where all have it.
_EXTRAS = ("charge", "spin")


class TorchSimBatcher:
    """Has a model compute one state with many systems.

    Parameters
    ----------
    model
        A ``torch_sim.models.interface.ModelInterface``.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.implemented_properties = ["energy", "free_energy"]
        self.implemented_properties += ["forces"] if model.compute_forces else []
        self.implemented_properties += ["stress"] if model.compute_stress else []

    def calculate_batch(
        self,
        atoms: Sequence[Atoms],
        properties: Sequence[str],  # noqa: ARG002 -- all are computed at once
    ) -> list[dict[str, Any]]:
        """See `aserpc.batchers.BatchCalculator`."""
        # The systems of a state have the same periodicity, and the same things are known of them.
        groups: dict[tuple[bool, ...], list[int]] = {}
        for index, one in enumerate(atoms):
            known = (name in one.info for name in _EXTRAS)
            groups.setdefault((*map(bool, one.pbc), *known), []).append(index)
        results: dict[int, dict[str, Any]] = {}
        for indices in groups.values():
            found = self._compute([atoms[index] for index in indices])
            results.update(zip(indices, found, strict=True))
        return [results[index] for index in range(len(atoms))]

    def _compute(self, atoms: list[Atoms]) -> list[dict[str, Any]]:
        from torch_sim.io import atoms_to_state

        model = self._model
        extras = {name: name for name in _EXTRAS}
        state = atoms_to_state(atoms, model.device, model.dtype, system_extras_map=extras)
        output = {name: value.detach().cpu().numpy() for name, value in model(state).items()}
        energies = output["energy"].reshape(len(atoms))
        results: list[dict[str, Any]] = [
            {"energy": float(energy), "free_energy": float(energy)} for energy in energies
        ]
        if "forces" in self.implemented_properties:
            ends = np.cumsum([len(one) for one in atoms])[:-1]
            for each, forces in zip(results, np.split(output["forces"], ends), strict=True):
                each["forces"] = forces
        if "stress" in self.implemented_properties:
            for each, stress in zip(results, output["stress"], strict=True):
                each["stress"] = full_3x3_to_voigt_6_stress(stress)
        return results
