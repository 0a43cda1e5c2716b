"""Values made from a fuzzer's bytes: small changes of the bytes change the value a little."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgpack

T = TypeVar("T")

WORDS = (
    *("numbers", "positions", "tags", "masses", "momenta", "initial_charges", "initial_magmoms"),
    *("energy", "forces", "stress", "kind", "message", "types", "traceback", "spawn_id", "pid"),
    *("calculation", "poison", "builtins.ValueError", "builtins.StopIteration", "builtins.OSError"),
    *("builtins.ExceptionGroup", "builtins.UnicodeDecodeError", "builtins.KeyError", "x.Own"),
    *("ase.calculators.calculator.SCFError", "ase.calculators.calculator.Calculator", "a.b.class"),
    *("FixAtoms", "FixBondLengths", "Hookean", "FixInternals", "FixSymmetry", "dict2constraint"),
    *("FixCom", "FixedPlane", "MirrorForce", "ExternalForce", "FixLinearTriatomic", "constrain"),
    *("indices", "pairs", "index", "direction", "mask", "a1", "k", "rt", "triples", "kwargs"),
    *("implemented_properties", "versions", "factory", "", "größe", "a\nb", "x" * 300, "\0"),
)
DTYPES = (
    *(
        "<f8",
        "<f4",
        "<f2",
        "<i8",
        "<i4",
        "|u1",
        "|b1",
        "<c16",
        ">f8",
        "<U3",
        "|S3",
        "|V2",
        "<M8[s]",
    ),
    *("<m8[ns]", "|V0", "<U0", "|O", "<f16", "<f1", "<M8", "<i8[s]", "<U999999999", "|S0"),
)
NUMBERS = (
    *(0, 1, 2, 3, 7, 255, -1, -2, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63)),
    *(0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 1e308, 5e-324),
)
FLAGS = (0, 1, 2, 3, 4)


class Choices:
    """Chooses by the bytes that it is given; zeros when there are no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._large: list[bytes] = []

    def left(self) -> bool:
        """Whether there is something to choose by."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Return the next bytes, perhaps fewer."""
        part = self._data[self._at : self._at + size]
        self._at += size
        return part

    def number(self, below: int) -> int:
        """Return a number from 0."""
        return (self.take(1) or b"\0")[0] % below

    def one_of(self, options: Sequence[T]) -> T:
        """Return one of several."""
        return options[self.number(len(options))]

    def word(self) -> str:
        """Return a word that means something, or nothing."""
        return self.one_of(WORDS)

    def words(self) -> list[str] | str:
        """Return a word or a few."""
        return [self.word() for _ in range(self.number(4))] if self.number(2) else self.word()

    def sizes(self) -> list[Any]:
        """Return lengths of an array, not all of them possible."""
        return [self.one_of(NUMBERS) if not self.number(8) else self.number(4)
                for _ in range(self.number(3))]  # fmt: skip

    def array(self, shape: list[Any], dtype: object = None) -> msgpack.ExtType:
        """Return an array; its bytes are mostly as many as its shape says."""
        dtype = self.dtype() if dtype is None or not self.number(16) else dtype
        form = msgpack.packb([dtype, shape, self.one_of(FLAGS) if not self.number(4) else 0])
        header = len(form).to_bytes(2, "little") + form
        size = self._size(dtype)
        for length in shape:
            size *= length if isinstance(length, int) and 0 <= length < 99 else 1
        data = self.take(size).ljust(min(size, 999), b"\0")
        if not self.number(16):
            data = data[:-1]
        if self.number(4):
            return msgpack.ExtType(1, header + data)
        self._large.append(data)
        return msgpack.ExtType(2, header)

    def dtype(self, depth: int = 0) -> object:
        """Return the form of a dtype."""
        if self.number(4) or depth > 9:
            return self.one_of(DTYPES)
        return [
            [self.word(), self.dtype(depth + 1), *([self.sizes()] if not self.number(4) else [])]
            for _ in range(self.number(4))
        ]

    def _size(self, dtype: object) -> int:
        if isinstance(dtype, str):
            digits = "".join(c for c in dtype.partition("[")[0] if c.isdigit()) or "0"
            return int(digits) * (4 if dtype[1:2] == "U" else 1)
        return sum(self._size(field[1]) for field in dtype) if isinstance(dtype, list) else 0

    def value(self, depth: int = 0) -> Any:
        """Return any value."""
        simple: list[Callable[[], Any]] = [
            lambda: self.one_of(NUMBERS),
            lambda: self.one_of([None, True, False]),
            self.word,
            lambda: self.take(self.number(20)),
            lambda: self.take(16).ljust(16, b"s"),
            lambda: struct.unpack("<d", self.take(8).ljust(8, b"\0"))[0],
            lambda: self.array(self.sizes()),
            lambda: msgpack.ExtType(4, self.take(16)),
            lambda: msgpack.ExtType(5, self.take(self.number(12))),
            lambda: msgpack.ExtType(self.number(128), self.take(self.number(20))),
        ]
        nested: list[Callable[[], Any]] = [
            lambda: [self.value(depth + 1) for _ in range(self.number(5))],
            lambda: [
                msgpack.ExtType(3, b""),
                *(self.value(depth + 1) for _ in range(self.number(4))),
            ],
            lambda: [
                msgpack.ExtType(6, b""),
                self.sizes(),
                [self.value(depth + 1)] * self.number(5),
            ],
            lambda: {self.word(): self.value(depth + 1) for _ in range(self.number(4))},
            lambda: {self._key(): self.value(depth + 1) for _ in range(self.number(4))},
        ]
        return self.one_of(simple if depth > 5 else [*simple, *nested])()

    def _key(self) -> Any:
        return self.one_of([self.one_of(NUMBERS), None, True, self.take(2), self.word()])

    def field(self, kind: str) -> Any:
        """Return a value for a field of a message, of its type."""
        kind = self.one_of(kind.split(" | "))
        makers: dict[str, Any] = {
            "bytes": lambda: self.one_of([b"s" * 16, b"", self.take(16)]),
            "str": self.word,
            "int": lambda: int(n) if (n := self.one_of(NUMBERS)) == n and abs(n) < 1 << 64 else 1,
            "bool": lambda: bool(self.number(2)),
            "float": lambda: self.one_of(NUMBERS),
            "None": lambda: None,
            "list[str]": lambda: [self.word() for _ in range(self.number(4))],
            "list[Any]": lambda: [self._entry() for _ in range(self.number(4))],
            "dict[str, Any]": lambda: {self.word(): self.value(1) for _ in range(self.number(4))},
        }
        return makers[kind]()

    def _entry(self) -> Any:
        return self.one_of(
            [
                [b"s" * 16, self.number(9)],
                [b"s" * 16, self.number(9), self.word(), self.word()],
                [self.word(), self.one_of(NUMBERS)],
                [self.word(), self.word()],
                [self.one_of([None, self.word()]), self.word(), self.one_of(NUMBERS)],
                [self.word(), self.one_of(NUMBERS), [[self.word(), self.word()]]],
                self.value(2),
            ]
        )

    def payload(self, value: object) -> bytes:
        """Return the frames of a value with the large arrays made until now."""
        large, self._large = self._large, []
        try:
            packed = msgpack.packb(value)
        except (ValueError, OverflowError):
            packed = b"\xc0"
        frames = [len(large).to_bytes(4, "little") + packed, *large]
        return b"".join(len(f[:9999]).to_bytes(2, "little") + f[:9999] for f in frames)
