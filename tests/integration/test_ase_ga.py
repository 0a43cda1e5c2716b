"""The documentation's genetic algorithm, with the package that was ase.ga."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.blocks import ROOT, read_blocks
from support.environments import ONE_THREAD
from support.processes import Cli

pytestmark = pytest.mark.slow

#: A first environment is downloaded, s.
DOWNLOADING = 600

REMOTE = 'RemoteCalculator("EMT")'


@pytest.mark.timeout(DOWNLOADING)
def test_a_search_finds_what_it_finds_with_a_local_calculator(
    cli: Cli, environment: Callable[..., Path], tmp_path: Path
) -> None:
    blocks = read_blocks(ROOT / "docs" / "how-to" / "ase-tools.md")
    (search,) = (block.text for block in blocks if block.title == "search.py")
    assert search.count(REMOTE) == 1
    local = search.replace(REMOTE, "EMT()")
    python = environment("ase-ga") / "python"
    cli.broker()
    cli.start("worker", "EMT")

    def run(code: str, name: str) -> list[str]:
        folder = tmp_path / name
        folder.mkdir()
        done = subprocess.run(
            [python, "-c", f"from ase.calculators.emt import EMT\n{code}"],
            cwd=folder,
            env={**ONE_THREAD, "ASERPC_IPC_DIR": str(cli.sockets)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    energies = run(search, "remote")
    assert len(energies) > 4, "more than the first generation"
    assert energies == run(local, "local")
