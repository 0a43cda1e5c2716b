"""Batches for ``sevenn.calculator.SevenNetCalculator``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms


class SevenNetBatcher:
    """Has SevenNet compute many graphs as one.

    Parameters
    ----------
    calculator
        A ``SevenNetCalculator``.
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
        import sevenn._keys as key
        import torch
        from torch_geometric.data import Batch

        calculator = self._calculator
        graphs = [self._graph(one) for one in atoms]
        edges = [graph[key.EDGE_IDX] for graph in graphs]
        sizes = [len(one) for one in atoms]
        model = calculator.model
        model.set_is_batch_data(True)
        try:
            output = model(Batch.from_data_list(graphs).to(calculator.device))
        finally:
            model.set_is_batch_data(False)
        by_atom = (key.ATOMIC_ENERGY, key.PRED_FORCE, key.PRED_ATOMIC_VIRIAL)
        by_structure = (key.PRED_TOTAL_ENERGY, key.PRED_STRESS)
        parts = {name: torch.split(output[name], sizes) for name in by_atom if name in output}
        parts |= {name: torch.unbind(output[name]) for name in by_structure}
        return [
            calculator.output_to_results(
                {
                    **{name: part[index] for name, part in parts.items()},
                    "num_atoms": torch.tensor(size),
                    key.EDGE_IDX: edges[index],
                }
            )
            for index, size in enumerate(sizes)
        ]

    def _graph(self, atoms: Atoms) -> Any:
        import sevenn._keys as key
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph

        calculator = self._calculator
        data = unlabeled_atoms_to_graph(atoms, calculator.cutoff, with_shift=False)
        graph = AtomGraphData.from_numpy_dict(data)
        if calculator.modal:
            graph[key.DATA_MODALITY] = calculator.modal
        return graph
