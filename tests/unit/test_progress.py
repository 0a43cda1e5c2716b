"""The progress bar: what shows it where, and that it is told of each."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest

from aserpc.client import progress


class ZMQInteractiveShell:
    """What a notebook's kernel has, by its name."""


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have only these packages be installed."""
    find = importlib.util.find_spec

    def only(name: str, package: str | None = None) -> Any:
        if name in ("rich", "tqdm", "ipywidgets"):
            return object() if name in names else None
        return find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", only)


def a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take this for the kernel of a notebook."""
    ipython = ModuleType("IPython")
    ipython.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)


@pytest.mark.parametrize(
    ("names", "where", "chosen"),
    [
        (["rich", "tqdm", "ipywidgets"], "terminal", "_rich"),
        (["rich"], "terminal", "_rich"),
        (["tqdm"], "terminal", "_tqdm"),
        ([], "terminal", "_plain"),
        (["rich", "tqdm", "ipywidgets"], "notebook", "_rich"),
        (["rich", "tqdm"], "notebook", "_tqdm"),
        (["tqdm", "ipywidgets"], "notebook", "_tqdm"),
        (["rich"], "notebook", "_plain"),
    ],
)
def test_what_shows_it(
    names: list[str], where: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, *names)
    if where == "notebook":
        a_notebook(monkeypatch)
    assert progress._find() is getattr(progress, chosen)


@pytest.mark.parametrize("total", [5, None])
@pytest.mark.parametrize("name", ["rich", "tqdm", "plain"])
def test_each_counts(name: str, total: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    if name != "plain":
        pytest.importorskip(name)
    with getattr(progress, f"_{name}")("emt [8]", total) as advance:
        for _ in range(5):
            advance()
    shown = capsys.readouterr().err
    assert "emt [8]" in shown
    assert "5" in shown


def test_a_plain_bar_of_many_is_written_a_hundred_times(capsys: pytest.CaptureFixture[str]) -> None:
    with progress._plain("emt", 100_000) as advance:
        for _ in range(100_000):
            advance()
    shown = capsys.readouterr().err
    assert 100 <= shown.count("\r") <= 102
    assert shown.endswith("\remt 100000/100000\n")


def test_nothing_is_shown_where_none_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bar("emt", 5, shown=False) as advance:
        advance()
    assert capsys.readouterr().err == ""


def test_the_length_of_what_has_one() -> None:
    assert progress.length([1, 2]) == 2
    assert progress.length(iter([1, 2])) is None
