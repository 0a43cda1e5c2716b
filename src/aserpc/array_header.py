"""Headers of arrays: a msgpack list ``[dtype, shape, flags]``.

A dtype is a string such as ``<f8``, or a list of ``[name, dtype, shape]`` for a structured one
(`numpy.lib.format.dtype_to_descr`).
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgpack
import numpy as np

from aserpc.errors import PayloadError, ProtocolError

#: Flags of a header.
FORTRAN, SCALAR = 1, 2

#: The longest header, in bytes.
MAX_HEADER_SIZE = 4096

#: Arrays of empty items (an empty string's dtype) have no bytes that would bound their shape.
MAX_EMPTY_ITEMS = 1 << 16

#: Structured dtypes nest no deeper.
MAX_DTYPE_DEPTH = 8

_DTYPE = re.compile(r"[<>|][biufcSUVmM][0-9]{1,10}(\[[0-9]{0,10}[a-zA-Z]{1,2}\])?")


def _dtype_form(dtype: np.dtype[Any]) -> object:
    return dtype.str if dtype.names is None else np.lib.format.dtype_to_descr(dtype)


def _descr(form: object, depth: int = 0) -> Any:
    if isinstance(form, str):
        if _DTYPE.fullmatch(form) is None:
            msg = f"no dtype: {form[:40]!r}"
            raise ProtocolError(msg)
        return form
    if not isinstance(form, list | tuple) or depth > MAX_DTYPE_DEPTH:
        msg = "no dtype"
        raise ProtocolError(msg)
    fields = []
    for name, field, *shape in form:
        title_and_name = tuple(name) if isinstance(name, list) else name
        fields.append((title_and_name, _descr(field, depth + 1), *map(tuple, shape)))
    return fields


def _dtype_of(form: object) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(_descr(form))
    if dtype.hasobject:
        msg = "a dtype that holds objects"
        raise ProtocolError(msg)
    return dtype


@lru_cache(maxsize=512)
def pack_header(dtype: np.dtype[Any], shape: tuple[int, ...], flags: int) -> bytes:
    """Return the length of an array's header and the header; `PayloadError` if it has none."""
    # What numpy's own description would turn into another dtype (bfloat16, overlapping
    # fields, objects) must not cross as something else.
    try:
        form = _dtype_form(dtype)
        same = _dtype_of(form) == dtype
    except (ValueError, TypeError):
        same = False
    empty_items = not dtype.itemsize and math.prod(shape) > MAX_EMPTY_ITEMS
    header = msgpack.packb([form, shape, flags]) if same else b""
    if not same or empty_items or len(header) > MAX_HEADER_SIZE:
        msg = f"of dtype {dtype} has no form on the wire"
        raise PayloadError(msg)
    return len(header).to_bytes(2, "little") + header


class Layout(NamedTuple):
    """What a header says; `size` in bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    scalar: bool
    size: int


@lru_cache(maxsize=512)
def read_header(header: bytes) -> Layout:
    """Return what a header says; whatever exception where it is none."""
    form, shape, flags = msgpack.unpackb(header)
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape):
        msg = "an array's shape is a list of lengths"
        raise ProtocolError(msg)
    if type(flags) is not int or flags & ~(FORTRAN | SCALAR) or (flags & SCALAR and shape):
        msg = "an array's flags"
        raise ProtocolError(msg)
    dtype = _dtype_of(form)
    items = math.prod(shape)
    if not dtype.itemsize and items > MAX_EMPTY_ITEMS:
        msg = f"an array of {items} empty items"
        raise ProtocolError(msg)
    order: Literal["C", "F"] = "F" if flags & FORTRAN else "C"
    return Layout(dtype, tuple(shape), order, bool(flags & SCALAR), items * dtype.itemsize)
