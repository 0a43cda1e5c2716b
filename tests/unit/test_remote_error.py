"""A calculator's exception arrives as what it was."""

from __future__ import annotations

import builtins
import copy
import gc
import pickle
import sys
import traceback
import weakref
from typing import Any

import msgpack
import pytest
from ase.calculators import calculator
from ase.calculators.calculator import (
    CalculationFailed,
    CalculatorSetupError,
    InputError,
    PropertyNotImplementedError,
    SCFError,
)

from aserpc.errors import AserpcError, CalculationError
from aserpc.remote_error import RemoteTraceback, rebuild, report


def told(error: BaseException) -> dict[str, Any]:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - SystemExit too
        wire = msgpack.packb(report(caught))
    answer: dict[str, Any] = msgpack.unpackb(wire)
    return answer


class VendorError(SCFError):
    pass


class Odd(Exception):  # noqa: N818 - a name as others give them
    def __str__(self) -> str:
        raise RuntimeError("no text")


class SeveralError(RuntimeError, ValueError):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SCFError("no convergence in 50 steps"), SCFError),
        (InputError("k-points"), InputError),
        (CalculatorSetupError("no ORCA"), CalculatorSetupError),
        (CalculationFailed("segfault"), CalculationFailed),
        (calculator.ReadError("half a file"), calculator.ReadError),
        (calculator.EnvironmentError("PATH"), calculator.EnvironmentError),
        (calculator.PropertyNotPresent("x"), calculator.PropertyNotPresent),
        (PropertyNotImplementedError("dipole"), PropertyNotImplementedError),
        (NotImplementedError("dipole"), NotImplementedError),
        (VendorError("of a subclass"), SCFError),
        (ValueError("bad"), ValueError),
        (KeyError("missing"), KeyError),
        (ZeroDivisionError("by zero"), ZeroDivisionError),
        (FileNotFoundError(2, "No such file", "orca.out"), FileNotFoundError),
        (ModuleNotFoundError("No module named 'mace'", name="mace"), ModuleNotFoundError),
        (MemoryError("out of memory"), MemoryError),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), UnicodeError),
        (UserWarning("as an error"), UserWarning),
        (SeveralError("two at once"), ValueError),
        (SyntaxError("broken file"), SyntaxError),
        (RuntimeError("CUDA error"), CalculationFailed),
        (Exception("generic"), CalculationFailed),
        (StopIteration(3), CalculationFailed),
        (KeyboardInterrupt("x"), CalculationFailed),
        (SCFError(""), SCFError),
        (SCFError("two", "arguments"), SCFError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_types_and_messages(error: BaseException, kind: type[Exception]) -> None:
    back = rebuild(told(error))
    assert isinstance(back, kind)
    assert isinstance(back, CalculationError)
    assert isinstance(back, RuntimeError)
    assert str(back) == str(error)
    assert type(back).__name__ == type(error).__name__
    assert back.remote_type == f"{type(error).__module__}.{type(error).__qualname__}"
    assert "in told" in back.remote_traceback


def test_generic_errors_do_not_end_loops() -> None:
    assert not isinstance(rebuild(told(StopIteration())), StopIteration)


@pytest.mark.parametrize(
    ("code", "text"), [(3, "sys.exit(3)"), (None, "sys.exit()"), ("no licence", "'no licence'")]
)
def test_sys_exit(code: Any, text: str) -> None:
    back = rebuild(told(SystemExit(code)))
    assert isinstance(back, CalculationFailed)
    assert text in str(back)
    assert "the calculator called" in str(back)


def test_a_message_that_can_not_be_made() -> None:
    back = rebuild(told(Odd()))
    assert "Odd" in str(back)
    assert "Odd" in back.remote_traceback


def test_text_that_utf8_can_not_encode_and_very_long_text() -> None:
    assert "\\ud800" in str(rebuild(told(ValueError("\ud800"))))
    wire = told(ValueError("start" + "\ud800" * 10**6 + "end"))
    assert len(msgpack.packb(wire)) < 1 << 20
    assert wire["message"].startswith("start")
    assert wire["message"].endswith("end")


def test_causes_are_in_the_traceback() -> None:
    error = SCFError("outer")
    error.__cause__ = KeyError("inner")
    assert "KeyError: 'inner'" in rebuild(told(error)).remote_traceback


def test_a_report_keeps_no_frames_alive() -> None:
    class Big:
        pass

    def calculate() -> dict[str, Any]:
        big = Big()
        alive.append(weakref.ref(big))
        try:
            raise ValueError("x")
        except ValueError as error:
            return report(error)

    alive: list[weakref.ref[Big]] = []
    kept = calculate()
    gc.collect()
    assert alive[0]() is None
    assert kept


def test_the_remote_traceback_is_shown_when_nobody_catches() -> None:
    back = rebuild(told(SCFError("no convergence")))
    shown = "".join(traceback.format_exception(back))
    assert "in told" in shown
    assert shown.rstrip().endswith("SCFError: no convergence")
    assert isinstance(back.__cause__, RemoteTraceback)


@pytest.mark.parametrize(
    "how", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy]
)
@pytest.mark.parametrize("kind", [SCFError, KeyError, FileNotFoundError, SyntaxError, ImportError])
def test_pickled_and_copied(how: Any, kind: type[Exception]) -> None:
    error: Any = rebuild(told(kind("some text")))
    error.mine = 3
    other = how(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert other.remote_type == error.remote_type
    assert other.remote_traceback == error.remote_traceback
    assert isinstance(other.__cause__, RemoteTraceback)
    assert other.mine == 3


def test_one_class_for_each_type() -> None:
    one, other = rebuild(told(SCFError("a"))), rebuild(told(SCFError("b")))
    assert type(one) is type(other)


def test_every_builtin_exception() -> None:
    for name, kind in vars(builtins).items():
        if isinstance(kind, type) and issubclass(kind, BaseException):
            types = [f"builtins.{cls.__name__}" for cls in kind.__mro__[:-1]]
            back = rebuild({"types": types, "message": "some text", "traceback": "there"})
            assert str(back) == "some text", name
            assert "some text" in "".join(traceback.format_exception(back)), name


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"types": None, "message": None, "traceback": None},
        {"types": "ValueError", "message": 3, "traceback": [1]},
        {"types": [3, None, {}], "message": b"x", "traceback": ""},
        {"types": ["", ".", "builtins.", "builtins.print", "builtins.object", "x" * 10**6]},
        {"types": ["builtins.\0", "builtins.__import__", "a b.c d", "\0"]},
        {"types": ["ase.calculators.calculator.Calculator"]},
        {"types": ["ase.calculators.calculator.os"]},
        {"types": ["x"] * 10**5},
    ],
)
def test_odd_reports(odd: dict[str, Any]) -> None:
    error = rebuild(odd)
    assert isinstance(error, AserpcError)
    assert isinstance(error, CalculationFailed)
    assert isinstance(error.remote_type, str)
    assert isinstance(error.remote_traceback, str)
    str(error)


def test_no_module_is_imported_because_a_peer_names_it() -> None:
    rebuild({"types": ["this.Error", "antigravity.Error", "turtle.TurtleGraphicsError"]})
    assert not {"this", "antigravity", "turtle"} & set(sys.modules)
