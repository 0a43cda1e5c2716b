"""What callers give, checked where they give it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

from aserpc.errors import ProtocolError
from aserpc.messages.base import check_name


def positive(name: str, value: Any) -> float:
    """Return a positive real number of any type as a float; raise ValueError for others."""
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise ValueError(f"{name} is a positive number, not {value!r}")
    return float(value)


def whole_number(name: str, value: Any) -> int:
    """Return a whole number of any type as an int.

    Raises
    ------
    TypeError
        For what is none.
    ValueError
        For one that the wire has no form for.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    number = int(value)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"{name} is a whole number of at most 64 bits, not {value!r}")
    return number


def number_from(least: int, name: str, value: Any, text: str = "a number") -> int:
    """Return a whole number of any type, from the least on; raise ValueError for others."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} is {text} from {least}, not {value!r}")
    return int(value)


def optimizer_maker(name: str, value: Any) -> Any:
    """Return what makes an optimizer; raise TypeError for what can't, such as its name."""
    return function(name, value, "a class such as ase.optimize.FIRE")


def function(name: str, value: Any, text: str) -> Any:
    """Return what can be called; raise TypeError for what can't."""
    if not callable(value):
        raise TypeError(f"{name} is {text}, not {value!r}")
    return value


def calculator_name(name: Any) -> str:
    """Return the name of a calculator; raise TypeError or ValueError for what can't be one."""
    if not isinstance(name, str):
        raise TypeError(f"a calculator's name is a text, not {name!r}")
    try:
        check_name(name)
    except ProtocolError as error:
        raise ValueError(str(error)) from None
    return name


def property_names(properties: Sequence[str]) -> list[str]:
    """Return the names of properties; raise TypeError where they are none."""
    if not isinstance(properties, Iterable) or isinstance(properties, str):
        raise TypeError(f"properties is a list of names, not {properties!r}")
    names = list(properties)
    # One with half a character, say, could not be packed.
    if not all(isinstance(name, str) and name.isprintable() for name in names):
        raise TypeError(f"properties is a list of names, not {properties!r}")
    return names
