"""Requests of different clients share the calls of one worker, and scripts see nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms

from aserpc import CalculationError, Client, RemoteCalculator
from support.batches import GatedTogether, Together
from support.calculators import Gate, Spring
from support.service import Service
from support.waiting import InThread, wait_for


class Asked:
    """A question that is asked in a thread."""

    def __init__(self, remote: RemoteCalculator, x: float, bad: str = "") -> None:
        self.remote = remote
        self.atoms = Atoms("H", [(x, 0, 0)], info={"bad": bad} if bad else {})
        self.atoms.calc = remote
        self._thread = InThread(lambda: float(self.atoms.get_potential_energy()))

    def energy(self) -> float:
        energy = self._thread.result()
        assert energy is not None
        return energy

    def batch_size(self) -> int:
        self.energy()
        return int(self.remote.provenance["batch_size"])


class Site:
    """A broker, and a worker whose calls wait for a gate."""

    def __init__(self, service: Service, folder: Path, **options: Any) -> None:
        self.service, self.folder = service, folder
        service.start_broker()
        self.calculator = GatedTogether(str(folder))
        service.start_worker("it", lambda: self.calculator, **options)

    def ask(self, x: float, bad: str = "") -> Asked:
        """Have a client of its own ask."""
        return Asked(self.service.calculator("it"), x, bad)

    def calls(self) -> list[int]:
        """Return how many structures each call had."""
        found = [path.name.split("-")[2:] for path in self.folder.glob("started-*")]
        return [int(size) for _, size in sorted(found, key=lambda each: int(each[0]))]

    def have(self, number: int) -> None:
        """Wait until the worker has so many requests."""
        wait_for(lambda: self.running() == number, what=lambda: str(self.running()))

    def running(self) -> int:
        return sum(self.service.status()["running_requests"].values())

    def open(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
def site(service: Service, tmp_path: Path) -> Iterator[Site]:
    site = Site(service, tmp_path)
    yield site
    site.open()


def test_what_waits_meanwhile_is_computed_together(site: Site) -> None:
    first = site.ask(1.0)
    wait_for(lambda: site.calls() == [1])
    others = [site.ask(float(x)) for x in range(2, 9)]
    site.have(8)
    site.open()
    assert first.energy() == 0.5
    for x, other in zip(range(2, 9), others, strict=True):
        assert other.energy() == x**2 / 2, "each has its own"
    assert site.calls() == [1, 7]
    assert first.batch_size() == 1
    assert [other.batch_size() for other in others] == [7] * 7


def test_one_bad_structure_fails_alone(site: Site) -> None:
    first = site.ask(1.0)
    wait_for(lambda: site.calls() == [1])
    others = {x: site.ask(float(x), "structure" if x == 3 else "") for x in range(2, 6)}
    site.have(5)
    site.open()
    assert first.energy() == 0.5
    with pytest.raises(CalculationError, match="a bad structure"):
        others.pop(3).energy()
    assert {x: other.energy() for x, other in others.items()} == {2: 2, 4: 8, 5: 12.5}


def test_one_client_s_futures_share_batches(service: Service) -> None:
    service.start_broker()
    calculator = Together()
    service.start_worker("it", lambda: calculator, max_batch=4)
    structures = [Atoms("H", [(x, 0, 0)]) for x in range(40)]
    with Client(service.frontend) as client:
        futures = [client.submit("it", atoms, ["energy"]) for atoms in structures]
        energies = [future.result()["energy"] for future in futures]
    assert energies == [x**2 / 2 for x in range(40)]
    assert max(calculator.batches) == 4
    assert sum(calculator.batches) + len(calculator.asked) == 40


def test_a_client_alone_waits_for_nobody(service: Service) -> None:
    service.start_broker()
    calculator = Together()
    # With such a window a single wait would be longer than the test.
    service.start_worker("it", lambda: calculator, batch_wait=1e6)
    remote = service.calculator("it")
    for x in range(1, 6):
        atoms = Atoms("H", [(x, 0, 0)])
        atoms.calc = remote
        assert atoms.get_potential_energy() == x**2 / 2
    assert calculator.batches == []


def test_clients_after_one_another_wait_for_nobody(service: Service) -> None:
    service.start_broker()
    service.start_worker("it", Together, batch_wait=1e6)
    for x in range(1, 6):
        atoms = Atoms("H", [(x, 0, 0)])
        atoms.calc = service.calculator("it")
        assert atoms.get_potential_energy() == x**2 / 2


def test_with_a_window_those_who_come_again_are_waited_for(
    service: Service, tmp_path: Path
) -> None:
    site = Site(service, tmp_path, batch_wait=2.0)
    clients = [service.calculator("it") for _ in range(3)]
    first = Asked(clients[0], 1.0)
    wait_for(lambda: site.calls() == [1])
    others = [Asked(remote, 2.0) for remote in clients[1:]]
    site.have(3)
    site.open()
    assert [each.energy() for each in (first, *others)] == [0.5, 2.0, 2.0]
    for x in range(3, 9):
        again = [Asked(remote, float(x)) for remote in clients]
        assert [each.energy() for each in again] == [x**2 / 2] * 3
    # Not sooner for certain: `have` tells what was sent to the worker, not what it has got.
    assert site.calls()[-3:] == [3, 3, 3]


def test_without_batches_it_is_the_calculator_that_computes(service: Service) -> None:
    service.start_broker()
    calculator = Together()
    service.start_worker("it", lambda: calculator, max_batch=1)
    with Client(service.frontend) as client:
        futures = [client.submit("it", Atoms("H", [(x, 0, 0)]), ["energy"]) for x in range(9)]
        assert [future.result()["energy"] for future in futures] == [x**2 / 2 for x in range(9)]
    assert calculator.batches == []
    assert len(calculator.asked) == 9


def test_a_calculator_without_batches_hoards_no_requests(service: Service, tmp_path: Path) -> None:
    service.start_broker(allow_mixed=True)
    service.start_worker("it", lambda: Gate(str(tmp_path)), max_batch=8)
    with Client(service.frontend) as client:
        futures = [client.submit("it", Atoms("H", [(x, 0, 0)]), ["energy"]) for x in range(4)]
        wait_for(lambda: service.status()["pending_requests"] == {"it": 3})
        service.start_worker("it", Spring)
        assert [future.result()["energy"] for future in futures[1:]] == [0.5, 2.0, 4.5]
        (tmp_path / "go").touch()
        assert futures[0].result()["energy"] == 0


def test_a_trial_is_made_before_it_serves(service: Service) -> None:
    service.start_broker()
    calculator = Together()
    worker = service.start_worker("it", lambda: calculator, max_batch="auto")
    tried = list(calculator.batches)
    assert tried
    assert max(tried) >= 2
    assert worker.max_batch == "auto"
    assert service.calculator("it").get_property("energy", Atoms("H", [(2, 0, 0)])) == 2
