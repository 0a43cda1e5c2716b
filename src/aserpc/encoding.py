"""Values <-> frames: msgpack for the small, raw frames for large arrays; nothing is evaluated.

``pack`` returns ``[meta, *large arrays]``. ``meta`` is the number of large arrays (4 bytes, little
endian) and one msgpack value, in which extension types stand for what msgpack has no form for:

==== ====================================================================================
code data
==== ====================================================================================
1    array: length of its header (2 bytes), header, bytes
2    array: length of its header (2 bytes), header; the bytes are the next frame
3    first element of a list that is a tuple
4    complex number: two little-endian doubles
5    integer beyond 64 bits: its two's complement, little endian
6    first element of a list ``[., shape, items]`` that is an array of objects
==== ====================================================================================

An array's header is described in `aserpc.array_header`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from aserpc.array_header import FORTRAN, MAX_HEADER_SIZE, SCALAR, pack_header, read_header
from aserpc.errors import PayloadError, ProtocolError
from aserpc.messages import Buffer
from aserpc.nesting import check_lengths

__all__ = ["Buffer", "attempt", "encodable", "key_frames", "pack", "pack_mapping", "unpack"]

#: Arrays of up to so many bytes travel in `meta`: copying them a few times costs 0.5 µs, one more
#: frame 1 to 2 µs at each socket.
INLINE_SIZE = 8192

_ARRAY, _LARGE_ARRAY, _TUPLE, _COMPLEX, _INTEGER, _OBJECTS = 1, 2, 3, 4, 5, 6
_COUNT_SIZE = 4

_TWO_DOUBLES = struct.Struct("<dd")
_TUPLE_FORM = msgpack.ExtType(_TUPLE, b"")
_OBJECTS_FORM = msgpack.ExtType(_OBJECTS, b"")
#: What these two are, while a message is read.
_TUPLE_MARK, _OBJECTS_MARK = object(), object()


# ---- packing -------------------------------------------------------------------------------------


class _Encoder:
    """What msgpack asks for values that it has no form for."""

    __slots__ = ("large",)

    def __init__(self) -> None:
        self.large: list[Buffer] = []

    def default(self, value: object) -> object:
        if type(value) is np.ndarray:
            return self._array(value, 0)
        if isinstance(value, np.ndarray):
            if isinstance(value, np.ma.MaskedArray):
                msg = "with a mask has no form on the wire"
                raise PayloadError(msg)
            return self._array(np.asarray(value), 0)
        if isinstance(value, tuple):
            return [_TUPLE_FORM, *value]
        # Before str, int and float, of which some of numpy's scalars are subclasses.
        if isinstance(value, np.generic):
            return self._array(np.asarray(value), SCALAR)
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, list):
            return list(value)
        # A subclass (an IntEnum, say) decides what str() and int() return; the base type doesn't.
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            if -(1 << 63) <= value < 1 << 64:
                return int.__int__(value)
            size = value.bit_length() // 8 + 1
            return msgpack.ExtType(_INTEGER, value.to_bytes(size, "little", signed=True))
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, complex):
            return msgpack.ExtType(_COMPLEX, _TWO_DOUBLES.pack(value.real, value.imag))
        if isinstance(value, bytes | bytearray):
            return bytes(memoryview(value))
        msg = "has no form on the wire"
        raise PayloadError(msg)

    def _array(self, array: np.ndarray[Any, Any], flags: int) -> object:
        shape = array.shape
        if array.dtype.char == "O":
            # As which ASE reads the columns of words of a file.
            return [_OBJECTS_FORM, list(shape), array.ravel().tolist()]
        if not array.flags.c_contiguous:
            if array.flags.f_contiguous:
                flags |= FORTRAN
                array = array.T
            else:
                array = array.copy("C")
        header = pack_header(array.dtype, shape, flags)
        if array.nbytes <= INLINE_SIZE:
            return msgpack.ExtType(_ARRAY, header + array.tobytes())
        # As bytes: the buffer protocol has no format for datetime64.
        self.large.append(array.reshape(-1).view(np.uint8).data)
        return msgpack.ExtType(_LARGE_ARRAY, header)


def _encode(value: object) -> list[Buffer]:
    encoder = _Encoder()
    packed = msgpack.Packer(default=encoder.default, strict_types=True).pack(value)
    return [len(encoder.large).to_bytes(_COUNT_SIZE, "little") + packed, *encoder.large]


def attempt(value: object) -> list[Buffer] | None:
    """Return what `pack` does, or None where it would raise."""
    try:
        return _encode(value)
    except Exception:  # noqa: BLE001 - a mapping of the user's can raise anything
        return None


def pack(value: object, name: str = "value") -> list[Buffer]:
    """Return the frames of a value; large arrays are not copied.

    Parameters
    ----------
    value
        None, bool, int, float, complex, str, bytes; lists, tuples and mappings (keys: all of the
        former) of these; numpy arrays, also of objects that are such values, and scalars. Arrays
        keep dtype, shape and Fortran order; subclasses become the type itself, mappings dict.
    name
        What an error's text calls the value.

    Raises
    ------
    PayloadError
        If it, or something in it, is nothing of these. The text says where.
    """
    try:
        return _encode(value)
    except Exception as error:  # noqa: BLE001 - a mapping of the user's can raise anything
        raise PayloadError(_explain(value, name, error)) from None


def pack_mapping(mapping: Mapping[Any, object]) -> tuple[list[Buffer], tuple[str, ...]]:
    """Return the frames of a mapping, and the keys of entries left out for want of a form."""
    frames = attempt(mapping)
    if frames is not None:
        return frames, ()
    kept, left_out = encodable(mapping)
    return pack(kept), left_out


def encodable(mapping: Mapping[Any, object]) -> tuple[dict[Any, object], tuple[str, ...]]:
    """Return the entries of a mapping that have a form, and the keys of the others."""
    kept = {}
    left_out = []
    for key, value in mapping.items():
        if attempt({key: value}) is not None:
            kept[key] = value
        else:
            left_out.append(key if isinstance(key, str) else _text(key))
    return kept, tuple(left_out)


def _text(key: object) -> str:
    try:
        return repr(key)[:80]
    except Exception:  # noqa: BLE001 - a repr of the user's can raise anything
        return f"<{type(key).__qualname__}>"


def _children(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f" (its key {_text(key)})", key
            yield f"[{_text(key)}]", item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield f"[{index}]", item


def _explain(value: object, path: str, error: Exception) -> str:
    for _ in range(16):
        for step, child in _children(value):
            found = _error_of(child)
            if found is not None:
                value, path, error = child, path + step, found
                break
        else:
            break
    return f"{path}: <class {type(value).__qualname__}> {_reason(error)}"


def _error_of(value: object) -> Exception | None:
    try:
        _encode(value)
    except Exception as error:  # noqa: BLE001 - as in `pack`
        return error
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, PayloadError):
        return str(error)
    return f"can't be packed ({type(error).__name__}: {str(error)[:200]})"


# ---- unpacking -----------------------------------------------------------------------------------


class _Decoder:
    """What msgpack calls for extension types and lists; uses the large frames in their order."""

    __slots__ = ("large", "marks")

    def __init__(self, large: Iterator[Buffer]) -> None:
        self.large = large
        self.marks = 0

    def extension(self, code: int, data: bytes) -> object:
        if code in (_ARRAY, _LARGE_ARRAY):
            start = 2 + int.from_bytes(data[:2], "little")
            if start > MAX_HEADER_SIZE + 2:
                msg = "an array with a long header"
                raise ProtocolError(msg)
            dtype, shape, order, scalar, size = read_header(data[2:start])
            if code == _ARRAY:
                buffer: Buffer = data
            else:
                # A large array's extension ends with its header.
                if start != len(data):
                    msg = "bytes after an array's header"
                    raise ProtocolError(msg)
                buffer, start = next(self.large), 0
            if len(buffer) - start != size:
                msg = f"an array of {size} bytes has {len(buffer) - start}"
                raise ProtocolError(msg)
            array = np.ndarray(shape, dtype, buffer, start, None, order)
            # Calculators write into what they are given, and compiled ones need it aligned;
            # libzmq can place a frame at any address.
            if code == _ARRAY or not array.flags.behaved:
                array = array.copy(order)
            return array[()] if scalar else array
        if code in (_TUPLE, _OBJECTS) and not data:
            self.marks += 1
            return _TUPLE_MARK if code == _TUPLE else _OBJECTS_MARK
        if code == _COMPLEX:
            return complex(*_TWO_DOUBLES.unpack(data))
        if code == _INTEGER:
            return int.from_bytes(data, "little", signed=True)
        msg = f"unknown extension type {code}"
        raise ProtocolError(msg)

    def list(self, items: list[Any]) -> object:
        if items and items[0] is _TUPLE_MARK:
            self.marks -= 1
            return tuple(items[1:])
        if items and items[0] is _OBJECTS_MARK:
            self.marks -= 1
            _, shape, values = items
            if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(values):
                msg = "an array of objects that has more or fewer"
                raise ProtocolError(msg)
            return np.fromiter(values, object, len(values)).reshape(shape)
        return items


def key_frames(frames: Sequence[Buffer]) -> int:
    """Return how many frames the packed value at the start of `frames` has; `ProtocolError`."""
    if not frames or len(frames[0]) <= _COUNT_SIZE:
        msg = "a payload without its first frame"
        raise ProtocolError(msg)
    count = 1 + int.from_bytes(frames[0][:_COUNT_SIZE], "little")
    if count > len(frames):
        msg = f"a payload of {count} frames has {len(frames)}"
        raise ProtocolError(msg)
    return count


def unpack(frames: Sequence[Buffer]) -> object:
    """Return the value of the frames that `pack` made.

    Arrays are writable. Large ones share memory with their frame if that is writable.

    Raises
    ------
    ProtocolError
        Whatever else the frames are.
    """
    count = key_frames(frames)
    if count != len(frames):
        msg = f"a payload of {count} frames has {len(frames)}"
        raise ProtocolError(msg)
    large = iter(frames)
    meta = memoryview(next(large))[_COUNT_SIZE:]
    decoder = _Decoder(large)
    try:
        check_lengths(meta)
        value = msgpack.unpackb(
            meta, strict_map_key=False, ext_hook=decoder.extension, list_hook=decoder.list
        )
    except ProtocolError:
        raise
    except Exception as error:  # noqa: BLE001 - a peer's bytes must not raise anything else
        msg = f"a payload that can't be read ({type(error).__name__}: {str(error)[:200]})"
        raise ProtocolError(msg) from None
    if decoder.marks or next(large, None) is not None:
        msg = "a payload with parts that belong to nothing"
        raise ProtocolError(msg)
    return value
