"""A peer that says more than is read, and dies: libzmq must not end the process that did not read.

It did where it still asked the peer for signs of life (``!_io_error``, its issue 4841).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.waiting import SOON

#: One of two sockets floods the other from a process of its own, and is killed. The other reads
#: only after a heartbeat interval, which is 1 s.
SCRIPT = """
import multiprocessing, signal, sys, time
import zmq
from aserpc import transport

kind, named, address = sys.argv[1], sys.argv[2] == "backend", sys.argv[3]

def router():
    sock = transport.router(transport.make_context(), 2.0, 1000, handover=named)
    transport.bind(sock, address)
    return sock

def dealer():
    sock = transport.dealer(transport.make_context(), 2.0, named=named)
    transport.connect(sock, address)
    return sock

def flood(blocked):
    sock, to = (dealer(), []) if kind == "dealer" else (router(), None)
    to = sock.recv_multipart()[:1] if to is None else to
    for _ in range(3000):
        if not sock.poll(100, zmq.POLLOUT):
            break
        try:
            sock.send_multipart([*to, bytes(10_000)], zmq.NOBLOCK)
        except zmq.Again:  # a ROUTER can be polled for all its peers only
            break
    blocked.set()
    signal.pause()

fork = multiprocessing.get_context("fork")
blocked = fork.Event()
other = fork.Process(target=flood, args=(blocked,), daemon=True)
if kind == "dealer":
    mine = router()
    other.start()
else:
    other.start()
    mine = dealer()
    mine.send(b"here")
assert blocked.wait(20)
other.kill()
other.join()
# libzmq's timer of 1 s, which ended the process, has to go by. It tells nobody that it has, so
# there is no condition to wait for.
time.sleep(1.5)
assert mine.poll(1000)
"""


@pytest.mark.parametrize("side", ["frontend", "backend"])
@pytest.mark.parametrize("flooding", ["dealer", "router"])
def test_one_who_floods_and_dies_harms_nobody(
    socket_folder: Path, flooding: str, side: str
) -> None:
    address = f"ipc://{socket_folder}/flooded.ipc"
    command = [sys.executable, "-c", SCRIPT, flooding, side, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * SOON, check=False)
    assert done.returncode == 0, done.stderr
