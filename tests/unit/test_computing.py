"""Batches: each request gets its own answer, and one that fails does so alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aserpc.batchers import find_batcher
from aserpc.messages import Answer, Request
from aserpc.payload import pack_atoms, unpack_results
from aserpc.worker.batching import Batching, Job, Limits
from aserpc.worker.calculation import Evaluation
from aserpc.worker.computing import MAX_FAULTS, Computer, count_atoms, is_out_of_memory
from support.batches import Reusing, Small, Together, Wrong

SESSION = b"s" * 16

#: Ways in which a whole batch is wrong, of `Wrong`.
WRONG = ["raises", "too few", "shape", "missing", "nan", "moves"]
WRONG += ["unreadable", "all energies", "all charges", "speechless"]


def structure(size: int, bad: str = "") -> Atoms:
    """Return atoms whose energy tells their number."""
    atoms = Atoms(f"H{size}", positions=[(float(size), 0, row) for row in range(size)])
    if bad:
        atoms.info["bad"] = bad
    return atoms


def job(number: int, atoms: Atoms, *properties: str) -> Job:
    request = Request(SESSION, number, "it", properties=list(properties or ("energy", "forces")))
    return Job(request, list(pack_atoms(atoms).frames()), 0.0)


class Desk:
    """A computer, and what it asked for."""

    def __init__(self, calculator: Together) -> None:
        self.calculator = calculator
        self.batching = Batching(Limits(16, 1000), count_atoms)
        #: How many requests each call was for.
        self.calls: list[int] = []
        self.evaluation = Evaluation(calculator)
        batcher = find_batcher(calculator)
        self.computer = Computer(self.evaluation, batcher, self.batching, b"about", self.watch)

    @contextmanager
    def watch(self, jobs: Sequence[Job]) -> Iterator[None]:
        self.calls.append(len(jobs))
        yield

    def answers(self, *jobs: Job) -> dict[int, tuple[Answer, dict[str, Any]]]:
        found: dict[int, tuple[Answer, dict[str, Any]]] = {}
        for answer, frames in self.computer.answers(jobs):
            assert answer.id not in found, "answered twice"
            found[answer.id] = (answer, unpack_results(frames) if frames else {})
        assert found.keys() == {job.request.id for job in jobs}
        return found

    def check(self, *sizes: int) -> None:
        """Ask for structures of these sizes: each must get what is its own."""
        found = self.answers(*(job(number, structure(n)) for number, n in enumerate(sizes)))
        for number, size in enumerate(sizes):
            answer, results = found[number]
            assert answer.error is None
            expected = alone(structure(size))
            assert results["energy"] == expected["energy"]
            np.testing.assert_array_equal(results["forces"], expected["forces"])


def alone(atoms: Atoms) -> dict[str, Any]:
    return Together().compute(atoms, [])


def kinds(found: dict[int, tuple[Answer, dict[str, Any]]]) -> list[str | None]:
    return [answer.error["kind"] if answer.error else None for answer, _ in found.values()]


@pytest.fixture
def desk() -> Desk:
    return Desk(Together())


def test_several_are_computed_in_one_call(desk: Desk) -> None:
    desk.check(3, 1, 2)
    assert desk.calculator.batches == [3]
    assert desk.calculator.asked == []
    assert desk.calls == [3]


def test_the_answer_tells_with_how_many(desk: Desk) -> None:
    found = desk.answers(*(job(n, structure(2)) for n in range(3)))
    assert [answer.batch for answer, _ in found.values()] == [3, 3, 3]
    assert [answer.about for answer, _ in found.values()] == [b"about"] * 3
    ((answer, _),) = desk.answers(job(9, structure(2))).values()
    assert answer.batch == 1


def test_one_alone_is_computed_by_the_calculator(desk: Desk) -> None:
    desk.check(3)
    assert desk.calculator.batches == []
    assert desk.calculator.asked == [["energy", "forces"]]


def test_what_the_calculator_keeps_is_forgotten_after_a_batch(desk: Desk) -> None:
    desk.check(3)
    desk.check(1, 2)
    desk.check(3)
    assert len(desk.calculator.asked) == 2


def test_a_batch_is_asked_for_all_that_one_asks_for(desk: Desk) -> None:
    asked: list[Any] = []
    compute = desk.calculator.compute

    def note(atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        asked.append(properties)
        return compute(atoms, properties)

    desk.calculator.compute = note  # type: ignore[method-assign]
    desk.answers(job(0, structure(1), "energy"), job(1, structure(2), "stress", "energy"))
    assert asked == [["energy", "stress"]] * 2


# ---- what fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", range(8))
def test_a_bad_structure_fails_alone(desk: Desk, where: int) -> None:
    jobs = [job(n, structure(n + 1, "structure" if n == where else "")) for n in range(8)]
    found = desk.answers(*jobs)
    for number, (answer, results) in found.items():
        if number == where:
            assert answer.error is not None
            assert "a bad structure" in answer.error["message"]
        else:
            assert answer.error is None
            assert results["energy"] == alone(structure(number + 1))["energy"]
    assert len(desk.calculator.asked) <= 2, "the others share batches"


def test_one_that_cannot_be_read_fails_alone(desk: Desk) -> None:
    broken = Job(Request(SESSION, 1, "it"), [b"\x00\x00\x00\x00\xc1"], 0.0)
    found = desk.answers(job(0, structure(2)), broken, job(2, structure(3)))
    assert sorted(found) == [0, 1, 2]
    assert [found[n][0].error is None for n in range(3)] == [True, False, True]
    assert (found[1][0].error or {})["kind"] == "protocol"
    assert desk.calculator.batches == [2]


def test_one_that_asks_for_what_there_is_not_fails_alone(desk: Desk) -> None:
    found = desk.answers(job(0, structure(2)), job(1, structure(2), "dipole"), job(2, structure(3)))
    assert (found[1][0].error or {})["types"][0].endswith("PropertyNotImplementedError")
    assert desk.calculator.batches == [2]


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_batch_harms_nobody(how: str) -> None:
    desk = Desk(Wrong(how))
    desk.check(3, 1, 2, 5)
    assert desk.calculator.batches[0] == 4
    assert len(desk.calculator.asked) == 4


@pytest.mark.parametrize("how", ["none", "objects"])
def test_a_wrong_value_in_a_batch_harms_nobody(how: str) -> None:
    desk = Desk(Wrong(how))
    desk.check(3, 1, 2, 5)
    assert desk.calculator.batches == [4]
    assert len(desk.calculator.asked) == 1


def test_arrays_that_are_used_again_are_packed_before() -> None:
    desk = Desk(Reusing())
    desk.check(3, 1, 2, 5)
    assert len(desk.calculator.asked) == 1


def test_batches_that_fail_for_nothing_are_given_up(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(Wrong("raises"))
    for _ in range(MAX_FAULTS + 2):
        desk.check(3, 1)
    assert desk.calculator.batches == [2] * MAX_FAULTS
    assert desk.batching.limits.structures == 1
    assert "no more are tried" in caplog.text


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("lacks a key", "KeyError: 'energies'"),
        ("generator", "calculate_batch returned a generator; it must return a list of dicts, the"),
        ("numbers of each", "calculate_batch returned a list of float; it must return a list of"),
        ("dict", "calculate_batch returned a dict; it must return a list of dicts, the results of"),
        ("too few", "a batch of 2 structures has 1 results"),
        ("nan", "forces of a batch that is not finite, but is for each structure alone"),
        ("objects", "TypeError: ufunc 'isfinite'"),
        ("unreadable", "RuntimeError: call detach() first"),
        ("all energies", "energy of 3 atoms have the shape (2,)"),
        ("all charges", "charges of 3 atoms have the shape (4,)"),
        ("speechless", "SpeechlessError (its message is lost: RuntimeError in str())"),
    ],
)
def test_why_batches_are_given_up_is_told(
    how: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(Wrong(how))
    for _ in range(MAX_FAULTS):
        desk.check(3, 1)
    (line,) = caplog.messages
    assert line.startswith(f"{MAX_FAULTS} batches failed")
    assert why in line
    assert "computing.py" not in line, "the mistake is not there"


def test_bad_structures_are_no_reason_to_give_batches_up(desk: Desk) -> None:
    for _ in range(3 * MAX_FAULTS):
        desk.answers(job(0, structure(2)), job(1, structure(2, "structure")))
    desk.check(1, 2)
    assert desk.calculator.batches[-1] == 2
    assert desk.batching.limits.structures == 16


# ---- memory --------------------------------------------------------------------------------------


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


@pytest.mark.parametrize("error", [MemoryError, OutOfMemoryError])
def test_without_memory_a_batch_is_halved_and_the_next_ones_are_smaller(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(Small(most=10, error=error))
    desk.check(*[4] * 8)
    assert desk.calculator.batches == [8, 4, 2, 2, 4, 2, 2]
    assert desk.calculator.asked == []
    assert desk.batching.limits.atoms == 8
    # Both halves failed; the second one and the whole changed nothing.
    assert caplog.messages == [
        "out of memory for 4 structures with 16 atoms; batches have at most 8 atoms now",
    ]
    jobs = {(SESSION, n): job(n, structure(4)) for n in range(8)}
    assert len(desk.batching.take(jobs)) == 2


def test_what_is_too_large_for_the_memory_alone_fails_alone() -> None:
    desk = Desk(Small(most=10))
    desk.calculator.compute = too_large_alone(desk.calculator)  # type: ignore[method-assign]
    found = desk.answers(job(0, structure(2)), job(1, structure(20)), job(2, structure(3)))
    assert [found[n][0].error is None for n in range(3)] == [True, False, True]
    assert desk.batching.limits == Limits(16, 1000), "the others are not to blame"


def too_large_alone(calculator: Together) -> Any:
    compute = calculator.compute

    def limited(atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        if len(atoms) > 10:
            raise MemoryError
        return compute(atoms, properties)

    return limited


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError(""), False),
    ],
)
def test_what_says_that_there_is_no_memory(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it


def test_the_second_signal_ends_a_batch_too(desk: Desk) -> None:
    def interrupted(atoms: Any, properties: Any) -> Any:
        raise KeyboardInterrupt

    desk.calculator.calculate_batch = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        desk.answers(job(0, structure(1)), job(1, structure(2)))
