"""Our own provider: everything that it names can be made, and finding it imports nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators import acn

from aserpc.calculators import _PACKAGES, get_calculators, package_of
from aserpc.registry import discover


def _water() -> Atoms:
    """One molecule, oxygen first, in the rigid geometry of TIP3P and TIP4P."""
    angle = np.deg2rad(104.52 / 2)
    away = 0.9572 * np.array([[0, 0, 0], [np.sin(angle), np.cos(angle), 0]])
    positions = [*away, away[1] * [-1, 1, 1]]
    return Atoms("OH2", positions=positions)


def _acetonitrile() -> Atoms:
    """One molecule as ACN wants it: its methyl group as one site."""
    positions = [[0, 0, 0], [0, 0, 1.458], [0, 0, 2.615]]
    return Atoms("CCN", positions=positions, masses=[acn.m_me, acn.m_c, acn.m_n])


STRUCTURES = {
    "EMT": bulk("Cu") * (2, 1, 1),
    "LJ": molecule("H2O"),
    "MorsePotential": molecule("H2O"),
    "TIP3P": _water(),
    "TIP4P": _water(),
    "ACN": _acetonitrile(),
    "IdealGas": molecule("H2O"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_each_calculator_of_ase_computes(name: str) -> None:
    atoms = STRUCTURES[name].copy()
    atoms.calc = discover()[0][name].make()
    assert np.isfinite(atoms.get_potential_energy())
    assert np.isfinite(atoms.get_forces()).all()


def test_all_calculators_of_ase_are_shown_to_compute() -> None:
    ours = {name for name, item in get_calculators().items() if item["factory"].startswith("ase.")}
    assert ours == set(STRUCTURES)


def _fake(site: Path, module: str) -> None:
    """Make a package that can't be imported, with the module that a factory is in."""
    path = site
    *parents, last = module.split(".")
    for parent in parents:
        path = path / parent
        path.mkdir(exist_ok=True)
        (path / "__init__.py").write_text("raise RuntimeError('imported')")
    (path / f"{last}.py").write_text("raise RuntimeError('imported')")


def test_installed_packages_are_found_without_importing_them(tmp_path: Path) -> None:
    for factory, _ in _PACKAGES.values():
        _fake(tmp_path, factory.partition(":")[0])
    code = """
import sys
from aserpc.registry import discover
entries, failures = discover()
assert not failures, failures
tops = {entry.factory_path.partition(":")[0].partition(".")[0] for entry in entries.values()}
print(*entries)
print(*(tops | {"numpy", "scipy", "torch"}) & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    names, imported = done.stdout.splitlines()
    assert set(_PACKAGES) | set(STRUCTURES) <= set(names.split())
    assert imported == ""


def test_an_unrelated_package_of_that_name_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mace.py").write_text("")
    (tmp_path / "sevenn").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not {"mace_mp", "sevenn"} & set(get_calculators())


def test_every_known_package_is_named() -> None:
    assert package_of("MACE_mp") == "mace"
    assert all(package_of(name) for name in _PACKAGES)
    assert package_of("LJ") == ""
