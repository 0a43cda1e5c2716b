"""Messages that take long on a slow link: for workers the limit is `worker_timeout`."""

from __future__ import annotations

import pytest

from support.across import NEVER, Across
from support.processes import Process

#: Sends a structure of so many MB for an answer of so many, and prints the energy and its size, or
#: the error.
CLIENT = """
import sys
import numpy as np
from ase import Atoms
from aserpc import AserpcError, RemoteCalculator
sent, wanted = map(float, sys.argv[1:])
atoms = Atoms("H", [(2, 0, 0)], info={"load": np.ones(int(sent * 125_000)), "wanted": wanted})
atoms.calc = RemoteCalculator("heavy")
try:
    energy = atoms.get_potential_energy()
except AserpcError as error:
    print(f"{type(error).__name__}: {error}")
else:
    print(energy, atoms.calc.results["load"].nbytes)
"""


def ask(across: Across, sent: float, wanted: float) -> str:
    """Return what the client prints."""
    client = across.on("laptop").python(CLIENT, str(sent), str(wanted))
    assert client.wait(50) == 0, client.errors()
    return client.output()


def slow(across: Across, *hosts: str) -> Process:
    """Start a service with slow links, whose `worker_timeout` is short; return the worker."""
    across.set(ASERPC_WORKER_TIMEOUT="1")
    across.broker()
    worker = across.worker("one", "Heavy")
    for host in hosts:
        across.hosts[host].limit("10mbit")
    return worker


@pytest.mark.parametrize(("sent", "wanted"), [(3, 0), (0, 3)])
def test_between_a_client_and_the_broker_it_arrives(
    across: Across, sent: float, wanted: float
) -> None:
    slow(across, "head", "laptop")
    assert ask(across, sent, wanted) == f"2.0 {wanted * 1_000_000}\n"


def test_an_answer_that_takes_longer_than_the_timeout_fails_and_its_error_says_what_helps(
    across: Across,
) -> None:
    worker = slow(across, "head", "one")
    text = ask(across, 0, 3)
    assert text.startswith("WorkerLostError: the request to 'heavy', of 198 bytes, or its answer")
    assert "set a longer one for the broker (ASERPC_WORKER_TIMEOUT)" in text
    # Neither has it harmed anybody, nor does it go on.
    assert ask(across, 0, 0) == "2.0 0\n"
    assert worker.runs()


def test_with_a_longer_timeout_it_arrives(across: Across) -> None:
    across.set(ASERPC_WORKER_TIMEOUT=NEVER)
    across.broker()
    across.worker("one", "Heavy")
    for host in ("head", "one", "laptop"):
        across.hosts[host].limit("10mbit")
    assert ask(across, 3, 3) == "2.0 3000000\n"
