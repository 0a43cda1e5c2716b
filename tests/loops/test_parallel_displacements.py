"""Hessians, vibrations and phonons over workers: ASE's own numbers, by ASE's own formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from ase.phonons import Phonons
from ase.thermochemistry import HarmonicThermo
from ase.vibrations import Vibrations

from aserpc import Client, RemoteCalculator
from aserpc.parallel import hessian, phonons, vibrations
from support.calculators import Charged, Failing, Spring
from support.service import Service


class EnergyOnly(Spring):
    """Has no forces."""

    implemented_properties: list[str] = ["energy"]  # noqa: RUF012 -- as in ASE


@pytest.fixture
def client(service: Service) -> Client:
    """A client of a broker with two workers of EMT."""
    service.start_broker()
    for _ in range(2):
        service.start_worker("emt", EMT)
    return service.client()


@pytest.fixture
def water() -> Atoms:
    """A molecule at EMT's minimum, without a calculator."""
    atoms: Atoms = molecule("H2O")
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=1e-3)
    atoms.calc = None
    return atoms


def serial(atoms: Atoms, folder: Path, calculator: Any = None, **options: Any) -> Vibrations:
    """Return what ASE computes here."""
    atoms = atoms.copy()
    atoms.calc = calculator or EMT()
    vib = Vibrations(atoms, name=str(folder / "serial"), **options)
    vib.run()
    return vib


def argon() -> LennardJones:
    return LennardJones(rc=2.0)


def adsorbed() -> Atoms:
    slab: Atoms = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    add_adsorbate(slab, "O", 1.2, "fcc")
    slab.set_constraint(FixAtoms(mask=[atom.symbol == "Cu" for atom in slab]))
    return slab


@pytest.mark.parametrize("nfree", [2, 4])
@pytest.mark.parametrize("method", ["standard", "frederiksen"])
@pytest.mark.parametrize("direction", ["central", "forward", "backward"])
def test_vibrations_are_those_of_ase(
    client: Client, water: Atoms, tmp_path: Path, nfree: int, method: str, direction: str
) -> None:
    there = vibrations(
        water, "emt", client=client, nfree=nfree, method=method, direction=direction, delta=0.02
    )
    vib = serial(water, tmp_path, nfree=nfree, delta=0.02)
    vib.read(method, direction)
    here = vib.get_vibrations(method, direction)
    assert np.array_equal(there.get_hessian(), here.get_hessian())
    assert np.array_equal(there.get_energies(), here.get_energies())
    assert np.array_equal(there.get_modes(), here.get_modes())


def test_only_free_atoms_are_displaced_or_those_that_are_wanted(
    client: Client, tmp_path: Path
) -> None:
    slab = adsorbed()
    there = vibrations(slab, "emt", client=client)
    here = serial(slab, tmp_path).get_vibrations()
    assert there.get_indices().tolist() == here.get_indices().tolist() == [8]
    assert np.array_equal(there.get_hessian(), here.get_hessian())
    chosen = vibrations(slab, "emt", client=client, indices=[-1, 4])
    assert chosen.get_indices().tolist() == [8, 4]
    assert np.array_equal(
        chosen.get_hessian(),
        serial(slab, tmp_path / "two", indices=[8, 4]).get_vibrations().get_hessian(),
    )


def test_a_hessian_is_an_array(client: Client, service: Service, tmp_path: Path) -> None:
    cluster = Atoms("Ar3", [(0, 0, 0), (1.1, 0, 0), (0.5, 1, 0)])
    service.start_worker("lj", LennardJones)
    found = hessian(cluster, "lj", client=client)
    assert found.shape == (3, 3, 3, 3)
    here = serial(cluster, tmp_path, LennardJones()).get_vibrations()
    assert np.array_equal(found, here.get_hessian())


def test_thermochemistry_takes_the_energies(client: Client, water: Atoms, tmp_path: Path) -> None:
    def free_energy(data: Any) -> float:
        energies = data.get_energies()[-3:].real
        return float(HarmonicThermo(energies).get_helmholtz_energy(300, verbose=False))

    there = free_energy(vibrations(water, "emt", client=client))
    assert there == free_energy(serial(water, tmp_path).get_vibrations())


def test_the_structure_stays_as_it_is(client: Client, water: Atoms) -> None:
    before = water.copy()
    water.calc = EMT()
    vibrations(water, "emt", client=client)
    assert water == before
    assert isinstance(water.calc, EMT)


def test_a_remote_calculator_tells_whom_to_ask(client: Client, water: Atoms) -> None:
    named = hessian(water, "emt", client=client)
    water.calc = RemoteCalculator("emt", client.broker)
    assert np.array_equal(hessian(water), named)


def test_without_a_client_the_settings_tell(
    client: Client, water: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASERPC_IPC_FRONTEND", client.broker)
    assert np.array_equal(hessian(water, "emt"), hessian(water, "emt", client=client))


def test_forces_in_a_folder_are_not_computed_again(
    client: Client, water: Atoms, tmp_path: Path, service: Service
) -> None:
    folder = tmp_path / "vib"
    first = vibrations(water, "emt", client=client, name=folder)
    assert len(list(folder.glob("cache.*.json"))) == 18
    kept = Vibrations(water, name=str(folder))
    assert np.array_equal(kept.get_vibrations().get_hessian(), first.get_hessian())
    service.start_worker("never", Failing)
    again = vibrations(water, "never", client=client, name=folder)
    assert np.array_equal(again.get_hessian(), first.get_hessian())
    (folder / "cache.1y+.json").unlink()
    water.info["error"] = "SCFError"
    with pytest.raises(Exception, match="of the calculator's own"):
        vibrations(water, "never", client=client, name=folder)
    assert not (folder / "cache.1y+.json").exists(), "what failed leaves no file behind"


def test_information_travels_with_the_displacements(client: Client, service: Service) -> None:
    service.start_worker("charged", Charged)
    atoms = Atoms("H", info={"charge": 2})
    assert not hessian(atoms, "charged", client=client).any()


def test_mistakes_are_told(client: Client, water: Atoms, service: Service) -> None:
    service.start_worker("scalar", EnergyOnly)
    with pytest.raises(PropertyNotImplementedError):
        vibrations(water, "scalar", client=client)
    for options, message in [
        ({"method": "best"}, "method is one of 'standard', 'frederiksen', not 'best'"),
        ({"direction": "up"}, "direction is one of"),
        ({"nfree": 3}, "nfree is 2 or 4"),
        ({"delta": 0}, "delta is a positive number"),
        ({"indices": []}, "no atoms to displace"),
        ({"indices": [3]}, "structure with 3 atoms"),
        ({"indices": [1, 1]}, "more than once"),
    ]:
        with pytest.raises(ValueError, match=message):
            vibrations(water, "emt", client=client, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whom to ask"):
        vibrations(water, client=client)
    with pytest.raises(TypeError, match=r"an ase\.Atoms, not 'H2O'"):
        vibrations("H2O", "emt", client=client)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"an aserpc\.Client, not 'emt'"):
        vibrations(water, "emt", client="emt")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name is a text"):
        vibrations(water, EMT(), client=client)  # type: ignore[arg-type]


def test_a_failure_cancels_the_rest(client: Client, service: Service) -> None:
    service.start_worker("failing", Failing)
    atoms = Atoms("H20", np.arange(60).reshape(20, 3), info={"error": "SCFError"})
    with pytest.raises(Exception, match="of the calculator's own"):
        hessian(atoms, "failing", client=client)
    assert hessian(Atoms("H"), "failing", client=client).shape == (1, 3, 1, 3)


@pytest.mark.parametrize("center", [False, True])
def test_phonons_are_those_of_ase(
    client: Client, service: Service, tmp_path: Path, center: bool
) -> None:
    service.start_worker("lj", argon)
    crystal = bulk("ArNe", "cesiumchloride", a=1.2)
    options: dict[str, Any] = {"supercell": (3, 3, 3), "delta": 0.02, "center_refcell": center}
    there = phonons(crystal, "lj", client=client, **options)
    here = Phonons(crystal, argon(), name=str(tmp_path / "phonon"), **options)
    here.run()
    here.read()
    assert isinstance(there, Phonons)
    assert np.array_equal(there.get_force_constant(), here.get_force_constant())
    path = crystal.cell.bandpath("GXM", npoints=12)
    assert np.array_equal(
        there.get_band_structure(path).energies, here.get_band_structure(path).energies
    )
    there.read(method="standard", acoustic=False)
    here.read(method="standard", acoustic=False)
    assert np.array_equal(there.get_force_constant(), here.get_force_constant())
    assert np.array_equal(there.check_eq_forces()[:2], here.check_eq_forces()[:2])


def test_phonons_differ_no_more_than_a_calculator_that_has_seen_others(
    client: Client, tmp_path: Path
) -> None:
    # EMT adds its neighbours in the order in which it found them, maybe for another displacement.
    crystal = bulk("NiAl", "cesiumchloride", a=2.9)
    there = phonons(crystal, "emt", client=client, supercell=(3, 3, 3))
    here = Phonons(crystal, EMT(), name=str(tmp_path / "phonon"), supercell=(3, 3, 3))
    here.run()
    here.read()
    assert np.allclose(there.get_force_constant(), here.get_force_constant(), rtol=0, atol=1e-10)


def test_phonons_are_kept_in_a_folder(client: Client, tmp_path: Path, service: Service) -> None:
    crystal = bulk("Al", a=4.05)
    folder = tmp_path / "phonon"
    first = phonons(crystal, "emt", client=client, supercell=(2, 2, 2), name=folder)
    assert len(list(folder.glob("cache.*.json"))) == 7
    service.start_worker("never", Failing)
    crystal.info["error"] = "SCFError"
    again = phonons(crystal, "never", client=client, supercell=(2, 2, 2), name=folder)
    assert np.array_equal(again.get_force_constant(), first.get_force_constant())


@pytest.mark.parametrize("supercell", [(2, 2), (2, 2, 0), (2, 2, 1.5), "333", 3])
def test_a_supercell_is_three_numbers(client: Client, supercell: Any) -> None:
    with pytest.raises(ValueError, match="supercell is three numbers from 1"):
        phonons(bulk("Al"), "emt", client=client, supercell=supercell)


def test_mistakes_in_how_phonons_are_read_are_told_first(client: Client) -> None:
    asked: dict[str, Any] = {"supercell": (2, 2, 2), "client": client}
    with pytest.raises(ValueError, match="method is one of 'standard', 'frederiksen', not 'best'"):
        phonons(bulk("Al"), "nobody", method="best", **asked)
    with pytest.raises(TypeError, match="'acustic', is unknown"):
        phonons(bulk("Al"), "nobody", acustic=True, **asked)


def test_phonopy_is_asked_for_by_name(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aserpc.parallel.symmetric.find_spec", lambda name: None)
    options: dict[str, Any] = {"supercell": (2, 2, 2), "client": client}
    with pytest.raises(ModuleNotFoundError, match="pip install phonopy"):
        phonons(bulk("Al"), "emt", displacements="phonopy", **options)
    with pytest.raises(ValueError, match="displacements is one of 'ase', 'phonopy'"):
        phonons(bulk("Al"), "emt", displacements="both", **options)
    with pytest.raises(ValueError, match="name is a folder of ASE's"):
        phonons(bulk("Al"), "emt", displacements="phonopy", name="here", **options)
