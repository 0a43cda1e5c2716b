"""Ctrl-C while many are computed at once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.processes import Cli
from support.waiting import wait_for, wait_until_asleep

SCRIPT = """
from ase import Atoms
from ase.md.verlet import VelocityVerlet
from aserpc import parallel

images = [Atoms("H", [(x, 0, 0)]) for x in range(4)]
verlet = lambda atoms, rng: VelocityVerlet(atoms, 1.0)
{call}
"""


@pytest.mark.parametrize(
    "call",
    [
        "parallel.hessian(images[0], 'gate')",
        "parallel.relax(images, 'gate')",
        "parallel.neb(images, 'gate')",
        "parallel.ensemble(images[0], verlet, range(4), 'gate', steps=9)",
    ],
    ids=["hessian", "relax", "neb", "ensemble"],
)
def test_ctrl_c_ends_all_that_is_asked_at_once(cli: Cli, tmp_path: Path, call: str) -> None:
    cli.broker()
    cli.worker("Gate", "--kwargs", f'{{"folder": "{tmp_path}"}}')
    script = cli.python(SCRIPT.format(call=call))
    wait_for(lambda: sum(cli.status()["pending_requests"].values()) > 1, what=script.errors)
    wait_until_asleep(script.pid)
    script.signal(signal.SIGINT)
    assert script.wait() != 0
    assert script.errors().rstrip().endswith("KeyboardInterrupt")
    wait_for(lambda: not any(cli.status()["pending_requests"].values()))
