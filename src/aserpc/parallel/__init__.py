"""ASE's parallel work, spread over the workers of a service.

Each function takes structures and the name of a calculator, computes at once what can be, and
returns what ASE would: `ase.vibrations.VibrationsData`, `ase.phonons.Phonons`, structures.
"""

from aserpc.parallel.bands import Band, neb
from aserpc.parallel.cells import eos, strain
from aserpc.parallel.displacements import hessian, phonons, vibrations
from aserpc.parallel.ensembles import Ensemble, ensemble
from aserpc.parallel.relaxations import Relaxed, relax

__all__ = [
    "Band",
    "Ensemble",
    "Relaxed",
    "ensemble",
    "eos",
    "hessian",
    "neb",
    "phonons",
    "relax",
    "strain",
    "vibrations",
]
