"""Make an Orb calculator: its class takes a model, and `pretrained` has functions that load one."""

import torch
from orb_models.forcefield import pretrained
from orb_models.forcefield.calculator import ORBCalculator


def orb(model="orb-v3-conservative-inf-omat", device=None):
    """Return a calculator with a model of `pretrained.ORB_PRETRAINED_MODELS`, of orb-models 0.5."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    load = pretrained.ORB_PRETRAINED_MODELS[model]
    return ORBCalculator(load(device=device), device=device)
