"""A calculator's exception as plain values in the worker, and as an exception again in the client.

No class of a peer's choosing is ever imported: the client knows ASE's exceptions and Python's
own, and finds the nearest in the list of names that the worker sends.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from aserpc.errors import CalculationError

__all__ = ["RemoteTraceback", "rebuild", "report"]

# The report travels in an answer's header, which may have 1 MiB.
_MAX_TEXT = 100_000
_MAX_NAME = 200
_MAX_TYPES = 40

_ASE_MODULE = "ase.calculators.calculator"
_ASE_TYPES = frozenset(
    {
        "CalculationFailed",
        "CalculatorError",
        "CalculatorSetupError",
        "EnvironmentError",
        "InputError",
        "PropertyNotImplementedError",
        "PropertyNotPresent",
        "ReadError",
        "SCFError",
    }
)
_FALLBACK = f"{_ASE_MODULE}.CalculationFailed"
#: Types that say nothing, and those that would end somebody's loop or generator in silence.
_GENERIC = (Exception, RuntimeError, StopIteration, StopAsyncIteration)


class RemoteTraceback(Exception):  # noqa: N818 - it is the cause of an error, never raised
    """The traceback in the worker; as the cause of a client's error it is shown by Python."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""' if self.args else ""


# ---- in the worker -------------------------------------------------------------------------------


def report(error: BaseException) -> dict[str, Any]:
    """Return what is told of an exception: plain values that msgpack can pack.

    Returns
    -------
    dict
        ``types``: qualified names of its type and that type's bases, most derived first;
        ``message``: its text; ``traceback``: the traceback with its causes.
    """
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__[:-1]]
    try:
        lines = "".join(traceback.format_exception(error))
    except Exception as failure:  # noqa: BLE001 - the exception is somebody else's code
        lines = f"(no traceback: {type(failure).__name__} while it was formatted)\n"
    return {
        "types": [_plain(name, _MAX_NAME) for name in names[:_MAX_TYPES]],
        "message": _plain(message_of(error), _MAX_TEXT),
        "traceback": _plain(lines, _MAX_TEXT),
    }


def message_of(error: BaseException) -> str:
    """Return an exception's text, whatever its own code does when it is asked for it."""
    try:
        if isinstance(error, SystemExit):
            code = "" if error.code is None else repr(error.code)
            return f"the calculator called sys.exit({code})"
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the exception is somebody else's code
        return f"{type(error).__name__} (its message is lost: {type(failure).__name__} in str())"


def _plain(text: str, limit: int) -> str:
    """Return text that UTF-8 can encode, without the middle of what is longer than `limit`."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= limit:
        return text
    half = limit // 2
    gap = f"\n[... {len(text) - 2 * half} characters left out ...]\n"
    return text[:half] + gap + text[-half:]


# ---- in the client -------------------------------------------------------------------------------


def rebuild(report: Mapping[str, Any]) -> CalculationError:
    """Return the exception that a `report` tells of, to be raised.

    It is a `CalculationError`, and also of the first type in ``types`` that is ASE's or Python's
    own, or else ASE's `CalculationFailed`. Its class has the name of the one in the worker.

    Parameters
    ----------
    report
        From a peer: what it lacks or has of another type counts as empty.
    """
    names = report.get("types")
    types = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    types = [name[:_MAX_NAME] for name in types[:_MAX_TYPES]]
    message = report.get("message")
    text = report.get("traceback")

    name = types[0].rpartition(".")[2] if types else ""
    for base in (*types, _FALLBACK):
        cls = _error_class(name, base)
        if cls is not None:
            break
    error = _make(cls, (message if isinstance(message, str) else "",), text)
    error.remote_type = types[0] if types else ""
    return error


class _RemoteError(CalculationError):
    """Base of the classes that `_error_class` makes."""

    #: Qualified name of ASE's or Python's type that it also is.
    base = _FALLBACK

    def __reduce__(self) -> tuple[Any, ...]:
        # The class exists in this process only; another one makes its own.
        state = self.__dict__
        return _restore, (type(self).__name__, self.base, self.args, self.remote_traceback), state


def _restore(name: str, base: str, args: tuple[Any, ...], text: str) -> CalculationError:
    return _make(_error_class(name, base), args, text)


def _make(cls: type[_RemoteError] | None, args: tuple[Any, ...], text: object) -> CalculationError:
    assert cls is not None
    error = cls(*args)
    if isinstance(text, str) and text:
        error.remote_traceback = text
        # Not a note: Python 3.10 has none.
        error.__cause__ = RemoteTraceback(text)
    return error


@lru_cache(maxsize=256)
def _error_class(name: str, base: str) -> type[_RemoteError] | None:
    """Return a class of that name which is also `base`, or None if `base` is of no use."""
    base_type = _find(base)
    if base_type is None:
        return None
    name = name if name.isidentifier() else base_type.__name__
    # What Python's exceptions bring themselves would win over ours, for they stand first: only
    # so do those with fields (SyntaxError, OSError) set them.
    members = {
        "__module__": __name__,
        "__doc__": f"An exception of that name in a worker; see `{base}`.",
        "__str__": CalculationError.__str__,
        "__reduce__": _RemoteError.__reduce__,
        "base": base,
    }
    try:
        cls = type(name, (base_type, _RemoteError), members)
        cls("text")
    except TypeError:  # ExceptionGroup and UnicodeDecodeError take more than a text
        return None
    return cls


def _find(name: str) -> type[Exception] | None:
    module, _, short = name.rpartition(".")
    found: object = None
    if module == _ASE_MODULE and short in _ASE_TYPES:
        from ase.calculators import calculator

        found = getattr(calculator, short, None)
    elif module == "builtins":
        found = getattr(builtins, short, None)
    if isinstance(found, type) and issubclass(found, Exception) and found not in _GENERIC:
        return found
    return None
