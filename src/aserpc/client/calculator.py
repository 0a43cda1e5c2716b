"""`RemoteCalculator`: an ASE calculator whose calculations run in a worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    all_properties,
    compare_atoms,
)
from ase.outputs import Properties, all_outputs

from aserpc import transport
from aserpc.client import blocking
from aserpc.client.arguments import calculator_name, number_from, positive
from aserpc.client.failures import retry_pause, to_exception
from aserpc.client.guards import check_complete, check_results, check_system
from aserpc.client.leftovers import warn_left_out
from aserpc.client.locks import Lock
from aserpc.client.needs import PropertyNeeds
from aserpc.client.provenance import provenance
from aserpc.client.session import Session
from aserpc.errors import CalculationError, DeadlineError, ServiceError
from aserpc.messages import Answer, Buffer, Request, unpack_about
from aserpc.payload import RECORDS, PackedAtoms, pack_atoms, unpack_atoms, unpack_results
from aserpc.settings import load_settings

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Calculated:
    """A system and what is known of it; replaced as a whole, as other threads may look at it."""

    packed: PackedAtoms
    results: dict[str, Any] = field(default_factory=dict)
    #: The system; None: not made yet.
    atoms: Atoms | None = None


class RemoteCalculator(Calculator):
    """A drop-in ASE calculator that is served by workers through a broker.

    Parameters
    ----------
    calc_name : str
        Name under which workers serve the calculator.
    broker : str, optional
        The broker's frontend address; from the settings by default.
    timeout : float, optional
        Milliseconds of silence after which to give up; from the settings (60000) by default.
        While the broker says that the request waits or is being computed, the call goes on.
    check_broker : bool
        Look for the broker at once.
    retries : int
        Further attempts after a failure of the service; never after the calculator's own error.
    deadline : float, optional
        Seconds from the call after which to give up in any case.
    allow_nonfinite : bool
        Send positions and a cell that are NaN or infinite too, and return such results. By default
        both are a `NonFiniteError`.

    Raises
    ------
    BrokerUnreachableError
        (a `ConnectionError`) If `check_broker` is true and no broker answers within 2 s.

    Notes
    -----
    Energy, forces and stress of one geometry are one request where the calculator computes them
    together. Energies are in eV, forces in eV/Å, stresses in eV/Å³, as in ASE.
    """

    def __init__(
        self,
        calc_name: str,
        broker: str | None = None,
        timeout: float | None = None,
        check_broker: bool = True,
        retries: int = 0,
        *,
        deadline: float | None = None,
        allow_nonfinite: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        settings = load_settings({"ipc_frontend": broker}, labels={"ipc_frontend": "broker"})
        self.calc_name = calculator_name(calc_name)
        self.broker = transport.check_address(settings.ipc_frontend)
        self.timeout = positive(
            "timeout", settings.client_timeout_ms if timeout is None else timeout
        )
        self.deadline = None if deadline is None else positive("deadline", deadline)
        self.retries = number_from(0, "retries", retries, "a number of attempts")
        self.allow_nonfinite = allow_nonfinite
        self._session = Session()
        self._needs = PropertyNeeds()
        self._lock = Lock()
        self._calculated: _Calculated | None = None
        self._about = b""
        #: The names that `_about` has, each time it changes.
        self._names: list[str] = []
        self._answer: Answer | None = None
        self._warned: set[str] = set()
        if check_broker:
            blocking.check_broker(self.broker, blocking.CHECK_TIMEOUT)

    # ---- what ASE asks ---------------------------------------------------------------------------

    def get_property(
        self,
        name: str,
        atoms: Atoms | None = None,
        allow_calculation: bool = True,
    ) -> Any:
        """Return a property of a system, computed if it is not known yet.

        See `ase.calculators.calculator.BaseCalculator.get_property`.
        """
        ends_at = self._ends_at()
        # Nearly all have energy and forces: not worth the question.
        knows = bool(self._about) or (allow_calculation and name not in ("energy", "forces"))
        # What serves the name may be another calculator by now, hence the second question.
        if (
            knows
            and name not in self._implemented(ends_at)
            and (not allow_calculation or name not in self._implemented(ends_at, ask=True))
        ):
            raise PropertyNotImplementedError(f"{name} property not implemented")
        with self._lock:
            known = self._calculated
            if atoms is not None:
                packed = pack_atoms(atoms)
                if known is None or not packed.same_key(known.packed):
                    if not allow_calculation:
                        return None
                    packed = self._accept(atoms, packed)
                    self._needs.next_geometry()
                    known = self._set(atoms, _Calculated(packed))
            elif known is None:
                raise ValueError(f"{self.calc_name!r} has no system yet: give atoms")
            if allow_calculation:
                self._needs.note(name)
            results = known.results
            asked = self._needs.ask_for(name)
        if name not in results:
            if not allow_calculation:
                return None
            missing = [n for n in asked if n not in results]
            results = self._fetch(known, name, missing, ends_at)
        value = results[name]
        return value.copy() if isinstance(value, np.ndarray) else value

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),  # noqa: ARG002 -- the worker finds them
    ) -> None:
        """Ask the worker for properties of a system; the results are in `results`."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ValueError(f"{self.calc_name!r} has no system yet: give atoms")
        packed = self._accept(atoms, pack_atoms(atoms))
        results = self._request(packed, list(properties), self._ends_at())
        known = _Calculated(packed, results)
        with self._lock:
            self._set(atoms, known)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what has changed since the last calculation, in ASE's words."""
        known = self._calculated
        if known is not None and pack_atoms(atoms).same_key(known.packed):
            return []
        changes = compare_atoms(self.atoms, atoms, tol=tol)
        return list(changes or all_changes)

    def export_properties(self) -> Properties:
        """Return those of the results that have a name in ASE, for its file formats."""
        return Properties({k: v for k, v in self.results.items() if k in all_outputs})

    @property
    def implemented_properties(self) -> list[str]:  # type: ignore[override]
        """The properties that the served calculator can compute."""
        return list(self._implemented(self._ends_at()))

    @property
    def atoms(self) -> Atoms | None:
        """The system that was calculated last, as it was then."""
        known = self._calculated
        if known is None:
            return None
        if known.atoms is None:
            known.atoms = unpack_atoms(known.packed)
        return known.atoms

    @atoms.setter
    def atoms(self, atoms: Atoms | None) -> None:
        self._calculated = None
        if atoms is not None:
            self._calculated = _Calculated(pack_atoms(atoms).owned(), {}, atoms)

    def _get_name(self) -> str:
        return self.calc_name

    def todict(self, skip_default: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """Return what ASE's files record of the calculator."""
        return {"calc_name": self.calc_name, "broker": self.broker}

    # ---- ours ------------------------------------------------------------------------------------

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the last results come from.

        ``factory``, ``args``, ``kwargs`` of the calculator, ``versions`` of its packages,
        ``python``, ``host`` and ``pid`` of the worker, the calculation's ``seconds``, and its
        ``batch_size``: how many structures it was of.
        """
        return {} if self._answer is None else provenance(self._answer)

    def __enter__(self) -> RemoteCalculator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.reset()  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"]
        state["_needs"], state["_warned"] = deepcopy(self._needs), set(self._warned)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._session = Session()
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"RemoteCalculator({self.calc_name!r}, broker={self.broker!r})"

    def _accept(self, atoms: Atoms, packed: PackedAtoms) -> PackedAtoms:
        """Take a system to be calculated, if it can be; return it in memory of its own."""
        if not self.allow_nonfinite:
            check_system(atoms)
        if packed.left_out:
            warn_left_out(packed.left_out, self._warned)
        return packed.owned()

    def _set(self, atoms: Atoms, known: _Calculated) -> _Calculated:
        # Nearly nobody looks at the copy that ASE's calculators keep: it is made for who does. What
        # is not on the wire would be missing there.
        if known.packed.left_out or RECORDS in atoms.info or type(atoms) is not Atoms:
            known.atoms = atoms.copy()
        self._calculated = known
        self.results = known.results
        return known

    def _implemented(self, ends_at: float | None, *, ask: bool = False) -> list[str]:
        if ask or not self._about:
            answer, _ = self._call("describe", [], [], ends_at)
            self._learn(answer.about)
        return self._names

    def _learn(self, about: bytes) -> None:
        """Keep what a worker says of itself, unless that can't be read: each call would fail."""
        if about != self._about:
            names = unpack_about(about).get("implemented_properties")
            self._names = list(all_properties) if names is None else names
            self._about = about

    def _ends_at(self) -> float | None:
        """Return when a call that begins now must have ended."""
        return None if self.deadline is None else time.monotonic() + self.deadline

    def _fetch(
        self, known: _Calculated, name: str, asked: list[str], ends_at: float | None
    ) -> dict[str, Any]:
        """Ask for what is missing, and keep it unless another thread has gone on meanwhile."""
        try:
            new = self._request(known.packed, asked, ends_at)
        except CalculationError:
            if len(asked) == 1:
                raise
            # What this script needed before may be what fails for this system.
            new = self._request(known.packed, [name], ends_at)
            with self._lock:
                self._needs.forget_others(name)
        results = {**known.results, **new}
        with self._lock:
            if self._calculated is known:
                self._calculated = _Calculated(known.packed, results, known.atoms)
                self.results = results
        return results

    def _request(
        self, packed: PackedAtoms, properties: list[str], ends_at: float | None
    ) -> dict[str, Any]:
        frames = packed.frames()
        transport.check_size(frames)
        answer, payload = self._call("calculate", properties, frames, ends_at)
        self._learn(answer.about)
        results = unpack_results(payload)
        check_complete(results, self.calc_name, properties)
        if not self.allow_nonfinite:
            check_results(results, self.calc_name, properties, packed)
        self._answer = answer
        return results

    def _call(
        self,
        op: str,
        properties: list[str],
        payload: list[Buffer],
        ends_at: float | None,
    ) -> tuple[Answer, list[Buffer]]:
        """Ask the service, again after its own failures as often as `retries` says."""
        for attempt in range(self.retries + 1):
            left = None if ends_at is None else ends_at - time.monotonic()
            if left is not None and left <= 0:
                raise DeadlineError(f"the deadline of the request to {self.calc_name!r} passed")
            request = Request(
                *self._session.next_key(), self.calc_name, op, properties, deadline=left
            )
            with blocking.borrowed(self.broker) as channel:
                end = channel.call(request, payload, self.timeout / 1000, left)
            error = end.error
            if error is None:
                assert end.answer is not None
                if end.answer.error is None:
                    return end.answer, end.payload
                error = to_exception(end.answer.error, self.calc_name)
            if not isinstance(error, ServiceError) or attempt == self.retries:
                raise error
            pause = retry_pause(attempt, error)
            if ends_at is not None:
                pause = min(pause, max(0.0, ends_at - time.monotonic()))
            logger.warning("attempt %d failed, the next in %.3g s: %s", attempt + 1, pause, error)
            time.sleep(pause)
        raise AssertionError
