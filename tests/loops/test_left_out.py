"""What a structure has and the wire has no form for: a warning at the user's line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from ase import Atoms
from ase.optimize import BFGS

from aserpc import LeftOutWarning, RemoteCalculator
from support.asking import atom
from support.calculators import Spring
from support.service import Service


def ask_for_energy(atoms: Atoms, service: Service) -> None:
    atoms.get_potential_energy()  # here


def relax(atoms: Atoms, service: Service) -> None:
    with BFGS(atoms, logfile=None) as optimizer:
        optimizer.run(steps=1)  # here


def calculate(atoms: Atoms, service: Service) -> None:
    assert isinstance(atoms.calc, RemoteCalculator)
    atoms.calc.calculate(atoms)  # here


def submit(atoms: Atoms, service: Service) -> None:
    with service.client() as client:
        client.submit("spring", atoms).result(20)  # here


@pytest.mark.parametrize("ask", [ask_for_energy, relax, calculate, submit])
def test_the_warning_is_at_the_users_line(
    service: Service, ask: Callable[[Atoms, Service], None]
) -> None:
    service.start_broker()
    service.start_worker("spring", Spring)
    atoms = atom(1)
    atoms.info["odd"] = object()
    atoms.calc = service.calculator("spring")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ask(atoms, service)
    (warning,) = [w for w in caught if w.category is LeftOutWarning]
    assert "info['odd'] has no form on the wire" in str(warning.message)
    assert warning.filename == __file__
    line = Path(__file__).read_text(encoding="utf-8").splitlines()[warning.lineno - 1]
    assert line.endswith("# here"), line
