"""What a trial of batches says, with times and memory that are made up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import pytest
from ase import Atoms

from aserpc.worker.batching import Limits
from aserpc.worker.probing import TIME, Trial, find_limits
from support.batches import Together, Wrong

#: How many atoms the crystal has.
SIZE = 8


class Machine(Together):
    """Takes so many seconds for a batch, and so much memory; both are made up.

    Parameters
    ----------
    overhead
        Time of a call, s; each structure takes a millisecond more.
    most
        More atoms do not fit into the memory.
    memory
        What an atom takes.
    busy
        Calls take so many times as long, one after the other, because of other processes.
    """

    def __init__(
        self,
        overhead: float,
        most: int = 10_000,
        memory: float = 0.0,
        busy: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.now, self.peak = 0.0, 0.0
        self.overhead, self.most, self.memory = overhead, most, memory
        self._busy = cycle(busy)

    def calculate_batch(self, atoms: Sequence[Atoms], properties: Sequence[str]) -> list[Any]:
        size = sum(map(len, atoms))
        self.now += (self.overhead + 0.001 * len(atoms)) * next(self._busy)
        self.peak = max(self.peak, self.memory * size)
        if size > self.most:
            raise MemoryError
        return super().calculate_batch(atoms, properties)

    def limits(self, left: float = 1e9, most_atoms: int | None = None) -> Limits:
        trial = Trial(lambda: self.now, lambda: (self.peak, left - self.peak))
        default = Limits(16, most_atoms or 512, 0.25)
        return find_limits(self, default, trial, most_atoms=most_atoms)


def test_a_trial_finds_how_many_are_fastest() -> None:
    # A structure takes 1 ms and its part of 100 ms: 5 % above the best, of 512, is between.
    assert Machine(0.1).limits() == Limits(512, 512 * SIZE, 0.25)
    assert Machine(0.0).limits().structures == 1
    assert 8 <= Machine(0.002).limits().structures <= 64


@pytest.mark.parametrize("overhead", [0.0, 0.002, 0.1])
def test_other_processes_that_are_busy_at_times_change_nothing(overhead: float) -> None:
    quiet = Machine(overhead).limits()
    for busy in ([1, 3, 2], [4, 1, 5], [2, 3, 1], [1, 1, 9], [7, 1, 1]):
        assert Machine(overhead, busy=busy).limits() == quiet


def test_what_was_measured_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Machine(0.001, most=40).limits()
    measured = "1: 2 ms, 2: 1.5 ms, 4: 1.25 ms"
    assert caplog.messages[-1] == f"trial: a Cu8 takes, of so many together: {measured}"


# ---- limits --------------------------------------------------------------------------------------


def test_a_trial_ends_where_the_memory_does() -> None:
    assert Machine(0.1, most=200).limits() == Limits(16, 128, 0.25)


def test_a_trial_does_not_try_what_would_take_all_memory() -> None:
    machine = Machine(0.1, memory=1.0)
    limits = machine.limits(left=1000.0)
    assert limits.atoms <= 512
    assert machine.peak <= 1000.0


@pytest.mark.parametrize(
    ("most", "found"), [(100, Limits(8, 64, 0.25)), (64, Limits(8, 64, 0.25)), (10**6, None)]
)
def test_no_more_atoms_are_tried_than_a_person_says(most: int, found: Limits | None) -> None:
    machine = Machine(0.1)
    assert machine.limits(most_atoms=most) == (found or Machine(0.1).limits())
    assert max(machine.batches) * SIZE <= most


def test_a_smaller_one_is_tried_where_fewer_atoms_are_allowed() -> None:
    machine = Machine(0.1)
    assert machine.limits(most_atoms=15) == Limits(4, 12, 0.25)
    assert max(machine.batches) * 3 <= 15, "of water"


@pytest.mark.parametrize("most", [1, 5])
def test_a_limit_that_leaves_nothing_to_compare_is_kept(
    most: int, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(0.1)
    assert machine.limits(most_atoms=most) == Limits(16, most, 0.25)
    assert machine.batches == []
    assert f"max_batch_atoms = {most}" in caplog.text


@pytest.mark.parametrize("overhead", [0.01, 0.3, 1.0, 2.0, 5.0, 9.0, 14.0])
def test_a_trial_takes_no_longer_than_it_may(overhead: float) -> None:
    machine = Machine(overhead)
    machine.limits()
    first_calls = 2 * (overhead + 0.002)
    assert machine.now - first_calls <= TIME


def test_a_slow_model_is_tried_as_far_as_the_time_allows() -> None:
    machine = Machine(2.0)
    assert machine.limits().structures >= 16


def test_one_that_is_too_slow_to_compare_keeps_its_limits() -> None:
    machine = Machine(20.0)
    assert machine.limits() == Limits(16, 512, 0.25)
    assert machine.batches == [2, 2, 1]


# ---- calculators that can't be tried ------------------------------------------------------------


class Odd(Machine):
    """Its batches of at least so many structures are what `spoil` makes of them."""

    def __init__(self, spoil: Callable[[list[Any]], Any], least: int = 0) -> None:
        super().__init__(0.1)
        self.spoil, self.least = spoil, least

    def calculate_batch(self, atoms: Sequence[Atoms], properties: Sequence[str]) -> Any:
        found = super().calculate_batch(atoms, properties)
        return self.spoil(found) if len(atoms) >= self.least else found


def energies(value: Any) -> Callable[[list[Any]], Any]:
    return lambda found: [{**results, "energy": value} for results in found]


def exits(found: list[Any]) -> None:
    sys.exit("no copper")


class Forces(Machine):
    def __init__(self, overhead: float) -> None:
        super().__init__(overhead)
        self.implemented_properties = ["forces", "charges"]

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        assert "energy" not in properties
        return {"forces": super().compute(atoms, properties)["forces"]}


def test_one_without_an_energy_is_tried_by_what_it_has() -> None:
    assert Forces(0.1).limits() == Machine(0.1).limits()


ODD = [
    (energies(None), "the energy of {} is None, with the dtype object"),
    (energies("1.0"), "the energy of {} is '1.0', with the dtype <U3"),
    (energies(float("nan")), "the energy of {} is not finite"),
    (lambda found: [{"forces": 0} for _ in found], "energy is not among the results of a batch"),
    (lambda found: found[1:], "results"),
    (exits, "sys.exit('no copper')"),
]


@pytest.mark.parametrize(("spoil", "why"), ODD)
def test_what_no_client_could_be_given_is_told_and_not_tried_on(
    spoil: Callable[[list[Any]], Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Odd(spoil)
    assert machine.limits() == Limits(16, 512, 0.25)
    assert set(machine.batches) == {2}
    (told,) = caplog.messages
    assert told.startswith("no trial of batches")
    assert why.format("H2O") in told
    assert " probing.py" not in told, "the place is of the calculator's code"


@pytest.mark.parametrize(("spoil", "why"), ODD)
def test_larger_batches_that_are_wrong_end_the_trial(
    spoil: Callable[[list[Any]], Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    machine = Odd(spoil, least=4)
    assert machine.limits() == Limits(2, 2 * SIZE, 0.25)
    assert max(machine.batches) == 4
    assert machine.batches.count(4) == 1
    told = caplog.messages[-2]
    assert told.startswith("a trial with 4 structures failed")
    assert why.format("Cu8") in told


def test_whoever_stops_the_worker_gets_through_a_trial() -> None:
    class Stopped(BaseException):
        pass

    def stops(found: list[Any]) -> None:
        raise Stopped

    for least in (0, 4):
        with pytest.raises(Stopped):
            Odd(stops, least).limits()


@pytest.mark.parametrize(
    ("how", "why"), [("raises", "made for another version"), ("generator", "returned a generator")]
)
def test_a_model_that_knows_none_of_the_crystals_keeps_its_limits(
    how: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert find_limits(Wrong(how), Limits(16, 512)) == Limits(16, 512)
    assert "none of its crystals" in caplog.text
    assert why in caplog.text
