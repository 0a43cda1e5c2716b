"""Atoms survive the way over the wire whole."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import (
    FixAtoms,
    FixBondLengths,
    FixCartesian,
    FixedLine,
    FixedPlane,
    FixScaled,
    Hookean,
)
from ase.io import read
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from aserpc.encoding import INLINE_SIZE, Buffer, pack
from aserpc.errors import PayloadError, ProtocolError
from aserpc.payload import (
    PackedAtoms,
    pack_atoms,
    total_size,
    unpack_atoms,
)

DATA = Path(__file__).parent.parent / "data"
LARGE = 2000


def received(frames: Sequence[Buffer]) -> list[Buffer]:
    """Frames as transport.receive gives them: the large ones in writable memory of their own."""
    return [bytes(f) if len(f) < INLINE_SIZE else memoryview(bytearray(f)) for f in frames]


def round_trip(atoms: Atoms) -> Any:
    return unpack_atoms(PackedAtoms.from_frames(received(pack_atoms(atoms).frames())))


def assert_same_atoms(one: Any, other: Any) -> None:
    assert set(one.arrays) == set(other.arrays)
    for name, array in one.arrays.items():
        assert array.dtype == other.arrays[name].dtype, name
        assert array.shape == other.arrays[name].shape, name
        np.testing.assert_array_equal(array, other.arrays[name])
        assert other.arrays[name].flags.writeable, name
    assert one.cell.array.tobytes() == other.cell.array.tobytes()
    assert one.pbc.tolist() == other.pbc.tolist()
    np.testing.assert_array_equal(one.get_celldisp(), other.get_celldisp())
    assert one.get_celldisp().shape == other.get_celldisp().shape
    assert repr(one.info) == repr(other.info)
    assert [c.todict() for c in one.constraints] == [c.todict() for c in other.constraints]


def many(count: int = LARGE) -> Any:
    rng = np.random.default_rng(0)
    return Atoms(numbers=np.ones(count, int), positions=rng.random((count, 3)), cell=[9, 9, 9])


@pytest.fixture
def rich() -> Any:
    atoms = molecule("CH3CH2OH", cell=[8, 9, 10], pbc=(True, False, True))
    atoms.set_celldisp([0.5, 0, 0])
    atoms.set_tags(range(9))
    atoms.set_masses([2.0] * 9)
    atoms.set_initial_magnetic_moments(np.arange(27.0).reshape(9, 3))
    atoms.set_initial_charges(np.arange(9) / 9)
    atoms.set_momenta(np.arange(27.0).reshape(9, 3))
    atoms.new_array("descriptor", np.arange(81.0).reshape(9, 9))
    atoms.new_array("group", np.arange(9, dtype=np.int32))
    atoms.new_array("names", np.array(list("abcdefghi")))
    atoms.new_array("words", np.array(list("abcdefghi"), object))
    atoms.new_array("tensor", np.zeros((9, 3, 3), np.float32))
    atoms.set_constraint([FixAtoms([0, 2]), FixedLine(3, [0, 0, 1])])
    atoms.info.update(
        charge=1, spin=np.float32(0.5), name="ethanol", nothing=None, z=1 + 2j, flag=np.bool_(True),
        ids=[1, [2, "x"]], nested={"a": {"b": (1, 2)}, 3: b"x"}, array=np.arange(4, dtype="u2"),
    )  # fmt: skip
    return atoms


# ---- round trips ---------------------------------------------------------------------------------


def test_everything_arrives(rich: Any) -> None:
    assert pack_atoms(rich).left_out == ()
    assert_same_atoms(rich, round_trip(rich))


@pytest.mark.parametrize(
    "atoms", [Atoms(), Atoms("H"), many(), bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6)]
)
def test_atoms_of_all_sizes(atoms: Any) -> None:
    assert_same_atoms(atoms, round_trip(atoms))


def test_a_large_rich_one(rich: Any) -> None:
    atoms = rich * (10, 10, 10)
    assert_same_atoms(atoms, round_trip(atoms))


@given(
    npst.arrays(
        npst.boolean_dtypes() | npst.integer_dtypes() | npst.floating_dtypes(),
        st.tuples(st.just(3)) | st.tuples(st.just(3), st.integers(0, 4), st.integers(0, 4)),
    )
)
def test_custom_arrays_of_any_dtype_and_shape(array: Any) -> None:
    atoms = molecule("H2O")
    atoms.arrays["custom"] = array
    assert_same_atoms(atoms, round_trip(atoms))


@pytest.mark.parametrize(
    "constraint",
    [
        FixAtoms(mask=[True, False, True]),
        FixCartesian([0, 1], [True, False, True]),
        FixScaled(1, [True, False, True]),
        FixBondLengths([[0, 1], [1, 2]]),
        FixedPlane([0, 2], [1, 0, 0]),
        Hookean(a1=0, a2=1, rt=1.5, k=5.0),
        Hookean(a1=0, a2=(1.0, 2.0, 3.0), rt=1.5, k=5.0),
    ],
    ids=lambda constraint: type(constraint).__name__,
)
def test_constraints(constraint: Any) -> None:
    atoms = molecule("H2O", cell=[5, 5, 5])
    atoms.set_constraint(constraint)
    (back,) = round_trip(atoms).constraints
    assert type(back) is type(constraint)
    assert repr(back.todict()) == repr(constraint.todict())


def test_packing_changes_and_copies_nothing(rich: Any) -> None:
    before = copy.deepcopy(rich)
    for array in rich.arrays.values():
        array.flags.writeable = False
    pack_atoms(rich)
    assert_same_atoms(before, before)
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(array, rich.arrays[name])
    assert list(rich.info) == list(before.info)

    atoms = many()
    packed = pack_atoms(atoms)
    views = [np.frombuffer(frame, np.uint8) for frame in packed.key[1:]]
    assert any(np.shares_memory(view, atoms.positions) for view in views)
    assert any(np.shares_memory(view, atoms.numbers) for view in views)


def test_unpacking_copies_no_large_array() -> None:
    frames = received(pack_atoms(many()).frames())
    back = unpack_atoms(PackedAtoms.from_frames(frames))
    assert any(np.shares_memory(np.frombuffer(f, np.uint8), back.positions) for f in frames[1:])
    back.positions += 1


def test_total_size() -> None:
    packed = pack_atoms(many())
    assert total_size(packed.frames()) == sum(len(bytes(frame)) for frame in packed.frames())


# ---- the key -------------------------------------------------------------------------------------


CHANGES: dict[str, Any] = {
    "positions": lambda a: a.positions.__setitem__((0, 0), 0.3),
    "numbers": lambda a: a.numbers.__setitem__(0, 3),
    "cell": lambda a: a.cell.array.__setitem__((2, 2), 3.5),
    "pbc": lambda a: a.set_pbc((True, True, False)),
    "celldisp": lambda a: a.set_celldisp([0, 0, 0.1]),
    "tags": lambda a: a.set_tags(3),
    "masses": lambda a: a.set_masses([3.0] * len(a)),
    "charges": lambda a: a.set_initial_charges([0.5] * len(a)),
    "magmoms": lambda a: a.set_initial_magnetic_moments([0.5] * len(a)),
    "custom": lambda a: a.arrays.update(custom=np.ones(len(a))),
    "info": lambda a: a.info.update(charge=1),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("count", [3, LARGE])
def test_the_key_sees(name: str, count: int) -> None:
    atoms = many(count)
    packed = pack_atoms(atoms).owned()
    assert pack_atoms(atoms).same_key(packed)
    assert pack_atoms(atoms).digest() == packed.digest()
    CHANGES[name](atoms)
    assert not pack_atoms(atoms).same_key(packed)
    assert pack_atoms(atoms).digest() != packed.digest()


@pytest.mark.parametrize("size", [300_000, 300_003, 4096, 1, 0])
@pytest.mark.parametrize("place", [0, 0.014, 0.5, 0.9, 1])
def test_the_key_sees_every_byte_of_a_large_frame(size: int, place: float) -> None:
    frame = np.arange(size).astype(np.uint8).tobytes()
    one = PackedAtoms([b"first", frame], [])
    other = PackedAtoms([b"first", memoryview(bytearray(frame))], [])
    assert one.same_key(other)
    if size:
        changed = bytearray(frame)
        changed[int(place * (size - 1))] ^= 1
        assert not one.same_key(PackedAtoms([b"first", memoryview(changed)], []))
    assert not one.same_key(PackedAtoms([b"first", memoryview(bytearray(frame + b"x"))], []))


def test_momenta_and_constraints_are_not_in_the_key() -> None:
    atoms = many()
    before = pack_atoms(atoms).owned()
    atoms.set_momenta(np.ones((LARGE, 3)))
    atoms.set_constraint(FixAtoms([1]))
    after = pack_atoms(atoms)
    assert before.rest == []
    assert after.rest
    assert after.same_key(before)
    assert after.digest() == before.digest()


def test_what_a_database_keeps_of_a_structure_is_not_sent() -> None:
    atoms = molecule("H2O", info={"charge": 1})
    before = pack_atoms(atoms)
    atoms.info["key_value_pairs"] = {"raw_score": 1.0, "of no form": object()}
    packed = pack_atoms(atoms)
    assert packed.same_key(before)
    assert packed.left_out == ()
    assert unpack_atoms(packed).info == {"charge": 1}
    assert "raw_score" in atoms.info["key_value_pairs"]


def test_owned_frames_do_not_follow_the_arrays() -> None:
    atoms = many()
    atoms.set_momenta(np.zeros((LARGE, 3)))
    borrowed = pack_atoms(atoms)
    owned = borrowed.owned()
    atoms.positions[-1] += 1
    atoms.arrays["momenta"][-1] += 1
    assert not borrowed.same_key(owned)
    assert not unpack_atoms(owned).get_momenta().any()
    assert owned.same_key(owned.owned())


def test_same_key_of_received_and_sent_frames() -> None:
    packed = pack_atoms(many())
    arrived = PackedAtoms.from_frames(received(packed.frames()))
    assert arrived.same_key(packed)
    assert arrived.digest() == packed.digest()
    assert not arrived.same_key(pack_atoms(many(LARGE + 1)))
    assert not arrived.same_key(pack_atoms(many(3)))


# ---- what has no form ----------------------------------------------------------------------------


class Thing:
    pass


class MyConstraint:
    def todict(self) -> dict[str, object]:
        return {"name": "MyConstraint", "kwargs": {}}


class NoDict:
    pass


def test_what_has_no_form_is_left_out_and_named(rich: Any) -> None:
    expected = copy.deepcopy(rich)
    rich.info["thing"] = Thing()
    rich.info["deep"] = {"in": [Thing()]}
    rich.arrays["things"] = np.array([Thing()] * 9, object)
    rich.arrays["short"] = np.zeros(3)
    rich.constraints = [MyConstraint(), *rich.constraints, NoDict()]
    assert sorted(pack_atoms(rich).left_out) == [
        "arrays['short']",
        "arrays['things']",
        "constraint 0 (MyConstraint)",
        "constraint 3 (NoDict)",
        "info['deep']",
        "info['thing']",
    ]
    assert_same_atoms(expected, round_trip(rich))


def test_positions_can_not_be_left_out() -> None:
    atoms = Atoms("H2")
    atoms.arrays["positions"] = np.array([[Thing()] * 3] * 2, object)
    with pytest.raises(PayloadError, match="positions"):
        pack_atoms(atoms)


def test_a_constraint_that_can_not_be_made_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    packed = pack_atoms(Atoms("H"))
    forms: list[Any] = [
        {"name": "Strange", "kwargs": {}},
        {"name": "FixAtoms", "kwargs": {"colour": 1}},
        {"name": "constrained_indices", "kwargs": {"atoms": 1}},
        {"name": "FixSymmetry", "kwargs": {"atoms": None}},
        {"name": ["FixAtoms"]},
        "FixAtoms",
        {"name": "FixAtoms", "kwargs": {"indices": [0]}},
    ]
    with caplog.at_level(logging.WARNING):
        atoms = unpack_atoms(PackedAtoms(packed.key, pack([None, forms])))
    assert [type(constraint) for constraint in atoms.constraints] == [FixAtoms]
    assert "Strange" in caplog.text


# ---- frames that are no atoms --------------------------------------------------------------------

X = np.zeros((2, 3))
N = np.ones(2, int)
CELL, PBC = bytes(72), bytes(3)
BAD: dict[str, Any] = {
    "not a list": 3,
    "too short": [CELL, PBC, None, {"numbers": N, "positions": X}],
    "no numbers": [CELL, PBC, None, {"positions": X}, {}],
    "no positions": [CELL, PBC, None, {"numbers": N}, {}],
    "no arrays": [CELL, PBC, None, {}, {}],
    "flat positions": [CELL, PBC, None, {"numbers": N, "positions": X[0, :2]}, {}],
    "positions of words": [CELL, PBC, None, {"numbers": N, "positions": X.astype("U3")}, {}],
    "a list of positions": [CELL, PBC, None, {"numbers": N, "positions": X.tolist()}, {}],
    "numbers that are none": [CELL, PBC, None, {"numbers": X[:, 0], "positions": X}, {}],
    "numbers in rows": [CELL, PBC, None, {"numbers": X.astype(int), "positions": X}, {}],
    "more numbers": [CELL, PBC, None, {"numbers": np.ones(3, int), "positions": X}, {}],
    "a scalar array": [CELL, PBC, None, {"numbers": N, "positions": X, "a": np.array(1)}, {}],
    "a long array": [CELL, PBC, None, {"numbers": N, "positions": X, "a": np.zeros(3)}, {}],
    "a nameless array": [CELL, PBC, None, {"numbers": N, "positions": X, 1: N}, {}],
    "a short cell": [CELL[1:], PBC, None, {"numbers": N, "positions": X}, {}],
    "four pbc": [CELL, bytes(4), None, {"numbers": N, "positions": X}, {}],
    "celldisp of words": [CELL, PBC, "x", {"numbers": N, "positions": X}, {}],
    "info of words": [CELL, PBC, None, {"numbers": N, "positions": X}, "x"],
    "arrays in a list": [CELL, PBC, None, [N, X], {}],
}


@pytest.mark.parametrize("name", BAD)
def test_frames_that_are_no_atoms(name: str) -> None:
    with pytest.raises(ProtocolError):
        unpack_atoms(PackedAtoms(pack(BAD[name]), []))


@pytest.mark.parametrize(
    "rest", [3, [None], [None, {}], [X[:1], []], [X.astype(int), []], [np.zeros(2), []], [[], []]]
)
def test_a_rest_that_is_none(rest: object) -> None:
    packed = pack_atoms(Atoms("H2"))
    with pytest.raises(ProtocolError):
        unpack_atoms(PackedAtoms(packed.key, pack(rest)))


def test_missing_frames() -> None:
    frames = pack_atoms(many()).frames()
    for some in ([], frames[:-1], [b""], [b"\xff" * 20]):
        with pytest.raises(ProtocolError):
            PackedAtoms.from_frames(some)
    with pytest.raises(ProtocolError):
        unpack_atoms(PackedAtoms.from_frames([*frames, b"\0\0\0\0\xc0", b"x"]))


@given(st.data())
def test_mutated_atoms(data: st.DataObject) -> None:
    atoms = molecule("H2O")
    atoms.set_momenta(np.ones((3, 3)))
    atoms.set_constraint(FixAtoms([0]))
    frames = [bytearray(frame) for frame in pack_atoms(atoms).frames()]
    for _ in range(data.draw(st.integers(1, 3))):
        frame = data.draw(st.sampled_from(frames))
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at] = data.draw(st.integers(0, 255))
    try:
        packed = PackedAtoms.from_frames([bytes(frame) for frame in frames])
        unpack_atoms(packed)
    except ProtocolError:
        return
    assert len(packed.digest()) == 16


# ---- real files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "images", "left_out"),
    [
        ("cu111_co.extxyz", 1, ()),
        ("g2.extxyz", 20, ()),
        ("tio2_rutile.cif", 1, ("info['spacegroup']",)),
        ("cuau_triclinic.extxyz", 1, ()),
    ],
)
def test_real_structures(name: str, images: int, left_out: tuple[str, ...]) -> None:
    structures: Any = read(DATA / name, ":")
    assert len(structures) == images
    for atoms in structures:
        assert pack_atoms(atoms).left_out == left_out
        back = round_trip(atoms)
        atoms.info.pop("spacegroup", None)
        assert_same_atoms(atoms, back)
