"""Batches of real models, each in an environment of its own: what the contract asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aserpc.testing import BatcherContract
from support.environments import evaluate

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

#: Where an index has several builds of this version, pip takes that for the CPU, if it is there.
TORCH = "torch==2.13.0"

PACKAGES = {"chgnet": "chgnet==0.4.2", "sevennet": "sevenn==0.13.0", "mace": "mace-torch==0.3.16"}

MAKES = {
    "chgnet": """
        from chgnet.model.dynamics import CHGNetCalculator

        def make():
            return CHGNetCalculator()
    """,
    "sevennet": """
        from sevenn.calculator import SevenNetCalculator

        def make():
            return SevenNetCalculator(model="7net-0")
    """,
    # Its weights are downloaded: a small one with random weights has the same ways.
    "mace": """
        import numpy as np
        import torch
        from mace import modules  # before e3nn, whose constants torch does not load without
        from e3nn import o3
        from mace.calculators import MACECalculator

        block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        numbers = [11, 17, 29]

        def make():
            torch.manual_seed(0)
            model = modules.ScaleShiftMACE(
                r_max=5.0, num_bessel=8, num_polynomial_cutoff=5, max_ell=2, num_interactions=2,
                interaction_cls=block, interaction_cls_first=block, num_elements=len(numbers),
                hidden_irreps=o3.Irreps("16x0e+16x1o"), MLP_irreps=o3.Irreps("16x0e"),
                gate=torch.nn.functional.silu, atomic_energies=np.arange(1.0, 4.0),
                avg_num_neighbors=20, atomic_numbers=numbers, correlation=2,
                atomic_inter_scale=1.0, atomic_inter_shift=0.0,
            )
            return MACECalculator(models=model, device="cpu", default_dtype="float32")
    """,
}

CONTRACT = """
        import json
        from ase import Atoms
        from aserpc.testing import BatcherContract

        class Contract(BatcherContract):
            properties = ("energy", "forces", "stress")

            def make_calculator(self):
                return make()

            def make_bad_structure(self):
                return Atoms("X", cell=[5] * 3, pbc=True)

        print(json.dumps(Contract().check()))
    """


@pytest.mark.parametrize("model", MAKES)
def test_a_real_model_s_batches_are_right(environment: Callable[..., Path], model: str) -> None:
    binaries = environment(TORCH, PACKAGES[model], python="3.11")
    passed = evaluate([binaries / "python", "-W", "ignore"], MAKES[model] + CONTRACT)
    assert passed == [name for name in dir(BatcherContract) if name.startswith("test_")]
