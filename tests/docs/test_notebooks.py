"""The notebooks of the documentation run from top to bottom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.blocks import ROOT

NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))

#: In a process of its own: Jupyter's packages warn of themselves. Prints what the cells print.
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.get("outputs", []):
        print(output.get("text", ""))
"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_it_runs(notebook: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", EXECUTE, str(notebook)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "eV/atom" in done.stdout
    assert list(tmp_path.iterdir()) == [], "nothing is left"


def test_they_are_stored_without_outputs() -> None:
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        assert '"output_type"' not in notebook.read_text(encoding="utf-8")
