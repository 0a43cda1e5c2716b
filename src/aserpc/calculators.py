"""Our own provider: ASE's calculators, and those of packages that are installed.

Every factory here makes a working calculator from the arguments given here; nothing is imported
to find out what is installed.
"""

from __future__ import annotations

import importlib.util
from importlib.machinery import PathFinder
from typing import Any

# Those of ASE that compute in Python and need neither files nor arguments.
_ASE: dict[str, str] = {
    "EMT": "ase.calculators.emt:EMT",
    "LJ": "ase.calculators.lj:LennardJones",
    "MorsePotential": "ase.calculators.morse:MorsePotential",
    "TIP3P": "ase.calculators.tip3p:TIP3P",
    "TIP4P": "ase.calculators.tip4p:TIP4P",
    "ACN": "ase.calculators.acn:ACN",
    "IdealGas": "ase.calculators.idealgas:IdealGas",
}

_UMA = "fairchem.core.calculate.ase_calculator:FAIRChemCalculator.from_model_checkpoint"

# A package's own default model is used where it has one, so that it is the same as in a script
# that imports the package. dftd3 and dftd4 are corrections for a functional: PBE here.
_PACKAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "tblite": ("tblite.ase:TBLite", {"method": "GFN2-xTB", "verbosity": 0}),
    "xtb": ("xtb.ase.calculator:XTB", {"method": "GFN2-xTB"}),
    "dftd3": ("dftd3.ase:DFTD3", {"method": "PBE", "damping": "d3bj"}),
    "dftd4": ("dftd4.ase:DFTD4", {"method": "PBE"}),
    "torch_dftd": (
        "torch_dftd.torch_dftd3_calculator:TorchDFTD3Calculator",
        {"xc": "pbe", "damping": "bj"},
    ),
    "mace_mp": ("mace.calculators:mace_mp", {}),
    "mace_off": ("mace.calculators:mace_off", {}),
    "chgnet": ("chgnet.model.dynamics:CHGNetCalculator", {}),
    "sevenn": ("sevenn.calculator:SevenNetCalculator", {"model": "7net-0"}),
    "mattersim": ("mattersim.forcefield:MatterSimCalculator", {}),
    "aimnet2": ("aimnet.calculators:AIMNet2ASE", {"base_calc": "aimnet2"}),
    "pet_mad": ("upet.ase:UPETCalculator", {"model": "pet-mad-s"}),
    # A UMA model answers for one task, that is one level of theory; its weights need a login.
    "uma_omat": (_UMA, {"name_or_path": "uma-s-1p1", "task_name": "omat"}),
    "uma_omol": (_UMA, {"name_or_path": "uma-s-1p1", "task_name": "omol"}),
    "uma_oc20": (_UMA, {"name_or_path": "uma-s-1p1", "task_name": "oc20"}),
}


def get_calculators() -> dict[str, dict[str, Any]]:
    """Return name -> ``{"factory", "args", "kwargs"}`` of what can be made here."""
    found: dict[str, dict[str, Any]] = {
        name: {"factory": factory, "args": [], "kwargs": {}}
        for name, factory in _ASE.items()
        if _is_installed(factory)
    }
    for name, (factory, kwargs) in _PACKAGES.items():
        if _is_installed(factory):
            found[name] = {"factory": factory, "args": [], "kwargs": dict(kwargs)}
    return found


def package_of(name: str) -> str:
    """Return the package that a calculator needs, also where it is not installed; "" if unknown."""
    factories = {known.casefold(): factory for known, (factory, _) in _PACKAGES.items()}
    return factories.get(name.casefold(), "").partition(".")[0]


def _is_installed(factory: str) -> bool:
    """Whether a factory's module is there; an unrelated package of that name has none such."""
    top, *parts = factory.partition(":")[0].split(".")
    try:
        spec = importlib.util.find_spec(top)
        name = top
        for part in parts:
            # Asked of the folders: find_spec of a dotted name would import the package.
            if spec is None or spec.submodule_search_locations is None:
                return False
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    except (ImportError, ValueError, AttributeError):
        return False
    return spec is not None
