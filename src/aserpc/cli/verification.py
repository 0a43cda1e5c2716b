"""``aserpc verify``: whether a served calculator answers as one here does, or as any must."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from aserpc.cli.console import complain, print_table
from aserpc.client import Client, RemoteCalculator, Results
from aserpc.errors import AserpcError, RegistryError, ServiceError, SettingsError
from aserpc.messages import unpack_about
from aserpc.registry import resolve
from aserpc.testing import Conformance, Finding, Tolerances, Verdict, standard_structures

#: Lines about one cell of the table; more say no more.
MOST_LINES = 2


@dataclass
class Question:
    """What the command line asks for; see ``aserpc verify --help``."""

    calculator: str
    against: str | None = None
    alone: bool = False
    kwargs: dict[str, Any] | None = None
    registry: str | None = None
    files: list[Path] = field(default_factory=list)
    tolerance: float | None = None
    broker: str | None = None
    as_json: bool = False


def verify(question: Question) -> int:
    """Do it, and return the exit code: 0, or 1 if there are differences.

    Raises
    ------
    SettingsError
        If a file can't be read, or the calculator computes no structure at all.
    RegistryError
        If what to compare with can't be made.
    """
    structures = read_structures(question.files) if question.files else standard_structures()
    served = RemoteCalculator(question.calculator, question.broker, allow_nonfinite=True)
    reference, against = _make_reference(question, served)
    conformance = Conformance(
        served,
        reference,
        structures,
        lambda atoms, names: _ask_together(served, atoms, names),
        _tolerances(question.tolerance),
        notices_info=True,
    )
    findings = []
    with _scratch_folder(), _progress(conformance) as advance:
        for finding in conformance.run():
            findings.append(finding)
            advance(finding)
        # Against another one it shows in the values.
        unseen = conformance.unseen() if reference is None else {}
    verdicts = {f.verdict for f in findings if f.check != "errors"}
    differs = any(f.verdict is Verdict.DIFFERS for f in findings)
    if not differs and Verdict.OK not in verdicts:
        texts = [text for f in findings for text in f.texts]
        raise SettingsError(
            f"{question.calculator!r} computes none of the structures "
            f"({texts[0] if texts else 'it has no property'}); "
            "give some that it knows with --structures FILE"
        )
    _print(question, conformance, findings, against, unseen)
    return 1 if differs else 0


def _tolerances(same: float | None) -> Tolerances:
    """Return how much numbers may differ, if the same ones may by so much."""
    if same is None:
        return Tolerances()
    least = Tolerances()
    return Tolerances(same, max(same, least.symmetry), max(same, least.slope))


def read_structures(files: Sequence[Path]) -> dict[str, Atoms]:
    """Read all structures of files."""
    from ase.io import read

    structures: dict[str, Atoms] = {}
    for file in files:
        try:
            images = read(file, index=":")
        except FileNotFoundError:
            raise SettingsError(f"there is no file {file}") from None
        except Exception as error:  # noqa: BLE001 -- ASE's readers raise what they like
            raise SettingsError(f"cannot read {file}: {type(error).__name__}: {error}") from None
        structures.update({f"{file}@{number}": atoms for number, atoms in enumerate(images)})
    if not structures:
        raise SettingsError(f"no structures are in {', '.join(map(str, files))}")
    return structures


def _make_reference(question: Question, served: RemoteCalculator) -> tuple[Any, str]:
    """Return what to compare with, if there is something, and what that is, or why not."""
    about = _about(served)  # also: somebody has to serve it
    if question.alone:
        return None, "alone"
    asked = (question.against, question.registry, question.kwargs)
    name = question.against or question.calculator
    try:
        entry = resolve(name, registry=question.registry, kwargs=question.kwargs)
        here, there = entry.describe(), {key: about.get(key) for key in entry.describe()}
        # A peer's word is not imported: what is made here by itself has to be the same.
        if asked == (None, None, None) and _text(here) != _text(there):
            return None, f"alone: {_call(there)} is served, and here it would be {_call(here)}"
        return entry.make(), f"against {_call(here)}, made here"
    except RegistryError as error:
        if asked != (None, None, None):
            raise
        return None, f"alone: it can't be made here: {error}"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _about(served: RemoteCalculator) -> dict[str, Any]:
    assert served.implemented_properties is not None  # asks a worker
    return unpack_about(served._about)


def _call(about: Mapping[str, Any]) -> str:
    args = [repr(value) for value in about.get("args") or []]
    args += [f"{key}={value!r}" for key, value in (about.get("kwargs") or {}).items()]
    return f"{about.get('factory')}({', '.join(args)})"


def _ask_together(
    served: RemoteCalculator, structures: Sequence[Atoms], names: Sequence[str]
) -> list[Mapping[str, Any] | Exception]:
    with Client(served.broker, check_broker=False, allow_nonfinite=True) as client:
        futures = [client.submit(served.calc_name, atoms, names) for atoms in structures]
        wait(futures)
        return [_outcome(future) for future in futures]


def _outcome(future: Future[Results]) -> Mapping[str, Any] | Exception:
    error = future.exception()
    if isinstance(error, ServiceError) or not isinstance(error, AserpcError | None):
        raise error
    return future.result() if error is None else error


@contextlib.contextmanager
def _scratch_folder() -> Iterator[None]:
    """Have the calculator here write its files where those of a worker would not be missed."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="aserpc-") as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@contextlib.contextmanager
def _progress(conformance: Conformance) -> Iterator[Callable[[Finding], None]]:
    if not sys.stderr.isatty():
        yield lambda finding: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    total = len(conformance.structures) * len(conformance.checks)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("verifying", total=total)

        def advance(finding: Finding) -> None:
            text = escape(f"{finding.structure}, {finding.check}")
            progress.update(task, advance=1, description=text)

        yield advance


def _print(
    question: Question,
    conformance: Conformance,
    findings: Sequence[Finding],
    against: str,
    unseen: Mapping[str, str],
) -> None:
    if question.as_json:
        rows = [
            {
                "structure": f.structure,
                "check": f.check,
                "verdict": f.verdict.value,
                "texts": list(f.texts),
            }
            for f in findings
        ]
        told = {
            "calculator": question.calculator,
            "how": against,
            "unseen": unseen,
            "findings": rows,
        }
        print(json.dumps(told, indent=2))
        return
    print(f"{question.calculator}, {against}")
    cells = {(f.structure, f.check): f.verdict.value for f in findings}
    print_table(
        question.calculator,
        ["Structure", "Formula", *map(str.capitalize, conformance.checks)],
        [
            (name, atoms.get_chemical_formula(), *(cells[name, c] for c in conformance.checks))
            for name, atoms in conformance.structures.items()
        ],
    )
    for name, what in unseen.items():
        complain(f"note: the results of {name} do not depend on its {what}")
    for name in conformance.structures:
        of_it = [f for f in findings if f.structure == name]
        refused = next((f.texts[0] for f in of_it if f.verdict is Verdict.REFUSED), None)
        if refused is not None:
            complain(f"{name} is refused: {refused}")
        for finding in of_it:
            if finding.verdict is Verdict.DIFFERS:
                _explain(finding)


def _explain(finding: Finding) -> None:
    for text in finding.texts[:MOST_LINES]:
        complain(f"{finding.structure}, {finding.check}: {text}")
    more = len(finding.texts) - MOST_LINES
    if more > 0:
        complain(f"{finding.structure}, {finding.check}: and {more} more, see --json")
