"""Whether a calculator answers as it should: as another one does, or as any must.

`Conformance` is what ``aserpc verify`` prints and `CalculatorContract` asserts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_properties

from aserpc.errors import ServiceError
from aserpc.testing import symmetries
from aserpc.testing.answers import (
    Answers,
    ask,
    differences,
    error_difference,
    forget,
    shape_faults,
    type_differences,
)
from aserpc.testing.changes import changes, elsewhere, without_charge, without_moments
from aserpc.testing.structures import standard_structures

__all__ = ["CHECKS", "Conformance", "Finding", "Tolerances", "Verdict"]

#: Each check and what it shows, in the order in which they are done.
CHECKS: dict[str, str] = {
    "values": "all results are those of the other calculator",
    "types": "shapes are as ASE has them, and with dtypes those of the other calculator",
    "errors": "so are the errors for what can't be computed",
    "translated": "a structure that is somewhere else has the same results",
    "rotated": "one that is turned has the same results, turned",
    "permuted": "with its atoms in another order, it has its results in that order",
    "slopes": "forces and stress are the slopes of the energy (finite differences)",
    "cache": "what is asked again is known; after any change it is computed anew",
    "again": "the same structure has the same results later, with others in between",
    "together": "a structure has the same results when many are asked for at once",
}

_COMPARISONS = ("values", "errors")
_SYMMETRIES: dict[str, Callable[[Atoms], symmetries.Moved]] = {
    "translated": symmetries.translated,
    "rotated": symmetries.rotated,
    "permuted": symmetries.permuted,
}

#: How often each structure is among those that are asked for at once.
TIMES = 3

#: Asks for many structures at once; what it returns is in their order.
Together = Callable[[Sequence[Atoms], Sequence[str]], Sequence["Mapping[str, Any] | Exception"]]


class Verdict(Enum):
    """What a check finds of a structure."""

    #: As it should be.
    OK = "ok"
    #: Not as it should be.
    DIFFERS = "differs"
    #: The calculator can't compute the structure, which is its right.
    REFUSED = "refused"
    #: There was nothing to check.
    NOTHING = "-"


@dataclass(frozen=True)
class Finding:
    """What a check has found of a structure.

    Attributes
    ----------
    structure, check : str
        Their names.
    verdict : Verdict
        How it is.
    texts : tuple of str
        In words: each difference, or why the calculator refuses.
    """

    structure: str
    check: str
    verdict: Verdict
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tolerances:
    """How much numbers may differ, relative to the largest of a result or to 1.

    Attributes
    ----------
    same : float
        Of what is computed from the same numbers: float32 sums differ in another order.
    symmetry : float
        Of a structure that was moved as a whole.
    slope : float
        Of forces and finite differences.
    """

    same: float = 5e-6
    symmetry: float = 1e-4
    slope: float = 5e-3


class Conformance:
    """Checks of a calculator on a set of structures.

    Parameters
    ----------
    calculator
        The ASE calculator; it is reset often.
    reference
        Another one that it must agree with. Without it, what must hold of any calculator is
        checked instead.
    structures : mapping of str to ase.Atoms, optional
        By name; `standard_structures` by default.
    together : callable, optional
        Asks for a list of structures and a list of properties at once; returns the results of
        each, or its error. Without it, that is not checked.
    tolerances : Tolerances
        How much numbers may differ.
    notices_info : bool
        Whether it must notice a change of ``atoms.info``. ASE's own cache does not; what is served
        does.
    """

    def __init__(
        self,
        calculator: Any,
        reference: Any = None,
        structures: Mapping[str, Atoms] | None = None,
        together: Together | None = None,
        tolerances: Tolerances | None = None,
        *,
        notices_info: bool = False,
    ) -> None:
        self.calculator = calculator
        self.reference = reference
        self.structures = dict(standard_structures() if structures is None else structures)
        self.together = together
        self.tolerances = tolerances or Tolerances()
        self.notices_info = notices_info
        self._answers: dict[str, Answers] = {}
        self._references: dict[str, Answers] = {}
        self._at_once: dict[str, list[Mapping[str, Any] | Exception]] | None = None

    @property
    def checks(self) -> list[str]:
        """The names of the checks that are done."""
        others = (*_SYMMETRIES, "slopes") if self.reference is not None else _COMPARISONS
        left_out = {*others, *([] if self.together else ["together"])}
        return [name for name in CHECKS if name not in left_out]

    @property
    def names(self) -> list[str]:
        """The properties that are asked for: all, also those that can't be computed."""
        own = getattr(self.calculator, "implemented_properties", None) or []
        return list(dict.fromkeys([*all_properties, *own]))

    def run(self, checks: Iterable[str] | None = None) -> Iterator[Finding]:
        """Yield what the checks find, structure by structure.

        Raises
        ------
        ServiceError
            If the service could not ask the calculator.
        """
        checks = self.checks if checks is None else list(checks)
        for name in self.structures:
            for check in checks:
                yield self.find(name, check)

    def unseen(self) -> dict[str, str]:
        """Return what the results of a structure do not depend on: a charge, or magnetic moments.

        That may be as it should be; or it is lost on the way.
        """
        found = {}
        for name, atoms in self.structures.items():
            core = self._core(name)
            for what, other in (
                ("charge", without_charge(atoms)),
                ("magnetic moments", without_moments(atoms)),
            ):
                if other is None or not core:
                    continue
                answers = ask(self.calculator, other, core)
                same = differences(answers.values, self._asked(name).values, self.tolerances.same)
                if not answers.errors and not [*same]:
                    found[name] = what
        return found

    def find(self, structure: str, check: str) -> Finding:
        """Return what a check finds of a structure."""
        atoms, answers = self.structures[structure], self._asked(structure)
        if answers.fault is not None and check not in _COMPARISONS:
            told = f"{type(answers.fault).__name__}: {answers.fault}"
            return Finding(structure, check, Verdict.DIFFERS, (told,))
        if answers.refusal is not None and check != "errors":
            told = f"{type(answers.refusal).__name__}: {answers.refusal}"
            return Finding(structure, check, Verdict.REFUSED, (told,))
        if not answers.values and check not in _COMPARISONS:
            return Finding(structure, check, Verdict.NOTHING)
        problems: Iterator[str] | None
        if check in _COMPARISONS:
            problems = self._compared(structure, check)
        elif check in _SYMMETRIES:
            problems = self._moved(_SYMMETRIES[check](atoms), structure)
        else:
            problems = getattr(self, f"_{check}")(structure)
        found = None if problems is None else tuple(problems)
        verdict = (
            Verdict.OK if found == () else Verdict.NOTHING if found is None else Verdict.DIFFERS
        )
        return Finding(structure, check, verdict, found or ())

    def _asked(self, structure: str) -> Answers:
        if structure not in self._answers:
            atoms = self.structures[structure]
            self._answers[structure] = ask(self.calculator, atoms, self.names)
        return self._answers[structure]

    def _sound(self, structure: str) -> dict[str, Any]:
        """Return those results that can be computed with."""
        answers = self._asked(structure)
        faults = shape_faults(answers.values, len(self.structures[structure]))
        return {name: value for name, value in answers.values.items() if name not in faults}

    def _expected(self, structure: str) -> Answers:
        if structure not in self._references:
            atoms = self.structures[structure]
            self._references[structure] = ask(self.reference, atoms, self.names)
        return self._references[structure]

    def _types(self, structure: str) -> Iterator[str]:
        answers = self._asked(structure)
        if self.reference is None:
            yield from shape_faults(answers.values, len(self.structures[structure])).values()
            return
        expected = self._expected(structure)
        yield from type_differences(answers.values, expected.values)
        yield from type_differences(_others(answers), _others(expected))

    # ---- against another calculator --------------------------------------------------------------

    def _compared(self, structure: str, check: str) -> Iterator[str]:
        found, expected = self._asked(structure), self._expected(structure)
        if check == "errors":
            for name in self.names:
                told = error_difference(found.errors.get(name), expected.errors.get(name))
                if told:
                    yield f"{name}: {told}"
        else:
            same = self.tolerances.same
            yield from differences(found.values, expected.values, same)
            yield from differences(_others(found), _others(expected), same)
            for name in _others(expected).keys() - found.results.keys():
                yield f"{name} is missing among the results"

    # ---- what must hold anyway -------------------------------------------------------------------

    def _moved(self, moved: symmetries.Moved, structure: str) -> Iterator[str] | None:
        expected = moved.expected(self._sound(structure))
        if not expected:
            return None
        found = ask(self.calculator, moved.atoms, list(expected))
        return self._told(found, expected, self.tolerances.symmetry)

    def _told(self, found: Answers, expected: Mapping[str, Any], tolerance: float) -> Iterator[str]:
        for name, error in found.errors.items():
            if name in expected:
                yield f"{name}: {type(error).__name__}: {error}"
        yield from differences(found.values, expected, tolerance)

    def _slopes(self, structure: str) -> Iterator[str] | None:
        values = self._sound(structure)
        # Of a calculator with smeared electrons it is the free energy that has these slopes.
        name = "free_energy" if "free_energy" in values else "energy"
        if name not in values or not {"forces", "stress"} & {*values}:
            return None

        def energy(atoms: Atoms) -> float:
            forget(self.calculator)
            return float(self.calculator.get_property(name, atoms))

        return self._caught(
            symmetries.slopes(self.structures[structure], values, energy, self.tolerances.slope)
        )

    @staticmethod
    def _caught(problems: Iterator[str]) -> Iterator[str]:
        try:
            yield from problems
        except ServiceError:
            raise
        except Exception as error:  # noqa: BLE001 -- the calculator's, close to what it can compute
            yield f"{type(error).__name__}: {error}"

    # ---- what is kept, and how it is asked for ---------------------------------------------------

    def _cache(self, structure: str) -> Iterator[str]:
        calculator, atoms = self.calculator, self.structures[structure].copy()
        names = self._core(structure)
        before = ask(calculator, atoms, names)
        # Those of the older kind have a cache of another kind, and say no.
        if isinstance(calculator, Calculator) or getattr(calculator, "use_cache", True):
            for name in names:
                if calculator.get_property(name, atoms, False) is None:
                    yield f"{name} is computed again when it is asked for again"
        yield from self._kept_from(atoms, names, before)
        for change, changed in changes(atoms, info=self.notices_info):
            ask(calculator, atoms, names)
            found = ask(calculator, changed, names, new=False)
            expected = self._anew(structure, changed, names)
            for told in differences(found.values, expected.values, self.tolerances.same):
                yield f"after another {change}, {told}"
            for name in names:
                told = error_difference(found.errors.get(name), expected.errors.get(name))
                if told:
                    yield f"after another {change}, {name}: {told}"

    def _anew(self, structure: str, changed: Atoms, names: Sequence[str]) -> Answers:
        """Return what a changed structure has, with nothing remembered."""
        if self.reference is not None and not [*self._compared(structure, "values")]:
            return ask(self.reference, changed, names)
        # What is remembered from this one can't be taken for the changed structure.
        ask(self.calculator, elsewhere(changed), names)
        return ask(self.calculator, changed, names)

    def _kept_from(self, atoms: Atoms, names: Sequence[str], before: Answers) -> Iterator[str]:
        """Change what was given, and see whether it is what the calculator keeps."""
        for name in names:
            value = self.calculator.get_property(name, atoms)
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value += 1
        after = ask(self.calculator, atoms, names, new=False)
        for name in {
            told.split()[0]
            for told in differences(after.values, before.values, self.tolerances.same)
        }:
            yield f"{name} changes with the array that was returned"

    def _again(self, structure: str) -> Iterator[str]:
        atoms, answers = self.structures[structure], self._asked(structure)
        ask(self.calculator, elsewhere(atoms), self._core(structure))
        found = ask(self.calculator, atoms, [*answers.values])
        return self._told(found, answers.values, self.tolerances.same)

    def _core(self, structure: str) -> list[str]:
        """Return what comes of one calculation of nearly all calculators."""
        values = self._asked(structure).values
        return [name for name in ("energy", "forces") if name in values] or [*values][:1]

    def _together(self, structure: str) -> Iterator[str] | None:
        if self._at_once is None:
            self._at_once = self._all_at_once()
        if structure not in self._at_once:
            return None
        expected = {k: self._asked(structure).values[k] for k in self._core(structure)}
        return self._told_of_all(self._at_once[structure], expected)

    def _told_of_all(
        self, answers: Sequence[Mapping[str, Any] | Exception], expected: Mapping[str, Any]
    ) -> Iterator[str]:
        for number, found in enumerate(answers, start=1):
            if isinstance(found, Exception):
                yield f"{number} of {len(answers)}: {type(found).__name__}: {found}"
                continue
            for told in differences(found, expected, self.tolerances.same):
                yield f"{number} of {len(answers)}: {told}"
            for name in expected.keys() - found.keys():
                yield f"{number} of {len(answers)}: {name} is missing"

    def _all_at_once(self) -> dict[str, list[Mapping[str, Any] | Exception]]:
        assert self.together is not None
        groups: dict[tuple[str, ...], list[str]] = {}
        for name in self.structures:
            if self._asked(name).values:
                groups.setdefault(tuple(self._core(name)), []).extend([name] * TIMES)
        found: dict[str, list[Mapping[str, Any] | Exception]] = {}
        for names, members in groups.items():
            # Neighbours differ: what is given to the wrong one shows.
            members = [name for i in range(TIMES) for name in members[i::TIMES]]
            answers = self.together([self.structures[m].copy() for m in members], names)
            for member, answer in zip(members, answers, strict=True):
                found.setdefault(member, []).append(answer)
        return found


def _others(answers: Answers) -> dict[str, Any]:
    """Return the results that nobody asked for."""
    return {k: v for k, v in answers.results.items() if k not in answers.values and v is not None}
