"""A registry in Python: names and what makes each calculator.

::

    aserpc list --registry registry.py:CALCULATORS
    aserpc worker argon --registry registry.py:CALCULATORS
"""

from functools import partial

from ase import units
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.calculators.morse import MorsePotential


def two_wells():
    """Return a sum of two potentials: a function may build whatever it likes."""
    return SumCalculator([LennardJones(sigma=2.5, epsilon=0.1), MorsePotential(r0=3.0)])


CALCULATORS = {
    # A class that needs no arguments.
    "LJ": LennardJones,
    # A class with arguments: argon after Rahman, Phys. Rev. 136, A405 (1964).
    "argon": partial(LennardJones, sigma=3.4, epsilon=120 * units.kB, rc=8.5, smooth=True),
    # A function.
    "two-wells": two_wells,
    # By name: imported by the worker only, so that this file can list what is not installed here.
    "gfn1": {"factory": "tblite.ase:TBLite", "kwargs": {"method": "GFN1-xTB"}},
}
