"""A client's process: asks at random, checks every answer, and keeps a journal of both.

It is started with one argument, `Task` as JSON, and does what stands in the task's ``orders`` file:
``ask``, ``rest``, ``call N`` (ask each calculator once in each way, then rest), ``end``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aserpc import Client, RemoteCalculator, errors
from aserpc.client import Results
from aserpc.client.state import ClientState, Effect, Send
from aserpc.messages import Answer, Buffer, Message, Request, RequestKey
from chaos.answers import SCALES, difference

#: So long, s, calculations are long, and then short: workers are sent short ones ahead.
PHASE = 5.0

#: How many answers are remembered, to see one that comes twice.
REMEMBERED = 2000

PAUSE = threading.Event()


@dataclasses.dataclass
class Task:
    """What a client is to do."""

    name: str
    seed: str
    broker: str
    folder: str
    #: How often each kind of work is asked for, in one request of a hundred.
    percent: dict[str, float]
    #: Seconds of silence after which it gives up.
    timeout: float
    #: Mean pause between requests, s, and most futures that wait.
    pause: float = 0.05
    width: int = 12


class Journal:
    """The lines that a client leaves, whole ones also when it is killed."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, kind: str, **fields: Any) -> None:
        """Add a line."""
        line = {"kind": kind, "at": time.monotonic(), **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Asker:
    """Makes requests and tells how they end; one thread's."""

    def __init__(self, task: Task, way: str, journal: Journal) -> None:
        self.task, self.journal = task, journal
        self.way = f"{task.name}-{way}"
        self.random = random.Random(f"{task.seed} {self.way}")
        self._positions = np.random.default_rng(self.random.getrandbits(64))
        self._orders = Path(task.folder) / "orders"
        self._number = 0
        self._called = ""

    def orders(self) -> Iterator[str]:
        """Yield names to ask as long as that is ordered; pause where it is not."""
        while (order := self._orders.read_text()) != "end":
            if order == "ask" and are_short():  # all ask the same one, so that it has a queue
                PAUSE.wait(self.random.expovariate(1 / self.task.pause) / 50)
                yield list(SCALES)[int(2 * time.monotonic()) % len(SCALES)]
            elif order == "ask":
                PAUSE.wait(self.random.expovariate(1 / self.task.pause))
                yield self.random.choice(list(SCALES))
            elif order.startswith("call") and order != self._called:
                self._called = order
                yield from SCALES
                yield ""
                self.journal.note("called", order=order, way=self.way)
            else:
                PAUSE.wait(0.02)

    def ask(self, name: str, deadline: float | None = None) -> tuple[str, Atoms]:
        """Make and note a request; return its token and structure."""
        self._number += 1
        token = f"{self.way}-{self._number}"
        kind, seconds = ("sleep", 0.0) if self._calls else self._work(name)
        large = 30 if are_short() else self.random.randint(700, 2500)
        size = self.random.choice((1, 3, 8, 30, 30, 100, large))
        atoms = Atoms(f"H{size}", self._positions.normal(size=(size, 3)))
        atoms.info.update(token=token, work=kind, seconds=seconds)
        self.journal.note("asked", token=token, name=name, work=kind, deadline=deadline)
        return token, atoms

    def ended(self, token: str, wrong: str = "", error: BaseException | None = None) -> None:
        """Note how a request has ended."""
        text = "" if error is None else str(error)[:1000]
        self.journal.note("ended", token=token, wrong=wrong, error=type_of(error), text=text)

    @property
    def _calls(self) -> bool:
        return self._orders.read_text() != "ask"

    def _work(self, name: str) -> tuple[str, float]:
        chance = self.random.random() * 100
        for kind, percent in self.task.percent.items():
            chance -= percent
            if chance < 0:
                # The connection of one far away that ended so may come back, for all that is known.
                far_from_known = name == "far" and kind in ("crash", "seize")
                return ("raise" if far_from_known else kind), 0.8
        longest = self.random.choice((0.004, 0.004, 0.004, 0.1, 0.1, 0.1, 1.2))
        if are_short() and self.random.random() < 0.99:
            longest = 0.0
        return "sleep", self.random.random() * longest


def are_short(at: float | None = None) -> bool:
    """Whether calculations are short, now or then; the same for all processes of a machine."""
    return (time.monotonic() if at is None else at) % (2 * PHASE) > PHASE


def type_of(error: BaseException | None) -> str:
    """Return the name of an error's type, as `aserpc.errors` has it if it does."""
    if error is None:
        return ""
    names = [kind.__name__ for kind in type(error).__mro__]
    return next((name for name in names if name in errors.__all__), names[0])


def ask_in_turn(asker: Asker) -> None:
    """Ask by `RemoteCalculator`, one request after the other."""
    task = asker.task
    calculators = {
        name: RemoteCalculator(name, task.broker, task.timeout * 1000, check_broker=False)
        for name in SCALES
    }
    for name in asker.orders():
        if not name:
            continue
        token, atoms = asker.ask(name)
        atoms.calc = calculators[name]
        try:
            forces = atoms.get_forces()
            results = {"energy": atoms.get_potential_energy(), "forces": forces}
        except Exception as error:  # noqa: BLE001 -- all are noted
            asker.ended(token, error=error)
            PAUSE.wait(0.2)
        else:
            asker.ended(token, wrong=difference(name, atoms, results))


def ask_at_once(asker: Asker) -> None:
    """Ask by `Client`, several requests at once; some have a deadline, some are cancelled."""
    task, chance = asker.task, asker.random
    room = threading.Semaphore(task.width)
    with Client(task.broker, task.timeout * 1000, check_broker=False) as client:
        for name in asker.orders():
            if not name:  # all are to have ended
                for _ in range(task.width):
                    room.acquire()
                room.release(task.width)
                continue
            room.acquire()
            deadline = chance.uniform(0.5, 3.0) if chance.random() < 0.02 else None
            token, atoms = asker.ask(name, deadline)

            def done(
                future: Future[Results], name: str = name, token: str = token, atoms: Atoms = atoms
            ) -> None:
                if future.cancelled():
                    asker.journal.note("ended", token=token, wrong="", error="cancelled", text="")
                elif (error := future.exception()) is not None:
                    asker.ended(token, error=error)
                else:
                    asker.ended(token, wrong=difference(name, atoms, future.result()))
                room.release()

            future = client.submit(name, atoms, deadline=deadline)
            future.add_done_callback(done)
            if chance.random() < 0.02:
                PAUSE.wait(chance.random() * 0.1)
                future.cancel()
        for _ in range(task.width):
            room.acquire()


def watch(journal: Journal) -> None:
    """Note what is sent again, and answers that come again."""
    receive = ClientState.receive
    answered: OrderedDict[RequestKey, None] = OrderedDict()

    def watched(
        self: ClientState, message: Message, payload: list[Buffer], now: float
    ) -> list[Effect]:
        if isinstance(message, Answer) and message.part is None:
            if message.key in answered:
                journal.note("twice", request=f"{message.key[0].hex()} {message.key[1]}")
            answered[message.key] = None
            if len(answered) > REMEMBERED:
                answered.popitem(last=False)
        effects = receive(self, message, payload, now)
        sent = [e for e in effects if isinstance(e, Send) and isinstance(e.message, Request)]
        if sent:
            journal.note("resent", count=len(sent))
        return effects

    ClientState.receive = watched  # type: ignore[method-assign]


def main() -> None:
    """Be a client."""
    task = Task(**json.loads(sys.argv[1]))
    journal = Journal(Path(task.folder) / f"{task.name}.journal")
    watch(journal)
    thread = threading.Thread(target=ask_in_turn, args=[Asker(task, "turn", journal)])
    thread.start()
    ask_at_once(Asker(task, "once", journal))
    thread.join()
    journal.note("bye")
