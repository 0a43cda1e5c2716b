"""The conformance kit on calculators that are served: what it finds through a broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from aserpc.testing import Conformance, Verdict
from support.conforming import Pairs, PairsTogether
from support.service import Service
from support.waiting import SOON


def conformance(service: Service, reference: Any = None) -> Conformance:
    """Return the checks of what is served as ``it``."""
    client = service.client()

    def together(structures: Sequence[Atoms], names: Sequence[str]) -> list[Mapping[str, Any]]:
        futures = [client.submit("it", atoms, names) for atoms in structures]
        return [future.result(SOON) for future in futures]

    served = service.calculator("it", allow_nonfinite=True)
    return Conformance(served, reference, None, together, notices_info=True)


def faulty(checks: Conformance, *names: str) -> set[str]:
    return {f.check for f in checks.run(names or None) if f.verdict is Verdict.DIFFERS}


def test_what_is_served_is_what_is_made_here(service: Service) -> None:
    service.start_broker()
    service.start_worker("it", PairsTogether)
    checks = conformance(service, Pairs())
    assert {f.verdict for f in checks.run()} == {Verdict.OK}


def test_what_is_served_keeps_what_must_hold(service: Service) -> None:
    service.start_broker()
    service.start_worker("it", EMT)
    checks = conformance(service)
    assert {f.verdict for f in checks.run()} <= {Verdict.OK, Verdict.NOTHING}


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("charge", "values"),
        ("order", "values"),
        ("stale", "cache"),
        ("stale charges", "cache"),
        ("dtype", "types"),
        ("missing", "values"),
        ("refuses charges", "errors"),
    ],
)
def test_a_fault_of_what_is_served_shows(service: Service, fault: str, check: str) -> None:
    service.start_broker()
    service.start_worker("it", lambda: Pairs(fault))
    assert faulty(conformance(service, Pairs()), "values", "types", "errors", "cache") >= {check}


def test_a_stale_cache_shows_without_another_calculator(service: Service) -> None:
    service.start_broker()
    service.start_worker("it", lambda: Pairs("stale charges"))
    found = [f for f in conformance(service).run(["cache"]) if f.verdict is Verdict.DIFFERS]
    assert "after another set of initial charges, energy is" in found[0].texts[0]


def test_results_of_a_batch_that_are_anothers_show(service: Service) -> None:
    service.start_broker()
    # The first is computed alone, and the others gather behind it.
    service.start_worker("it", lambda: PairsTogether("batch"), max_batch=64, batch_wait=0.5)
    checks = conformance(service)
    crystals = ("bulk", "triclinic", "magnetic")
    checks.structures = {name: checks.structures[name] for name in crystals}
    assert faulty(checks, "together") == {"together"}
    assert "3 of 3" in "".join(t for f in checks.run(["together"]) for t in f.texts)
