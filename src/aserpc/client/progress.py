"""A progress bar in a terminal or notebook, with what is installed for it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any


def length(items: Any) -> int | None:
    """Return how many there are, if that is known without taking them."""
    try:
        return len(items)
    except TypeError:
        return None


@contextlib.contextmanager
def progress_bar(
    text: str, total: int | None, *, shown: bool = True
) -> Iterator[Callable[[], None]]:
    """Show a bar during the block; what it gives is called for each that is done.

    Parameters
    ----------
    text
        What is being done.
    total
        Of how many; None: nobody knows.
    shown
        False: nothing is shown.
    """
    bar = _find() if shown else _none
    with bar(text, total) as advance:
        yield advance


def _find() -> Callable[[str, int | None], contextlib.AbstractContextManager[Callable[[], None]]]:
    """Return what shows a bar here."""
    # In a notebook rich shows nothing without ipywidgets, where tqdm prints text.
    if _has("rich") and (_has("ipywidgets") or not _in_notebook()):
        return _rich
    return _tqdm if _has("tqdm") else _plain


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


@contextlib.contextmanager
def _none(text: str, total: int | None) -> Iterator[Callable[[], None]]:  # noqa: ARG001
    yield lambda: None


@contextlib.contextmanager
def _rich(text: str, total: int | None) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(escape(text), total=total)
        yield lambda: progress.advance(task)


@contextlib.contextmanager
def _tqdm(text: str, total: int | None) -> Iterator[Callable[[], None]]:
    kind = "notebook" if _has("ipywidgets") and _in_notebook() else "std"
    tqdm = importlib.import_module(f"tqdm.{kind}").tqdm
    with tqdm(desc=text, total=total, file=sys.stderr) as bar:
        yield lambda: bar.update()


@contextlib.contextmanager
def _plain(text: str, total: int | None) -> Iterator[Callable[[], None]]:
    done = 0
    of = "" if total is None else f"/{total}"

    def show(ending: str = "") -> None:
        sys.stderr.write(f"\r{text} {done}{of}{ending}")
        sys.stderr.flush()

    def advance() -> None:
        nonlocal done
        done += 1
        # Not each of a million: a hundred steps are seen well enough.
        if total is None or total < 100 or done % (total // 100) == 0:
            show()

    show()
    try:
        yield advance
    finally:
        show("\n")
