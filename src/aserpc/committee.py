"""`CommitteeCalculator`: several served calculators as one, with what they disagree about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes, compare_atoms
from ase.outputs import Properties, all_outputs
from ase.stress import full_3x3_to_voigt_6_stress

from aserpc.client import Client, RemoteCalculator, Results
from aserpc.client.arguments import calculator_name, positive
from aserpc.client.needs import PropertyNeeds
from aserpc.errors import CalculationError
from aserpc.payload import PackedAtoms, pack_atoms

#: Where the members' values of a property are; ``energies`` of one atom each is another property.
_MEMBERS = {"energy": "energies_committee", "energies": "atomic_energies_committee"}


class CommitteeCalculator(Calculator):
    """Asks several served calculators at once, and returns their mean.

    Parameters
    ----------
    names : sequence of str
        Names of the calculators, two or more.
    broker, timeout, check_broker, deadline, allow_nonfinite
        As for `RemoteCalculator`; the deadline holds for each member.
    ddof : int
        Delta degrees of freedom of the standard deviation, as for `numpy.std`: 0 divides by the
        number of members, 1 by one less.

    Raises
    ------
    ValueError
        If there are fewer than two names, or one comes twice.
    BrokerUnreachableError
        (a `ConnectionError`) If `check_broker` is true and no broker answers within 2 s.

    Notes
    -----
    For each property of ASE that all members return, `results` has the mean under its own name,
    the standard deviation as ``energy_std``, ``forces_std``, and the members' values, in their
    order along the first axis, as ``energies_committee``, ``forces_committee``,
    ``stress_committee`` and so on.

    All members are asked at the same time, so that a calculation takes as long as the slowest
    member. An error of any of them is raised. One thread at a time may use a committee, as with
    other calculators of ASE.
    """

    def __init__(
        self,
        names: Sequence[str],
        broker: str | None = None,
        timeout: float | None = None,
        check_broker: bool = True,
        *,
        deadline: float | None = None,
        allow_nonfinite: bool = False,
        ddof: int = 0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if isinstance(names, str):
            raise TypeError(f"names is a list of calculators' names, not {names!r}")
        self.names = [calculator_name(name) for name in names]
        if len(self.names) < 2:
            raise ValueError(f"a committee has two or more members, not {self.names}")
        if len({*self.names}) < len(self.names):
            raise ValueError(f"each member of a committee is another calculator, not {self.names}")
        if isinstance(ddof, bool) or not isinstance(ddof, int) or not 0 <= ddof < len(self.names):
            raise ValueError(f"ddof is a number from 0 below that of the members, not {ddof!r}")
        self.ddof = ddof
        self.deadline = None if deadline is None else positive("deadline", deadline)
        self._client = Client(
            broker, timeout, check_broker=check_broker, allow_nonfinite=allow_nonfinite
        )
        self.broker = self._client.broker
        self._needs = PropertyNeeds()
        self._implemented: list[str] | None = None
        self._packed: PackedAtoms | None = None
        self._found: list[Results] = []

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),  # noqa: ARG002 -- looked for here
    ) -> None:
        """Ask all members for properties of a system; see the class for what `results` has."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ValueError(f"the committee of {self.names} has no system yet: give atoms")
        if self.check_state(atoms):
            self.reset()
            self._needs.next_geometry()
        names = list(properties)
        for name in names:
            self._needs.note(name)
        asked = [name for name in self._needs.ask_for(names[0]) if name not in self.results]
        try:
            found = self._ask(atoms, asked or names)
        except CalculationError:
            if {*asked} <= {*names}:
                raise
            # What the script needed before may be what fails for this system.
            found = self._ask(atoms, names)
            self._needs.forget_others(names[0])
        self._found = [
            new.with_known(known) for known, new in zip(self._found or found, found, strict=True)
        ]
        self._packed = pack_atoms(atoms).owned()
        self.atoms = atoms.copy()
        self.results = self._combined()

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what has changed since the last calculation, in ASE's words."""
        if self._packed is not None and pack_atoms(atoms).same_key(self._packed):
            return []
        changes = compare_atoms(self.atoms, atoms, tol=tol)
        return list(changes or all_changes)

    def reset(self) -> None:
        """Forget what was calculated."""
        super().reset()  # type: ignore[no-untyped-call]
        self._packed, self._found = None, []

    def export_properties(self) -> Properties:
        """Return those of the results that have a name in ASE, for its file formats."""
        return Properties({k: v for k, v in self.results.items() if k in all_outputs})

    @property
    def implemented_properties(self) -> list[str]:  # type: ignore[override]
        """The properties that all members can compute."""
        if self._implemented is None:
            timeout, deadline = self._client.timeout, self.deadline
            first, *others = (
                RemoteCalculator(
                    name, self.broker, timeout, check_broker=False, deadline=deadline
                ).implemented_properties
                for name in self.names
            )
            self._implemented = [name for name in first if all(name in some for some in others)]
        return self._implemented

    @property
    def provenance(self) -> dict[str, dict[str, Any]]:
        """Where each member's results come from, by its name; see `RemoteCalculator.provenance`."""
        found = zip(self.names, self._found, strict=False)
        return {name: results.provenance for name, results in found}

    def close(self) -> None:
        """Give back the connection; the calculator stays usable."""
        self._client.close()

    def __enter__(self) -> CommitteeCalculator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _get_name(self) -> str:
        return "+".join(self.names)

    def todict(self, skip_default: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """Return what ASE's files record of the calculator."""
        return {"names": self.names, "broker": self.broker, "ddof": self.ddof}

    def __repr__(self) -> str:
        return f"CommitteeCalculator({self.names!r}, broker={self.broker!r})"

    def _ask(self, atoms: Atoms, properties: list[str]) -> list[Results]:
        futures = []
        try:
            for name in self.names:
                future = self._client.submit(name, atoms, properties, deadline=self.deadline)
                futures.append(future)
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def _combined(self) -> dict[str, Any]:
        results: dict[str, Any] = {}
        first, *others = self._found
        for name in first:
            # Whole numbers, such as that of k-points, have no mean.
            if name not in all_outputs or all_outputs[name].dtype is not float:
                continue
            if not all(name in other for other in others):
                continue
            values = [_alike(name, found[name]) for found in self._found]
            if len({value.shape for value in values}) > 1:
                continue  # such as the eigenvalues of methods with other numbers of bands
            members = np.array(values)
            mean, deviation = members.mean(axis=0), members.std(axis=0, ddof=self.ddof)
            scalar = members.ndim == 1
            results[name] = float(mean) if scalar else mean
            results[f"{name}_std"] = float(deviation) if scalar else deviation
            results[_MEMBERS.get(name, f"{name}_committee")] = members
        return results


def _alike(name: str, value: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a result in the shape that all members' have."""
    array = np.asarray(value, dtype=float)
    if name in ("stress", "stresses") and array.shape[-2:] == (3, 3):
        # Some calculators return tensors, such as CHGNet's: ASE takes these too.
        array = full_3x3_to_voigt_6_stress(array)
    return array
