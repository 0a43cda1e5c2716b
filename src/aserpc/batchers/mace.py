"""Batches for ``mace.calculators.MACECalculator``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress


def make_batcher(calculator: Any) -> MACEBatcher | None:
    """Return what computes batches for a calculator with one model of energies and forces.

    None for committees, for models of dipoles or charges, and for compiled or padded ones, whose
    shapes are fixed.
    """
    plain = calculator.model_type == "MACE" and len(calculator.models) == 1
    fixed = [getattr(calculator, name, False) for name in ("use_compile", "pad_num_atoms")]
    fixed.append(getattr(calculator, "pad_num_edges", False))
    more = getattr(calculator, "compute_atomic_stresses", False)
    return MACEBatcher(calculator) if plain and not more and not any(fixed) else None


class MACEBatcher:
    """Has MACE compute many graphs as one.

    Parameters
    ----------
    calculator
        A ``MACECalculator`` with one model.
    """

    def __init__(self, calculator: Any) -> None:
        self._calculator = calculator

    def calculate_batch(
        self,
        atoms: Sequence[Atoms],
        properties: Sequence[str],  # noqa: ARG002 -- all are computed at once, as alone
    ) -> list[dict[str, Any]]:
        """See `aserpc.batchers.BatchCalculator`."""
        if not atoms:
            return []
        import torch
        from mace.tools import torch_geometric

        calculator = self._calculator
        (model,) = calculator.models
        graphs = [self._graph(one) for one in atoms]
        batch = torch_geometric.Batch.from_data_list(graphs).to(calculator.device)
        dtype = next(model.parameters()).dtype
        for name in batch.keys:
            value = batch[name]
            if torch.is_tensor(value) and torch.is_floating_point(value):
                batch[name] = value.to(dtype=dtype)
        data = batch.to_dict()
        output = model(data, compute_stress=True, training=False)
        # The energies of isolated atoms, which `node_energy` is told without.
        heads = data["head"][data["batch"]]
        each = torch.arange(len(heads), device=heads.device)
        isolated = model.atomic_energies_fn(data["node_attrs"])[each, heads]

        energies = _numpy(output["energy"]) * calculator.energy_units_to_eV
        stresses = _numpy(output["stress"])
        stresses = stresses * (calculator.energy_units_to_eV / calculator.length_units_to_A**3)
        ends = np.cumsum([len(one) for one in atoms])[:-1]
        by_atom = [
            np.split(_numpy(value) * factor, ends)
            for value, factor in (
                (output["node_energy"], calculator.energy_units_to_eV),
                (isolated, 1.0),
                (output["forces"], calculator.energy_units_to_eV / calculator.length_units_to_A),
            )
        ]
        return [
            {
                "energy": float(energy),
                "free_energy": float(energy),
                "node_energy": node - alone,
                "energies": node,
                "forces": forces,
                "stress": full_3x3_to_voigt_6_stress(stress),
            }
            for energy, stress, node, alone, forces in zip(
                energies, stresses, *by_atom, strict=True
            )
        ]

    def _graph(self, atoms: Atoms) -> Any:
        from mace import data
        from mace.tools import torch_tools

        calculator = self._calculator
        arrays = {**calculator.arrays_keys, calculator.charges_key: "charges"}
        keys = data.KeySpecification(info_keys=calculator.info_keys, arrays_keys=arrays)
        with torch_tools.default_dtype(calculator.default_dtype):
            return data.AtomicData.from_config(
                data.config_from_atoms(atoms, key_specification=keys, head_name=calculator.head),
                z_table=calculator.z_table,
                cutoff=calculator.r_max,
                heads=calculator.available_heads,
            )


def _numpy(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy()
