"""What a client's process is asked to do; needs only ASE and NumPy, in any version."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS

from benchmarks.timing import Roles, measure

#: How long clients work before and after what is counted, s.
RAMP = 0.2

#: How far a call moves its structure, so that nothing is cached, Å.
STEP = 0.001


def structure(atoms: int) -> Atoms:
    """Return a periodic structure of so many atoms."""
    rng = np.random.default_rng(atoms)
    edge = 3.0 * atoms ** (1 / 3)
    positions = rng.random((atoms, 3)) * edge
    return Atoms("H" * atoms, positions=positions, cell=[edge] * 3, pbc=True)


class Tasks:
    """The tasks of those who have ASE calculators.

    Parameters
    ----------
    make
        Returns a calculator for a name and the structure that it is for.
    """

    def __init__(self, make: Callable[[str, Atoms], Any]) -> None:
        self._make = make
        self._made: dict[tuple[str, int], Any] = {}
        self._atoms: dict[tuple[str, int], Atoms] = {}

    def _structure(self, name: str, atoms: int) -> Atoms:
        key = name, atoms
        if key not in self._atoms:
            self._atoms[key] = structure(atoms)
            self._atoms[key].calc = self._calculator(name, self._atoms[key])
        return self._atoms[key]

    def _calculator(self, name: str, atoms: Atoms) -> Any:
        key = name, len(atoms)
        if key not in self._made:
            self._made[key] = self._make(name, atoms)
        return self._made[key]

    def forces(self, name: str, atoms: int, calls: int, roles: Roles) -> dict[str, Any]:
        """Measure the forces of structures that differ."""
        system = self._structure(name, atoms)

        def call() -> None:
            system.positions[0, 0] += STEP
            system.get_forces()

        return measure(call, calls, 5, roles)

    def properties(self, name: str, atoms: int, calls: int, roles: Roles) -> dict[str, Any]:
        """Measure energy, then forces, then stress of structures that differ."""
        system = self._structure(name, atoms)

        def call() -> None:
            system.positions[0, 0] += STEP
            system.get_potential_energy()
            system.get_forces()
            system.get_stress()

        return measure(call, calls, 5, roles)

    def bfgs(self, name: str, roles: Roles) -> dict[str, Any]:
        """Measure a relaxation of 8 rattled copper atoms; `seconds` is of a step."""
        system = bulk("Cu", cubic=True) * (2, 1, 1)
        system.rattle(0.1, seed=1)
        system.calc = self._calculator(name, system)
        steps = 0

        def call() -> None:
            nonlocal steps
            with BFGS(system, logfile=None) as optimizer:
                optimizer.run(fmax=0.001, steps=100)
                steps = optimizer.nsteps + 1

        return _each(measure(call, 1, 0, roles), steps)

    def md(self, name: str, steps: int, roles: Roles) -> dict[str, Any]:
        """Measure molecular dynamics of 8 copper atoms; `seconds` is of a step."""
        system = bulk("Cu", cubic=True) * (2, 1, 1)
        system.calc = self._calculator(name, system)
        MaxwellBoltzmannDistribution(system, temperature_K=300, rng=np.random.default_rng(1))
        dynamics = VelocityVerlet(system, timestep=2 * units.fs)
        return _each(measure(lambda: dynamics.run(steps), 1, 0, roles), steps)

    def neb(self, name: str, images: int, calls: int, roles: Roles) -> dict[str, Any]:
        """Measure the forces of a band with ``parallel=True``."""
        chain = []
        for number in range(images + 2):
            image = bulk("Cu", cubic=True) * (2, 2, 2)
            image.positions[0] += 0.05 * number
            image.calc = self._make(name, image)
            chain.append(image)
        for end in (chain[0], chain[-1]):  # else the first call alone computes them
            end.get_potential_energy()
        band = NEB(chain, parallel=True)

        def call() -> None:
            for image in chain[1:-1]:
                image.positions[1, 0] += STEP
            band.get_forces()

        return measure(call, calls, 1, roles)

    def window(self, name: str, atoms: int, start_at: float, seconds: float) -> dict[str, Any]:
        """Count the calls in a window of time."""
        system = self._structure(name, atoms)
        # What two clients ask for is never the same: a worker would compute it once.
        system.positions[-1] += np.random.default_rng().random(3)

        def call() -> None:
            system.positions[0, 0] += STEP
            system.get_forces()

        return {"count": count_calls(call, start_at, seconds)}

    def pipelined(self, name: str, atoms: int, requests: int) -> dict[str, Any]:
        """Ask for many structures at once: with 16 threads, for want of something better."""
        local = threading.local()
        systems = [structure(atoms) for _ in range(requests)]
        for number, system in enumerate(systems):
            system.positions[0, 0] += STEP * number

        def call(system: Atoms) -> None:
            if not hasattr(local, "calculator"):
                local.calculator = self._make(name, system)
            system.calc = local.calculator
            system.get_forces()

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(call, systems[:32]))
            start = time.perf_counter()
            list(pool.map(call, systems))
            return {"seconds": (time.perf_counter() - start) / requests}


def count_calls(call: Callable[[], None], start_at: float, seconds: float) -> int:
    """Count the calls that begin in a window of time, which other processes share.

    All begin `RAMP` before the window and go on after it, so that it sees them at their pace.
    """
    first, last, count = start_at + RAMP, start_at + RAMP + seconds, 0
    time.sleep(max(0.0, start_at - time.monotonic()))
    while (now := time.monotonic()) < last + RAMP:
        call()
        count += first <= now < last
    return count


def _each(measured: dict[str, Any], steps: int) -> dict[str, Any]:
    """Divide what was measured by a number of steps."""
    cpu = {role: seconds / steps for role, seconds in measured["cpu"].items()}
    return {"seconds": measured["seconds"] / steps, "cpu": cpu}
