"""What calculators answer, and in what two answers differ."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.outputs import all_outputs

from aserpc.batchers import as_calculator
from aserpc.errors import AserpcError, CalculationError, NonFiniteError, ServiceError

__all__ = [
    "Answers",
    "ask",
    "differences",
    "error_difference",
    "forget",
    "served",
    "shape_faults",
    "type_differences",
]

#: What two messages of one error may differ in: addresses in memory, paths, numbers.
_VARYING = re.compile(r"0x[0-9a-f]+|[^\s'\"]*/[^\s'\"]*|\d+")


@dataclass
class Answers:
    """What a calculator answered when it was asked for several properties of a structure."""

    values: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    #: All results of the calculator, asked for or not.
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def refusal(self) -> Exception | None:
        """Why the calculator can't compute the structure; None if it can.

        A property that it never computes, or not for such a structure, is no refusal.
        """
        if self.values:
            return None
        others = (e for e in self.errors.values() if not isinstance(e, PropertyNotImplementedError))
        return next(others, None)

    @property
    def fault(self) -> Exception | None:
        """An error that is not the calculator's own: workers that die of the structure, say."""
        return next((e for e in self.errors.values() if _is_fault(e)), None)


def _is_fault(error: Exception) -> bool:
    return isinstance(error, AserpcError) and not isinstance(
        error, CalculationError | NonFiniteError
    )


def served(calculator: Any) -> Any:
    """Return the calculator that a worker serves: what computes batches only is made one."""
    if callable(getattr(calculator, "get_property", None)):
        return calculator
    wrapped = as_calculator(calculator)
    return calculator if wrapped is None else wrapped


def forget(calculator: Any) -> None:
    """Have a calculator compute whatever it is asked for next."""
    if hasattr(calculator, "reset"):
        calculator.reset()
    elif hasattr(calculator, "results"):
        calculator.atoms, calculator.results = None, {}


def ask(calculator: Any, atoms: Atoms, names: Sequence[str], *, new: bool = True) -> Answers:
    """Ask a calculator for properties of a copy of a structure.

    Parameters
    ----------
    calculator
        An ASE calculator.
    atoms
        The structure.
    names
        Properties.
    new
        Have it computed, even if the calculator knows it.

    Raises
    ------
    ServiceError
        If the service could not ask the calculator.
    """
    if new:
        forget(calculator)
    atoms, answers = atoms.copy(), Answers()
    for name in names:
        value = _outcome(calculator, name, atoms)
        if isinstance(value, Exception):
            answers.errors[name] = value
            if answers.fault is not None:
                break  # workers died of it, say: the others would, too
        else:
            answers.values[name] = value
    answers.results = {k: _kept(v) for k, v in getattr(calculator, "results", {}).items()}
    return answers


def _outcome(calculator: Any, name: str, atoms: Atoms) -> Any:
    try:
        return _kept(calculator.get_property(name, atoms))
    except ServiceError:
        raise
    except Exception as error:  # noqa: BLE001 -- it is what is asked about
        return error


def _kept(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


# ---- differences ---------------------------------------------------------------------------------


def differences(
    found: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float, scale: float = 1.0
) -> Iterator[str]:
    """Yield in words where values differ; what is only in one of the two is left out.

    Parameters
    ----------
    found, expected
        Values by name, perhaps nested.
    tolerance
        How much they may differ, relative to the largest number of the expected value or to
        `scale`, whichever is larger.
    scale
        The least that differences are measured by, in the value's units.
    """
    for name, one, other in _leaves(found, expected):
        told = _difference(one, other, tolerance, scale)
        if told:
            yield f"{name} {told}"


def type_differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words where shapes and dtypes differ; of what is only in one of the two: not."""
    for name, one, other in _leaves(found, expected):
        a, b = _array(one), _array(other)
        if a is None or b is None:
            continue
        if a.shape != b.shape:
            yield f"{name} has the shape {a.shape}, not {b.shape}"
        elif a.dtype != b.dtype and "U" not in (a.dtype.kind, b.dtype.kind):
            yield f"{name} has the dtype {a.dtype}, not {b.dtype}"


def shape_faults(values: Mapping[str, Any], count: int) -> dict[str, str]:
    """Return what is wrong with values that have a name in ASE, by name: shape, or no numbers.

    Parameters
    ----------
    values
        By the names of their properties.
    count
        The number of atoms.
    """
    faults = {}
    for name, value in values.items():
        if name not in all_outputs:
            continue
        array = _array(value)
        if array is None or array.dtype.kind not in "iuf":
            faults[name] = f"{name} is no array of real numbers, but {value!r:.60}"
            continue
        spec = [count if size == "natoms" else size for size in all_outputs[name].shapespec]
        # A word stands for any size. Others of these ASE takes too: vectors, and whole tensors.
        others = {"magmoms": [count, 3], "stress": [3, 3], "stresses": [count, 3, 3]}
        shapes = [spec, others.get(name, spec)]
        if not any(_fits(array.shape, shape) for shape in shapes):
            faults[name] = f"{name} has the shape {array.shape}, not {tuple(spec)}"
    return faults


def _fits(shape: Sequence[int], spec: Sequence[int | str]) -> bool:
    return len(shape) == len(spec) and all(
        isinstance(size, str) or size == has for size, has in zip(spec, shape, strict=True)
    )


def _leaves(
    found: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for name, other in expected.items():
        if name not in found:
            continue
        one, path = found[name], f"{prefix}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _leaves(one, other, f"{path}.")
        else:
            yield path, one, other


def _difference(found: Any, expected: Any, tolerance: float, scale: float) -> str:
    one, other = _array(found), _array(expected)
    if one is None or other is None:
        return "" if _same(found, expected) else f"is {found!r:.60}, not {expected!r:.60}"
    if one.shape != other.shape:
        return f"has the shape {one.shape}, not {other.shape}"
    if not {one.dtype.kind, other.dtype.kind} <= set("iufc"):
        return "" if np.array_equal(one, other) else f"is {found!r:.60}, not {expected!r:.60}"
    one, other = (
        np.atleast_1d(a).astype(complex if a.dtype.kind == "c" else float) for a in (one, other)
    )
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return "is finite in other places"
    finite = np.isfinite(other)
    size = max(scale, float(np.abs(other[finite]).max(initial=0.0)))
    gap = np.where(finite, np.abs(np.where(finite, one, 0) - np.where(finite, other, 0)), 0.0)
    if float(gap.max(initial=0.0)) <= tolerance * size:
        return ""
    worst = np.unravel_index(int(gap.argmax()), gap.shape)
    where = "" if np.ndim(expected) == 0 else f"[{', '.join(map(str, worst))}]"
    return f"{where} is {_short(one[worst])}, not {_short(other[worst])}".lstrip()


def _short(value: Any) -> str:
    return f"{value:.8g}"


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    """Return a value as an array of numbers or texts; None if it is none."""
    with contextlib.suppress(ValueError):  # lists of different lengths
        array = np.asarray(value)
        if array.dtype.kind in "biufcU":
            return array
    return None


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 -- objects of others; they can't be compared
        return True


def error_difference(found: Exception | None, expected: Exception | None) -> str:
    """Return in words in what one error is not the other; empty if in nothing."""
    if found is None and expected is None:
        return ""
    if found is None or expected is None:
        one, other = (_told(e) if e is not None else "no error" for e in (found, expected))
        return f"{one}, not {other}"
    remote = found.remote_type if isinstance(found, CalculationError) else ""
    name = f"{type(expected).__module__}.{type(expected).__qualname__}"
    same_type = remote == name if remote else isinstance(found, type(expected))
    # Who says first that it is not implemented says it in words of its own.
    if same_type and isinstance(expected, PropertyNotImplementedError):
        return ""
    if same_type and _VARYING.sub("#", str(found)) == _VARYING.sub("#", str(expected)):
        return ""
    return f"{_told(found)}, not {_told(expected)}"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
