"""What a run has finished is found by a later one, whatever became of the first."""

from __future__ import annotations

import fcntl
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from aserpc.cli.results import MAGIC, Finished, path_beside
from aserpc.cli.structures import Structure
from aserpc.errors import SettingsError

TASK = {"calculator": "EMT", "kwargs": None}


def structures() -> list[Structure]:
    found = [bulk("Cu"), bulk("Ni"), molecule("CO")]
    return [Structure(Path("in.xyz"), number, atoms) for number, atoms in enumerate(found)]


def finish(structure: Structure) -> None:
    """Do as a relaxation does."""
    structure.atoms.positions += 0.125
    forces = np.linspace(0, 1, 3 * len(structure.atoms)).reshape(-1, 3)
    structure.done("EMT", {"energy": -1.5, "forces": forces})
    structure.converged, structure.steps, structure.seconds = True, 7, 0.25


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.extxyz"


@pytest.fixture
def first(output: Path) -> Path:
    """A file with the first two of the structures."""
    found = structures()
    with Finished(output, TASK) as finished:
        assert finished.restore(found) == found
        for structure in found[:2]:
            finish(structure)
            finished.add(structure)
            finished.add(structure)  # once is enough
    return path_beside(output)


def restored(output: Path, task: dict[str, object] | None = None) -> list[int]:
    found = structures()
    with Finished(output, task or TASK) as finished:
        rest = finished.restore(found)
    return [s.number for s in found if s not in rest]


def test_all_of_a_result_is_found_again(first: Path, output: Path) -> None:
    found, expected = structures(), structures()
    with Finished(output, TASK) as finished:
        assert finished.restore(found) == [found[2]]
    for one, other in zip(found[:2], expected, strict=False):
        finish(other)
        assert one.atoms == other.atoms
        assert one.atoms.get_potential_energy() == -1.5
        assert np.array_equal(one.atoms.get_forces(), other.atoms.get_forces())
        assert one.atoms.calc.name == "EMT"
        assert (one.error, one.energy, one.max_force) == ("", -1.5, other.max_force)
        assert (one.converged, one.steps, one.seconds) == (True, 7, 0.25)
    assert found[2].error is None


def test_where_a_structure_is_from_does_not_matter(first: Path, output: Path) -> None:
    moved = Structure(Path("other.cif"), 9, bulk("Ni"))
    with Finished(output, TASK) as finished:
        assert finished.restore([moved]) == []


def test_another_structure_or_task_is_not_finished(first: Path, output: Path) -> None:
    charged = bulk("Cu")
    charged.info["charge"] = 1
    others = [Structure(Path("in.xyz"), 0, atoms) for atoms in (charged, bulk("Cu", a=3.6))]
    with Finished(output, TASK) as finished:
        assert finished.restore(others) == others
    assert restored(output, {**TASK, "kwargs": {"asap_cutoff": True}}) == []
    assert restored(output) == [0, 1]


def test_restart_forgets(first: Path, output: Path) -> None:
    with Finished(output, TASK, restart=True) as finished:
        assert len(finished.restore(structures())) == 3
    assert not first.exists(), "nothing in it"


def test_what_was_not_written_to_its_end_is_dropped(first: Path, output: Path) -> None:
    content = first.read_bytes()
    for size in range(len(content) - 1, len(MAGIC), -7):
        first.write_bytes(content[:size])
        found = structures()
        with Finished(output, TASK) as finished:
            rest = finished.restore(found)
            assert found[1] in rest
            for structure in rest:
                finish(structure)
                finished.add(structure)
        assert restored(output) == [0, 1, 2]


def test_what_was_changed_is_dropped(first: Path, output: Path) -> None:
    content = bytearray(first.read_bytes())
    content[-20] ^= 1
    first.write_bytes(content)
    assert restored(output) == [0]


def test_a_file_of_somebody_else_is_left_alone(output: Path) -> None:
    path = path_beside(output)
    path.write_text("my notes")
    for restart in (False, True):
        with pytest.raises(SettingsError, match="move it away"):
            Finished(output, TASK, restart=restart)
    assert path.read_text() == "my notes"


def test_two_runs_do_not_share_a_file(output: Path) -> None:
    with Finished(output, TASK), pytest.raises(SettingsError, match="another aserpc run"):
        Finished(output, TASK)
    assert restored(output) == []


def test_a_file_that_goes_before_it_is_locked_is_made_again(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, flock = Finished(output, TASK), fcntl.flock

    def lock_late(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        before.__exit__()  # which has finished nothing, and leaves nothing
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with Finished(output, TASK):
        assert path_beside(output).exists()
        with pytest.raises(SettingsError, match="another aserpc run"):
            Finished(output, TASK)


def test_a_place_that_can_not_be_written_is_a_mistake(tmp_path: Path) -> None:
    path_beside(tmp_path / "out.xyz").mkdir()
    with pytest.raises(SettingsError, match=r"cannot write .*out\.xyz\.done"):
        Finished(tmp_path / "out.xyz", TASK)


def test_without_an_output_nothing_is_kept(tmp_path: Path) -> None:
    found = structures()
    with Finished(None, TASK) as finished:
        assert finished.restore(found) == found
        finish(found[0])
        finished.add(found[0])
    assert list(tmp_path.iterdir()) == []


def test_constraints_are_part_of_what_a_structure_is(output: Path) -> None:
    from ase.constraints import FixAtoms

    free, fixed = bulk("Cu"), bulk("Cu")
    fixed.set_constraint(FixAtoms([0]))

    def only(atoms: Atoms) -> Structure:
        return Structure(Path("in.xyz"), 0, atoms)

    with Finished(output, TASK) as finished:
        (one,) = finished.restore([only(free)])
        finish(one)
        finished.add(one)
    with Finished(output, TASK) as finished:
        assert len(finished.restore([only(fixed)])) == 1
        assert finished.restore([only(bulk("Cu"))]) == []
