"""The process of a private broker and manager: ends when the one that began it does."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import sys
import threading
from typing import Any

from aserpc import descriptors
from aserpc.broker import Broker
from aserpc.broker.garbage import collect_rarely
from aserpc.errors import AserpcError
from aserpc.manager import Manager
from aserpc.serving import served_beside, stop_on_signals
from aserpc.spawn import SpawnConfig

#: How often it is looked whether the parent lives, s: a fork of it may hold our pipe open.
LOOK_INTERVAL = 1.0


def main() -> None:
    """Serve what the first line of standard input says, until standard input ends.

    The folder that is the argument is removed then. What keeps it from serving is printed instead,
    into the log in that folder, which whoever began it reads and removes.
    """
    logging.basicConfig(level=logging.WARNING)
    descriptors.raise_limit()
    collect_rarely()
    line = sys.stdin.readline()
    if line:  # else the parent was killed at once
        try:
            _serve(json.loads(line))
        except (AserpcError, OSError) as error:
            sys.exit(str(error))
    shutil.rmtree(sys.argv[1], ignore_errors=True)


def _serve(spec: dict[str, Any]) -> None:
    broker = Broker(spec["frontend"], spec["backend"])
    configs = {name: SpawnConfig(**config) for name, config in spec["configs"].items()}
    manager = Manager(configs, spec["backend"])

    def follow_parent() -> None:
        with contextlib.suppress(BrokenPipeError):
            print("serving", flush=True)
        _wait_for_the_end(spec["parent"])
        manager.stop()

    with served_beside(broker, "aserpc broker", manager.stop):
        threading.Thread(target=follow_parent, name="aserpc parent", daemon=True).start()
        with stop_on_signals(manager.stop, manager.waker):
            manager.serve()


def _wait_for_the_end(parent: int) -> None:
    stdin = sys.stdin.fileno()
    while os.getppid() == parent:
        readable, _, _ = select.select([stdin], [], [], LOOK_INTERVAL)
        if readable and not os.read(stdin, 1):
            return
