"""Values survive the way over the wire."""

from __future__ import annotations

import enum
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from aserpc.encoding import INLINE_SIZE, Buffer, pack, pack_mapping, unpack
from aserpc.errors import PayloadError

Array = np.ndarray[Any, Any]


def received(frames: Sequence[Buffer]) -> list[Buffer]:
    """Frames as transport.receive gives them: the large ones in writable memory of their own."""
    return [bytes(f) if len(f) < INLINE_SIZE else memoryview(bytearray(f)) for f in frames]


def round_trip(value: object) -> Any:
    return unpack(received(pack(value)))


def assert_same_array(one: Array, other: Array) -> None:
    assert isinstance(other, np.ndarray)
    assert one.dtype == other.dtype
    assert one.dtype.str == other.dtype.str
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


# ---- plain values --------------------------------------------------------------------------------

hashables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
values = st.recursive(
    hashables | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_values_come_back_equal_and_of_the_same_types(value: Any) -> None:
    assert repr(round_trip(value)) == repr(value)


@pytest.mark.parametrize("value", [0, -1, 2**63, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 10**400])
def test_integers_of_any_size(value: int) -> None:
    assert round_trip(value) == value


class Colour(str, enum.Enum):
    RED = "r"

    def __str__(self) -> str:
        return "not this"


class Count(enum.IntEnum):
    TWO = 2
    MANY = 2**80


Pair = namedtuple("Pair", "one two")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (UserDict(x=1), {"x": 1}),
        (Pair(1, "x"), (1, "x")),
        (type("L", (list,), {})([1, 2]), [1, 2]),
        (type("F", (float,), {})(1.5), 1.5),
        (type("B", (bytes,), {})(b"ab"), b"ab"),
        (bytearray(b"ab"), b"ab"),
        (Colour.RED, "r"),
        (Count.TWO, 2),
        (Count.MANY, 2**80),
        (np.str_("x"), np.str_("x")),
    ],
)
def test_subclasses_become_the_type_itself(value: object, plain: object) -> None:
    back = round_trip(value)
    assert back == plain
    assert type(back) is type(plain)
    if isinstance(back, dict):
        assert list(back) == list(plain)  # type: ignore[call-overload]


# ---- arrays --------------------------------------------------------------------------------------

dtypes = (
    npst.scalar_dtypes()
    | npst.unicode_string_dtypes()
    | npst.byte_string_dtypes()
    | npst.nested_dtypes(max_itemsize=200, max_leaves=5)
)


@given(npst.arrays(dtypes, npst.array_shapes(min_dims=0, min_side=0)), st.sampled_from("CF"))
def test_arrays_keep_dtype_shape_order_and_are_writable(array: Array, order: Any) -> None:
    if array.dtype.itemsize == 0 or array.dtype.hasobject:
        return
    array = np.array(array, order=order)
    back = round_trip(array)
    assert_same_array(array, back)
    assert back.flags.c_contiguous == array.flags.c_contiguous
    assert back.flags.f_contiguous == array.flags.f_contiguous
    assert back.flags.writeable
    assert back.flags.aligned


@pytest.mark.parametrize("size", [3, 5000])
@pytest.mark.parametrize(
    "dtype", ["<f8", ">f8", "<i4", "|u1", "|b1", "<c16", "<M8[ns]", "<m8[25s]", "<U7", "|S3", "<f2"]
)
def test_large_and_small_arrays(dtype: str, size: int) -> None:
    array = np.arange(4 * size).astype("u1").repeat(28)[: np.dtype(dtype).itemsize * size]
    array = (array % 2).astype("u1").view(dtype).reshape(1, size)
    back = round_trip(array)
    assert_same_array(array, back)
    assert back.flags.writeable


def test_fortran_order_of_a_large_array() -> None:
    array = np.asfortranarray(np.random.default_rng(0).random((200, 30, 2)))
    frames = pack(array)
    assert np.shares_memory(np.frombuffer(frames[1], np.uint8), array)
    back = unpack(received(frames))
    assert isinstance(back, np.ndarray)
    assert back.flags.f_contiguous
    assert not back.flags.c_contiguous
    np.testing.assert_array_equal(back, array)


def test_strided_and_read_only_arrays() -> None:
    array = np.arange(60.0).reshape(3, 20)[:, ::3]
    array.flags.writeable = False
    back = round_trip([array, np.broadcast_to(array, (2, 3, 7))])
    assert_same_array(np.ascontiguousarray(array), back[0])
    assert back[1].shape == (2, 3, 7)
    assert back[0].flags.writeable


def test_structured_arrays() -> None:
    dtype = np.dtype(
        [("a", "<f8"), (("a title", "b"), ">i2", (2, 3)), ("c", [("x", "<U3"), ("y", "|b1")])],
        align=True,
    )
    array = np.zeros((4, 2), dtype)
    array["b"] = 7
    array["c"]["x"] = "hé"
    assert_same_array(array, round_trip(array))
    assert round_trip(array[0, 0])["c"]["x"] == "hé"


def test_arrays_of_objects_that_are_values() -> None:
    array = np.array(["C", "N", None, (1, 2), [3], 2.5], object).reshape(2, 3)
    back = round_trip({"names": array, "empty": np.empty((0, 3), object)})
    assert back["names"].dtype == object
    assert back["names"].tolist() == array.tolist()
    assert back["empty"].shape == (0, 3)


@pytest.mark.parametrize(
    "scalar",
    [np.float64(1.5), np.float32(1.5), np.int8(-3), np.bool_(True), np.complex64(1j), np.str_(""),
     np.str_("é"), np.bytes_(b"x"), np.datetime64("2026-01-01", "D"), np.timedelta64(3, "s"),
     np.longdouble("1.1"), np.uint64(2**64 - 1)],
)  # fmt: skip
def test_numpy_scalars_keep_their_dtype(scalar: Any) -> None:
    back = round_trip(scalar)
    assert type(back) is type(scalar)
    assert back.dtype == scalar.dtype
    assert back == scalar
    assert round_trip({scalar: 1}) == {scalar: 1}


def test_large_arrays_are_views_both_ways() -> None:
    array = np.zeros(10_000)
    frames = pack({"a": [array, array[:10]]})
    assert len(frames) == 2
    assert np.shares_memory(np.frombuffer(frames[1], np.uint8), array)
    frames = received(frames)
    back: Any = unpack(frames)
    assert np.shares_memory(np.frombuffer(frames[1], np.uint8), back["a"][0])


def test_a_frame_at_an_odd_address_gives_an_aligned_array() -> None:
    meta, data = pack(np.arange(5000.0))
    shifted = memoryview(bytearray(len(data) + 1))[1:]
    shifted[:] = data
    back: Any = unpack([meta, shifted])
    assert back.flags.behaved
    assert back[-1] == 4999


# ---- what has no form ----------------------------------------------------------------------------


class Thing:
    pass


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Thing(), "value: <class Thing>"),
        ({"x": [1, 2, Thing()]}, "value['x'][2]: <class Thing>"),
        ({"x": (1, {3: {4}})}, "value['x'][1][3]: <class set>"),
        ({Thing: 1}, "<class type>"),
        ({"a": np.array([1, Thing()], object)}, "value['a']: <class ndarray>"),
        (["\ud800"], "value[0]: <class str>"),
        (np.ma.masked_array([1, 2], [True, False]), "value: <class MaskedArray>"),
        (np.zeros(2, {"names": ["a", "b"], "formats": ["<i4", "<i4"], "offsets": [0, 2]}), "value"),
    ],
)  # fmt: skip
def test_the_error_says_what_and_where(value: object, path: str) -> None:
    with pytest.raises(PayloadError) as caught:
        pack(value)
    assert path in str(caught.value)


def test_a_list_that_holds_itself() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(PayloadError):
        pack({"loop": loop})


def test_a_mapping_without_the_entries_that_have_no_form() -> None:
    frames, left_out = pack_mapping({"a": 1, "b": {"c": Thing()}, 3: Thing(), "d": [np.zeros(3)]})
    assert left_out == ("b", "3")
    back: Any = unpack(frames)
    assert list(back) == ["a", "d"]


class Angry(UserDict[str, int]):
    def __iter__(self) -> Any:
        raise RuntimeError("no")


def test_a_mapping_that_raises_is_left_out() -> None:
    frames, left_out = pack_mapping({"a": Angry(x=1), "b": 2})
    assert left_out == ("a",)
    assert unpack(frames) == {"b": 2}
