"""Batches for ``chgnet.model.dynamics.CHGNetCalculator``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms


class CHGNetBatcher:
    """Has CHGNet predict many graphs in one pass.

    Parameters
    ----------
    calculator
        A ``CHGNetCalculator``.
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
        from pymatgen.io.ase import AseAtomsAdaptor

        calculator = self._calculator
        model = calculator.model
        graphs = [model.graph_converter(AseAtomsAdaptor.get_structure(one)) for one in atoms]
        found = model.predict_graph(
            graphs,
            task="efsm",
            return_crystal_feas=True,
            return_site_energies=calculator.return_site_energies,
            batch_size=len(graphs),
        )
        predictions = [found] if isinstance(found, dict) else found
        return [self._results(*pair) for pair in zip(atoms, predictions, strict=True)]

    def _results(self, atoms: Atoms, prediction: dict[str, Any]) -> dict[str, Any]:
        calculator = self._calculator
        energy = prediction["e"] * (len(atoms) if calculator.model.is_intensive else 1)
        results = {
            "energy": energy,
            "free_energy": energy,
            "forces": prediction["f"],
            "magmoms": prediction["m"],
            "stress": prediction["s"] * calculator.stress_weight,
            "crystal_fea": prediction["crystal_fea"],
        }
        if calculator.return_site_energies:
            results["energies"] = prediction["site_energies"]
        return results
