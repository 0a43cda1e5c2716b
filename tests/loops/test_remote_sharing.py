"""A remote calculator is copied, sent, shared, forked and closed like an ordinary object."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.mep import NEB

from aserpc import RemoteCalculator
from support.asking import energy_at
from support.calculators import Gate, Spring
from support.service import Service


@pytest.fixture
def spring(service: Service) -> RemoteCalculator:
    """A remote calculator that is served."""
    service.start_broker()
    service.start_worker("spring", Spring)
    return service.calculator("spring")


def test_pickle_before_and_after_use(spring: RemoteCalculator) -> None:
    before = pickle.loads(pickle.dumps(spring))
    assert energy_at(spring, 2) == 2
    after = pickle.loads(pickle.dumps(spring))
    assert energy_at(before, 4) == 8
    assert energy_at(after, 6) == 18


def test_atoms_with_it_can_be_pickled(spring: RemoteCalculator) -> None:
    atoms = Atoms("H", [(2, 0, 0)], calculator=spring)
    atoms.get_forces()
    assert pickle.loads(pickle.dumps(atoms)).get_potential_energy() == 2


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_are_independent(spring: RemoteCalculator, copied: Any) -> None:
    energy_at(spring, 2)
    other = copied(spring)
    assert energy_at(other, 4) == 8
    assert spring.results["energy"] == 2
    assert energy_at(spring, 2) == 2


def test_many_threads_share_one_with_different_systems(
    spring: RemoteCalculator, service: Service
) -> None:
    service.start_worker("spring", Spring)
    start = threading.Barrier(8)

    def work(number: int) -> list[tuple[float, float]]:
        start.wait()
        pairs = []
        for step in range(25):
            x = number + step / 100
            atoms = Atoms("H", [(x, 0, 0)], calculator=spring)
            pairs.append((atoms.get_potential_energy(), x * x / 2))
            pairs.append((atoms.get_forces()[0, 0], -x))
        return pairs

    with ThreadPoolExecutor(8) as pool:
        for pairs in pool.map(work, range(8)):
            for there, here in pairs:
                assert there == here


def band(calculators: list[Any]) -> NEB:
    first = Atoms("Cu3", [(0, 0, 0), (2.5, 0, 0), (1.2, 2.2, 0)])
    last = first.copy()
    last.positions[2] = 1.3, -2.2, 0
    images = [first, *(first.copy() for _ in calculators), last]
    neb = NEB(images, parallel=True, method="improvedtangent")
    neb.interpolate()
    first.calc, last.calc = EMT(), EMT()
    for image, calculator in zip(images[1:-1], calculators, strict=True):
        image.calc = calculator
    return neb


def test_parallel_neb_with_a_calculator_an_image(service: Service) -> None:
    service.start_broker()
    for _ in range(2):
        service.start_worker("emt", EMT)
    remote = band([service.calculator("emt") for _ in range(3)])
    local = band([EMT() for _ in range(3)])
    for _ in range(3):
        forces = remote.get_forces()
        assert np.array_equal(forces, local.get_forces())
        for neb in (remote, local):
            neb.set_positions(neb.get_positions() + 0.01 * forces)


def forked(work: Any) -> int:
    """Run `work` in a forked process; return its exit code, 9 for an exception."""
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning")
def test_use_after_fork(spring: RemoteCalculator) -> None:
    assert energy_at(spring, 2) == 2
    assert forked(lambda: int(energy_at(spring, 4))) == 8
    assert energy_at(spring, 6) == 18
    assert forked(lambda: int(energy_at(spring, 6))) == 18


@pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning")
def test_large_systems_after_fork(spring: RemoteCalculator) -> None:
    atoms = Atoms("H5000", np.ones((5000, 3)))

    def send() -> int:
        atoms.positions += 1  # not what is known already
        return int(spring.get_property("forces", atoms)[0, 0]) + 10

    assert send() == 8
    assert forked(send) == 7
    assert forked(send) == 7


@pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning")
def test_use_after_a_fork_while_other_threads_compute(spring: RemoteCalculator) -> None:
    stop = threading.Event()

    def work() -> None:
        x = 0.0
        while not stop.is_set():
            energy_at(spring, x := x + 1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert [forked(lambda: int(energy_at(spring, 4))) for _ in range(20)] == [8] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning")
def test_use_in_a_forked_pool(spring: RemoteCalculator) -> None:
    energy_at(spring, 1)
    global _shared
    _shared = spring
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_energy, [2.0, 4.0, 6.0, 8.0]) == [2, 8, 18, 32]
        pool.close()
        pool.join()


_shared: RemoteCalculator


def _energy(x: float) -> float:
    return energy_at(_shared, x)


def test_a_thousand_calculators_take_few_descriptors(service: Service) -> None:
    service.start_broker()
    service.start_worker("spring", Spring)
    service.status()
    before = len(list(Path("/proc/self/fd").iterdir()))
    calculators = [service.calculator("spring") for _ in range(1000)]
    for x, calculator in enumerate(calculators):
        assert energy_at(calculator, x) == x * x / 2
    assert len(list(Path("/proc/self/fd").iterdir())) - before < 20


def test_it_is_a_context_manager(spring: RemoteCalculator) -> None:
    with spring as calculator:
        assert energy_at(calculator, 2) == 2
    assert energy_at(spring, 4) == 8, "and usable afterwards"


@pytest.mark.parametrize(
    "timeout", [5000, 5000.5, np.float32(5000), np.int64(5000), Fraction(10001, 2), float("inf")]
)
def test_timeout_is_any_real_number(spring: RemoteCalculator, timeout: Any) -> None:
    assert energy_at(RemoteCalculator("spring", spring.broker, timeout=timeout), 2) == 2


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), True, "5000", 1j])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        RemoteCalculator("spring", timeout=timeout, check_broker=False)


def test_an_unknown_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="retrys"):
        RemoteCalculator("spring", check_broker=False, retrys=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("retries", [-1, 1.5, True, "2"])
def test_retries_is_a_number_of_attempts(retries: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="retries"):
        RemoteCalculator("spring", check_broker=False, retries=retries)


def test_it_describes_itself(spring: RemoteCalculator) -> None:
    assert spring.name == "spring"
    assert spring.todict()["calc_name"] == "spring"
    assert "spring" in repr(spring)


class Lingering(Atoms):
    """Atoms that take their time to be packed."""

    entered, leave = threading.Event(), threading.Event()

    def get_celldisp(self) -> Any:
        """See `Atoms.get_celldisp`."""
        self.entered.set()
        self.leave.wait()
        return super().get_celldisp()  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore:This process .*fork:DeprecationWarning")
def test_a_fork_leaves_no_lock_of_another_thread(spring: RemoteCalculator) -> None:
    atoms = Lingering("H", [(2, 0, 0)])
    thread = threading.Thread(target=spring.get_property, args=("energy", atoms))
    thread.start()
    try:
        Lingering.entered.wait()
        assert forked(lambda: signal.alarm(10) or int(energy_at(spring, 4))) == 8
    finally:
        Lingering.leave.set()
        thread.join()


def test_a_process_ends_while_a_daemon_thread_waits(service: Service, tmp_path: Path) -> None:
    service.start_broker()
    service.start_worker("gate", lambda: Gate(str(tmp_path)))
    script = f"""
import threading
from ase import Atoms
from aserpc import RemoteCalculator
calculator = RemoteCalculator("gate", {service.frontend!r})
atoms = Atoms("H", calculator=calculator)
threading.Thread(target=atoms.get_potential_energy, daemon=True).start()
while not list(__import__("pathlib").Path({str(tmp_path)!r}).glob("started-*")):
    threading.Event().wait(0.01)
"""
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    finally:
        (tmp_path / "go").touch()
