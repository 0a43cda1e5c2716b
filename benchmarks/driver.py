"""A client's process: reads commands as lines of JSON, and answers each with one.

``python -m benchmarks.driver KIND ADDRESS``, in the environment of the contender.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from benchmarks.calculators import factory
from benchmarks.tasks import Tasks, structure


def _in_process(address: str) -> Any:  # noqa: ARG001 -- all have the same form
    return Tasks(lambda name, atoms: factory(name)())  # noqa: ARG005


class _Served(Tasks):
    """Those of the package aserpc, of either version."""

    def __init__(self, address: str) -> None:
        from aserpc import RemoteCalculator

        self.address = address
        super().__init__(
            lambda name, atoms: RemoteCalculator(name, broker=address)  # noqa: ARG005
        )

    def ready(self, names: dict[str, int], timeout: float) -> dict[str, Any]:
        """Wait until so many workers serve each name."""
        from aserpc import broker_status

        ends_at = time.monotonic() + timeout
        while True:
            try:
                found = broker_status(self.address)["workers"]
            except Exception as error:  # noqa: BLE001 -- two packages' own errors
                found, why = {}, str(error)
            else:
                why = f"it has {found}"
            if all(found.get(name, {}).get("idle", 0) >= count for name, count in names.items()):
                return {}
            if time.monotonic() > ends_at:
                raise TimeoutError(f"not ready: {names} are wanted, {why}")
            time.sleep(0.1)


class _Futures(_Served):
    """Ours, with what is ours alone."""

    def relax(self, name: str, number: int, steps: int, start_at: float) -> dict[str, Any]:
        """Relax a crystal from an instant on; tell the results of its first geometry, too."""
        from ase.optimize import BFGS

        from aserpc import RemoteCalculator
        from benchmarks.models import crystal

        atoms = crystal(number)
        atoms.calc = calculator = RemoteCalculator(name, broker=self.address)
        first: dict[str, Any] = {}
        sizes = []

        def note() -> None:
            if not first:
                first["energy"] = [float(atoms.get_potential_energy())]
                first["forces"] = atoms.get_forces().ravel().tolist()
            sizes.append(calculator.provenance["batch_size"])

        optimizer = BFGS(atoms, logfile=None)
        optimizer.attach(note)
        time.sleep(max(0.0, start_at - time.monotonic()))
        optimizer.run(fmax=0.0, steps=steps)
        seconds = time.monotonic() - start_at
        return {"seconds": seconds, "batch_size": sum(sizes) / len(sizes), **first}

    def pipelined(self, name: str, atoms: int, requests: int) -> dict[str, Any]:
        """Ask for many structures at once, as futures."""
        from aserpc import Client

        systems = [structure(atoms) for _ in range(requests)]
        for number, system in enumerate(systems):
            system.positions[0, 0] += 0.001 * number
        with Client(self.address) as client:
            for future in [client.submit(name, system, ["forces"]) for system in systems[:32]]:
                future.result()
            start = time.perf_counter()
            futures = [client.submit(name, system, ["forces"]) for system in systems]
            for future in futures:
                future.result()
            return {"seconds": (time.perf_counter() - start) / requests}


def _floor(address: str) -> Any:
    from benchmarks.floor import FloorTasks

    return FloorTasks(address)


def _socket(address: str) -> Any:
    from benchmarks.socket_io import SocketTasks

    return SocketTasks(address)


KINDS = {
    "in-process": _in_process,
    "aserpc": _Futures,
    "aserpc-0.1.3": _Served,
    "floor": _floor,
    "socket": _socket,
}


def main(kinds: dict[str, Any]) -> None:
    """Obey until the input ends."""
    kind, address = sys.argv[1:3]
    tasks = kinds[kind](address)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever others print is no answer
    for line in sys.stdin:
        command = json.loads(line)
        task = command.pop("task")
        answer = {} if task == "nothing" else getattr(tasks, task)(**command)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(KINDS)
