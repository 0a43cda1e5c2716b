"""Nudged elastic bands whose images are computed together."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.mep import NEB, NEBTools, interpolate
from ase.optimize import BFGS, FIRE

from aserpc import Client
from aserpc.parallel import neb, relax
from support.calculators import Failing, Spring
from support.service import Service


@pytest.fixture
def client(service: Service) -> Client:
    """A client of a broker with two workers of EMT."""
    service.start_broker()
    for _ in range(2):
        service.start_worker("emt", EMT)
    return service.client()


def guess(images: int = 5) -> list[Atoms]:
    """Return a gold atom on its way from one hollow site to the next."""
    initial = fcc100("Al", size=(2, 2, 2))
    add_adsorbate(initial, "Au", 1.7, "hollow")
    initial.center(axis=2, vacuum=4.0)
    initial.set_constraint(FixAtoms(mask=[atom.tag > 1 for atom in initial]))
    final = initial.copy()
    final[-1].x += final.cell[0, 0] / 2
    for end in (initial, final):
        end.calc = EMT()
        BFGS(end, logfile=None).run(fmax=0.01)
        end.calc = None
    band: list[Atoms] = [initial, *(initial.copy() for _ in range(images - 2)), final]
    interpolate(band)
    return band


def serial(images: list[Atoms], optimizer: Any = BFGS, **options: Any) -> list[Atoms]:
    """Relax a band with ASE, here."""
    images = [image.copy() for image in images]
    for image in images:
        image.calc = EMT()
    options.setdefault("method", "improvedtangent")
    optimizer(NEB(images, **options), logfile=None).run(fmax=0.1)
    return images


def assert_same(there: list[Atoms], here: list[Atoms]) -> None:
    # EMT adds its neighbours in the order in which it found them, maybe for another image.
    for one, other in zip(there, here, strict=True):
        assert np.allclose(one.positions, other.positions, rtol=0, atol=1e-8)
        assert one.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=1e-8)
        assert np.allclose(one.get_forces(), other.get_forces(), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"climb": True, "k": 0.2},
        {"method": "string", "optimizer": FIRE},
    ],
    ids=["plain", "climbing", "string"],
)
def test_a_band_is_that_of_ase(client: Client, options: dict[str, Any]) -> None:
    images = guess()
    there = neb(images, "emt", client=client, fmax=0.1, **options)
    assert there.converged
    assert_same(there, serial(images, **options))
    assert there[0].calc.name == "emt"


@pytest.mark.parametrize("moves_along", [False, True])
def test_the_same_bit_by_bit_where_a_calculator_remembers_nothing(
    service: Service, moves_along: bool
) -> None:
    options: dict[str, Any] = {"remove_rotation_and_translation": moves_along}
    service.start_broker()
    for _ in range(2):
        service.start_worker("lj", LennardJones)
    initial = Atoms("Ar4", [(0, 0, 0), (1.1, 0, 0), (0.5, 1, 0), (0.5, 0.3, 0.9)])
    final = initial.copy()
    final[3].z *= -1
    images = [initial, *(initial.copy() for _ in range(4)), final]
    interpolate(images)
    for image in images:
        image.rattle(0.02, seed=1)
    there = neb(images, "lj", client=service.client(), steps=20, **options)
    for image in images:
        image.calc = LennardJones()
    band: Any = NEB(images, method="improvedtangent", **options)
    BFGS(band, logfile=None).run(fmax=0.05, steps=20)
    for one, other in zip(there, images, strict=True):
        assert np.array_equal(one.positions, other.positions)
        assert np.array_equal(one.get_forces(), other.get_forces())
    assert there.steps == 20
    assert not there.converged


def test_ases_tools_read_a_band_and_a_second_stage_goes_on(client: Client) -> None:
    images = guess()
    rough = neb(images, "emt", client=client, fmax=0.2)
    fine = neb(rough, "emt", client=client, climb=True, fmax=0.1)
    barrier, _ = NEBTools(fine).get_barrier()
    assert barrier == pytest.approx(0.374, abs=0.01)


def test_those_given_stay_as_they_are(client: Client) -> None:
    images = guess()
    before = [image.copy() for image in images]
    neb(images, "emt", client=client, steps=2)
    assert images == before
    assert all(image.calc is None for image in images)


def test_all_images_of_a_step_are_computed_at_once(service: Service) -> None:
    service.start_broker()
    computed = []
    barrier = threading.Barrier(3, timeout=20)

    class Together(Spring):
        def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
            # The ends are computed once, with the first images: five, and then three a step.
            computed.append(atoms)
            if len(computed) > 5:
                barrier.wait()
            return super().compute(atoms, properties)

    for _ in range(3):
        service.start_worker("together", Together)
    images = [Atoms("H", [(x, 1, 0)]) for x in (-1.0, -0.4, 0.1, 0.4, 1.0)]
    assert neb(images, "together", client=service.client(), steps=4, fmax=1e-9).steps == 4
    assert len(computed) == 5 + 3 * 4


def test_a_failure_is_raised(client: Client, service: Service) -> None:
    service.start_worker("failing", Failing)
    images = [Atoms("H", [(x, 1, 0)]) for x in (-1.0, 0.1, 1.0)]
    images[1].info["error"] = "SCFError"
    with pytest.raises(Exception, match="of the calculator's own"):
        neb(images, "failing", client=client)


def test_ends_are_relaxed_together(client: Client) -> None:
    images = guess()
    images[0].positions[-1] += 0.05
    ends = relax([images[0], images[-1]], "emt", client=client, fmax=0.01)
    assert ends.converged == [True, True]


def test_mistakes_are_told(client: Client) -> None:
    water, images = molecule("H2O"), guess(3)
    with pytest.raises(ValueError, match="three or more images, not 2"):
        neb(images[:2], "emt", client=client)
    with pytest.raises(ValueError, match=r"image 1 \(H2O\) has not the atoms of image 0"):
        neb([images[0], water, images[2]], "emt", client=client)
    with pytest.raises(TypeError, match=r"an ase\.Atoms"):
        neb([images[0], None, images[2]], "emt", client=client)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="one structure is several of the images"):
        neb([images[0], *[images[1]] * 2, images[2]], "emt", client=client)
    with pytest.raises(TypeError, match=r"such as ase\.optimize\.FIRE, not 'FIRE'"):
        neb(images, "emt", client=client, optimizer="FIRE")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="parallel is not for"):
        neb(images, "emt", client=client, parallel=True)
    with pytest.raises(ValueError, match="fmax is a positive number"):
        neb(images, "emt", client=client, fmax=0)
    with pytest.raises(ValueError, match="whom to ask"):
        neb(images, client=client)
