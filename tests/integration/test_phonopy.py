"""Phonons by the displacements of the real phonopy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.environments import evaluate
from support.processes import Cli

pytestmark = pytest.mark.slow

#: A first environment is downloaded, s.
DOWNLOADING = 600

#: No symmetry is left.
TRICLINIC = [[2.9, 0, 0], [0.2, 3.0, 0], [0.1, 0.3, 2.8]]

#: Both ways' frequencies in THz and force constants, and how often the second one asked.
BOTH = """
import json
from ase import Atoms
from ase.build import bulk
from aserpc import Client
from aserpc.parallel import phonons

asked = []

class Counting(Client):
    def submit(self, *args, **kwargs):
        asked.append(args)
        return super().submit(*args, **kwargs)

crystal = {crystal}
options = dict(supercell={supercell}, center_refcell={center})
with Counting({broker!r}) as client:
    plain = phonons(crystal, "emt", client=client, **options)
    by_ase = len(asked)
    asked.clear()
    symmetric = phonons(crystal, "emt", client=client, displacements="phonopy", **options)
path = crystal.cell.bandpath(npoints=20)
one, other = (p.get_band_structure(path).energies for p in (plain, symmetric))
symmetric.phonopy.run_mesh([4, 4, 4])
print(json.dumps([
    by_ase, len(asked), float(abs(one).max()), float(abs(one - other).max()),
    float(abs(plain.get_force_constant() - symmetric.get_force_constant()).max()),
    len(symmetric.phonopy.dataset["first_atoms"]),
]))
"""


@pytest.mark.timeout(DOWNLOADING)
@pytest.mark.parametrize(
    ("crystal", "supercell", "center", "by_phonopy"),
    [
        ("bulk('NiAl', 'cesiumchloride', a=2.9)", (3, 3, 3), False, 2),
        ("bulk('Cu')", (2, 3, 2), True, 2),
        (
            f"Atoms('NiAl', [(0, 0, 0), (1.4, 1.5, 1.3)], cell={TRICLINIC}, pbc=True)",
            (2, 1, 3),
            True,
            12,
        ),
    ],
    ids=["cubic", "supercell less symmetric", "triclinic"],
)
def test_symmetry_needs_fewer_displacements_for_the_same_phonons(
    cli: Cli,
    environment: Callable[..., Path],
    crystal: str,
    supercell: tuple[int, int, int],
    center: bool,
    by_phonopy: int,
) -> None:
    cli.broker()
    cli.start("worker", "EMT", "--name", "emt")
    code = BOTH.format(crystal=crystal, supercell=supercell, center=center, broker=cli.frontend)
    by_ase, asked, largest, frequencies, constants, displacements = evaluate(
        [environment("phonopy>=2.20") / "python"], code
    )
    assert by_ase % 6 == 1
    assert asked == displacements == by_phonopy
    # Both are finite differences, along other directions: third derivatives cancel, fourth remain.
    assert frequencies < 1e-3 * largest
    assert constants < 5e-3
