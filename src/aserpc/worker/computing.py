"""Makes answers of requests: one with the calculator, several in one call where that works."""

from __future__ import annotations

import gc
import logging
import math
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from aserpc import transport
from aserpc.batchers import BatchCalculator
from aserpc.errors import MessageTooLargeError, ProtocolError
from aserpc.importing import explain
from aserpc.messages import Answer, Buffer, failure
from aserpc.payload import PackedAtoms, pack_results, unpack_atoms, unpack_results
from aserpc.remote_error import message_of, report
from aserpc.worker.batching import Batching, Job
from aserpc.worker.calculation import Evaluation

logger = logging.getLogger(__name__)

#: An answer with the frames of its results.
Reply = tuple[Answer, list[Buffer]]

#: After so many batches in a row that failed though each structure of them could be computed alone,
#: no more are tried.
MAX_FAULTS = 3

#: Properties of a structure that are one number, and those of which each atom has its own.
_NUMBERS = ("energy", "free_energy")
_PER_ATOM = ("energies", "forces", "stresses", "charges", "magmoms")

#: What frameworks say, besides by `MemoryError`, where there is not enough memory.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def count_atoms(payload: list[Buffer]) -> int:
    """Return how many atoms a request has; none, if it can't be read."""
    try:
        return len(unpack_atoms(PackedAtoms.from_frames(payload)))
    except ProtocolError:
        return 0


@dataclass(slots=True)
class _Task:
    """A request of a batch, and its structure."""

    job: Job
    atoms: Atoms


class Computer:
    """Computes requests.

    Parameters
    ----------
    evaluation
        The calculator.
    batcher
        What computes several structures in one call; None: nothing does.
    batching
        What chooses batches; learns which are too large.
    about
        As `Answer.about`.
    watch
        Returns the context of a call for some requests.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        batcher: BatchCalculator | None,
        batching: Batching,
        about: bytes,
        watch: Callable[[Sequence[Job]], AbstractContextManager[Any]],
    ) -> None:
        self._evaluation = evaluation
        self._batcher = batcher
        self._batching = batching
        self._about = about
        self._watch = watch
        self._left_out: set[str] = set()
        #: How many batches in a row failed, whether this one did, and why the last one.
        self._faults = 0
        self._fell_apart = False
        self._why = ""
        #: Whether there was not the memory for the last call, and how often not even for one.
        self._lacked_memory = False
        self._lacked_alone = 0

    def answers(self, jobs: Sequence[Job]) -> Iterator[Reply]:
        """Yield the answer of each request, as soon as it is known; an error is one, too.

        A batch that fails is computed in halves, down to single requests. Only one that fails
        alone, with the calculator itself, is answered with an error.
        """
        if len(jobs) == 1 or self._batcher is None:
            for job in jobs:
                yield self._alone(job)
            return
        tasks = []
        for job in jobs:
            try:
                self._evaluation.check(job.request.properties)
                tasks.append(_Task(job, unpack_atoms(PackedAtoms.from_frames(job.payload))))
            except Exception:  # noqa: BLE001, PERF203 -- what is wrong with it is said by `_alone`
                yield self._alone(job)
        failed = 0
        self._fell_apart = False
        for answer, frames in self._halves(tasks, self._batcher):
            failed += answer.error is not None
            yield answer, frames
        self._judge(failed)

    def _alone(self, job: Job) -> Reply:
        """Compute a request with the calculator, as ASE would."""
        request = job.request
        started = time.perf_counter()
        error: dict[str, Any] | None = None
        lacks_memory = False
        frames: list[Buffer] = []
        try:
            with self._watch([job]):
                packed = PackedAtoms.from_frames(job.payload)
                results = self._evaluation.evaluate(packed, request.properties)
            frames = self._pack(results)
        except ProtocolError as caught:
            error = failure("protocol", str(caught))
        except MessageTooLargeError as caught:
            error, frames = failure("too_large", str(caught)), []
        except KeyboardInterrupt:  # the second signal
            raise
        except BaseException as caught:
            logger.debug("calculating", exc_info=True)
            error = {"kind": "calculation", **report(caught)}
            lacks_memory = is_out_of_memory(caught)
        if lacks_memory:
            self._lacked_alone += 1
            free_memory()  # the next one may need less
        seconds = time.perf_counter() - started
        return self._answer(job, seconds, error=error), frames

    def _halves(self, tasks: Sequence[_Task], batcher: BatchCalculator) -> Iterator[Reply]:
        """Compute requests together, or if that fails in two halves."""
        if len(tasks) < 2:
            for task in tasks:
                yield self._alone(task.job)
            return
        started = time.perf_counter()
        found = self._together(tasks, batcher)
        seconds = time.perf_counter() - started
        if found is None:
            lacked_memory, lacked_alone = self._lacked_memory, self._lacked_alone
            half = len(tasks) // 2
            yield from self._halves(tasks[:half], batcher)
            yield from self._halves(tasks[half:], batcher)
            if lacked_memory and lacked_alone == self._lacked_alone:
                self._lower(tasks)
            return
        # All before one is computed alone: the calculator may use its arrays again.
        replies = [
            self._reply(*each, seconds, len(tasks)) for each in zip(tasks, found, strict=True)
        ]
        for task, reply in zip(tasks, replies, strict=True):
            yield self._instead(task.job, reply) if isinstance(reply, str) else reply

    def _instead(self, job: Job, wrong: str) -> Reply:
        """Compute a request alone of which a batch gave something wrong."""
        answer, frames = self._alone(job)
        if answer.error is None and not _flaw(unpack_results(frames)):
            self._fell_apart, self._why = True, wrong
        return answer, frames

    def _lower(self, tasks: Sequence[_Task]) -> None:
        """Have smaller batches: there was the memory for each of these, but not for all."""
        number = sum(len(task.atoms) for task in tasks)
        if self._batching.lower(number):
            logger.warning(
                "out of memory for %d structures with %d atoms; batches have at most %d atoms now",
                len(tasks),
                number,
                self._batching.limits.atoms,
            )

    def _together(
        self, tasks: Sequence[_Task], batcher: BatchCalculator
    ) -> Sequence[Mapping[str, Any]] | None:
        """Return the results of requests that are computed in one call; None: that failed."""
        asked = dict.fromkeys(name for task in tasks for name in task.job.request.properties)
        # Copies: if this fails, or changes them, each is to be as it was.
        atoms = [task.atoms.copy() for task in tasks]
        try:
            with self._watch([task.job for task in tasks]):
                found = batcher.calculate_batch(atoms, list(asked))
                check_results(found, len(tasks))
                _check(tasks, found)
        except KeyboardInterrupt:  # the second signal
            raise
        except BaseException as error:
            logger.debug("calculating %d structures together", len(tasks), exc_info=True)
            self._lacked_memory = is_out_of_memory(error)
            self._why = "" if self._lacked_memory else explain(error)
        else:
            return found
        finally:
            # What the calculator keeps may be of any of them.
            self._evaluation.forget()
        # Here the error's frames are gone, and with them what they kept in memory.
        if self._lacked_memory:
            free_memory()
        else:
            self._fell_apart = True
        return None

    def _judge(self, failed: int) -> None:
        """Give up batches if they fail though nothing is wrong with their structures."""
        if not self._fell_apart:
            self._faults = 0
        elif not failed:
            self._faults += 1
        if self._faults == MAX_FAULTS:
            self._batcher = None
            self._batching.stop()
            logger.warning(
                "%d batches failed whose structures can be computed alone; no more are tried. "
                "The last one: %s",
                MAX_FAULTS,
                self._why,
            )

    def _reply(
        self, task: _Task, results: Mapping[str, Any], seconds: float, batch: int
    ) -> Reply | str:
        """Return the answer with results of a batch, or what is wrong with these.

        That is perhaps another structure's fault: this one is better computed alone.
        """
        if wrong := _flaw(results):
            return wrong
        try:
            frames = self._pack(results)
        except Exception as error:  # noqa: BLE001 -- what the results are made of is not ours
            return explain(error)
        return self._answer(task.job, seconds, batch=batch), frames

    def _answer(
        self, job: Job, seconds: float, *, error: dict[str, Any] | None = None, batch: int = 1
    ) -> Answer:
        session, number = job.request.key
        return Answer(session, number, error=error, seconds=seconds, about=self._about, batch=batch)

    def _pack(self, results: Mapping[str, Any]) -> list[Buffer]:
        frames, left_out = pack_results(results)
        for name in {*left_out} - self._left_out:
            self._left_out.add(name)
            logger.warning("the result %s has no form on the wire and is left out", name)
        transport.check_size(frames)
        return frames


def check_results(found: Any, number: int) -> None:
    """Refuse what `calculate_batch` may not return for so many structures."""
    is_list = isinstance(found, Collection) and not isinstance(found, Mapping)
    kinds = [type(found).__name__]
    if is_list:
        kinds += [type(each).__name__ for each in found if not isinstance(each, Mapping)]
    if not is_list or len(kinds) > 1:
        msg = f"calculate_batch returned a {' of '.join(kinds[:2])}; it must return a list of dicts"
        raise TypeError(f"{msg}, the results of each structure")
    if len(found) != number:
        msg = f"a batch of {number} structures has {len(found)} results"
        raise ValueError(msg)


def _check(tasks: Sequence[_Task], found: Sequence[Mapping[str, Any]]) -> None:
    """Refuse results without all that was asked for, or of another structure."""
    for task, results in zip(tasks, found, strict=True):
        for name in task.job.request.properties:
            if name not in results:
                msg = f"{name} is not among the results of a batch"
                raise ValueError(msg)
        for name in (*_NUMBERS, *_PER_ATOM):
            value = results.get(name)
            if value is None:
                continue
            shape, own = np.shape(value), (len(task.atoms),)
            if name == "forces":
                is_right = shape == (*own, 3)
            else:
                is_right = math.prod(shape) == 1 if name in _NUMBERS else shape[:1] == own
            if not is_right:
                msg = f"{name} of {len(task.atoms)} atoms have the shape {shape}"
                raise ValueError(msg)


def _flaw(results: Mapping[str, Any]) -> str:
    """Say what is wrong with results of the right shape; empty: nothing."""
    try:
        for name in ("energy", "forces"):
            if name in results and not np.all(np.isfinite(results[name])):
                return f"{name} of a batch that is not finite, but is for each structure alone"
    except Exception as error:  # noqa: BLE001 -- what the results are made of is not ours
        return explain(error)
    return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there is not enough memory, of the machine or of a GPU."""
    # By its name: torch is not imported for it.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = message_of(error)
    return "RESOURCE_EXHAUSTED" in text or any(each in text.lower() for each in _OUT_OF_MEMORY)


def free_memory() -> None:
    """Give back what is kept for nothing."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
