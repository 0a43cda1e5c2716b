"""``aserpc run``: evaluate or relax the structures of files, in parallel."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aserpc.cli.console import complain, print_table
from aserpc.cli.results import Finished, path_beside
from aserpc.cli.structures import Structure, check_output, read_structures
from aserpc.client import Client, RemoteCalculator, Results, broker_status, list_calculators
from aserpc.errors import (
    AserpcError,
    LeftOutWarning,
    RegistryError,
    SettingsError,
    WorkerFailedError,
)
from aserpc.importing import check_reference
from aserpc.local_service import LocalService, command_config, mistake
from aserpc.parallel.asking import Asking, FutureCalculator, threads
from aserpc.registry import resolve

#: If more structures than that were not come to, they are told in one line.
MOST_LINES = 10

#: Structures that are on their way at a time.
WINDOW = 1000

#: How often it is looked whether the workers still run, s.
CHECK_INTERVAL = 1.0


@dataclass
class Job:
    """What the command line asks for; see ``aserpc run --help``."""

    calculator: str
    files: list[Path]
    index: str = "::"
    relax: bool = False
    fmax: float = 0.05
    steps: int = 200
    workers: int = 1
    broker: str | None = None
    registry: str | None = None
    kwargs: dict[str, Any] | None = None
    output: Path | None = None
    restart: bool = False
    as_json: bool = False
    allow_nonfinite: bool = False


def run_job(job: Job) -> int:
    """Do it, and return the exit code: 0, or 1 if a structure failed.

    Raises
    ------
    SettingsError
        If a file can't be read, or the output could not be written.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end in order, as on Ctrl-C
    # ASE's readers leave objects in `info`, such as a CIF's Spacegroup, that nobody put there.
    warnings.simplefilter("ignore", LeftOutWarning)
    structures = read_structures(job.files, job.index)
    if job.output is not None:
        check_output(job.output, len(structures), job.files)
    task = {k: getattr(job, k) for k in ("calculator", "registry", "kwargs", "relax")}
    if job.relax:
        task.update(fmax=job.fmax, steps=job.steps)
    with Finished(job.output, task, restart=job.restart) as finished:
        return _finish(job, structures, finished)


def _finish(job: Job, structures: list[Structure], finished: Finished) -> int:
    """Do what is not finished, write all that is, and return the exit code."""
    rest = finished.restore(structures)
    if len(rest) < len(structures):
        assert job.output is not None
        complain(
            f"{len(structures) - len(rest)} of {len(structures)} structures are finished already, "
            f"in {path_beside(job.output)}; --restart computes them again"
        )
    why, interrupted = "", False
    if rest:
        try:
            why, interrupted = _compute(job, rest, finished)
        except KeyboardInterrupt:  # while the service starts, or once more while it ends
            why, interrupted = "interrupted", True
    left = [structure for structure in rest if structure.error is None]
    for structure in left:
        structure.error = why
    _print(job, structures)
    _write(job, structures)
    failed = [structure for structure in structures if structure.error]
    told_at_once = {id(structure) for structure in left} if len(left) > MOST_LINES else set()
    for structure in failed:
        if id(structure) not in told_at_once:
            complain(f"{structure.label} ({structure.formula}) failed: {structure.error}")
    if told_at_once:
        complain(f"{left[0].label} and {len(left) - 1} more were not computed: {why}")
    if interrupted:
        if job.output is not None:
            complain("the same command goes on from here")
        return 130
    return 1 if failed else 0


def _compute(job: Job, structures: list[Structure], finished: Finished) -> tuple[str, bool]:
    """Compute structures; return why not all of them, and whether somebody interrupted it."""
    why, interrupted = "", False
    waiting: dict[Future[Any], Structure] = {}
    with contextlib.ExitStack() as stack:
        service: LocalService | None = None
        name, address = job.calculator, job.broker
        if address is None:
            entry = resolve(job.calculator, registry=job.registry, kwargs=job.kwargs)
            name = entry.name
            if isinstance(entry.factory, str):
                check_reference(entry.factory, Path.cwd())
            arguments = []
            if job.registry is not None:
                arguments += ["--registry", job.registry]
            if job.kwargs is not None:
                arguments += ["--kwargs", json.dumps(job.kwargs)]
            config = command_config(name, [*arguments, "--", job.calculator], job.workers)
            service = stack.enter_context(LocalService({name: config}))
            address, at_once = service.address, job.workers
        else:
            at_once = list_calculators(address).get(name, 1)
        compute = _relaxed if job.relax else _evaluated
        try:
            # What has begun ends before it is looked at what has been answered.
            with (
                _progress(len(structures), job, name, address) as advance,
                contextlib.closing(
                    compute(job, structures, name, address, at_once, service, waiting)
                ) as done,
            ):
                for structure in done:
                    if not structure.error:
                        finished.add(structure)
                    advance()
        except KeyboardInterrupt:
            why, interrupted = "interrupted", True
        except WorkerFailedError as error:
            why = str(error)
        # What has been answered counts, also where nobody came to take it.
        for future, structure in waiting.items():
            if not job.relax and future.done() and not future.cancelled():
                _take(structure, name, future)
        for structure in structures:
            if structure.error == "":
                finished.add(structure)
    if service is not None and (wrong := _mistake(structures, why)):
        raise wrong
    return why, interrupted


def _mistake(structures: list[Structure], why: str) -> RegistryError | None:
    """Return what was wrong with the command, if that is why nothing could be computed."""
    if any(structure.error == "" for structure in structures):
        return None
    found = (mistake(structure.error or why) for structure in structures)
    return next(filter(None, found), None)


def _evaluated(
    job: Job,
    structures: list[Structure],
    name: str,
    address: str,
    at_once: int,  # noqa: ARG001
    service: LocalService | None,
    waiting: dict[Future[Any], Structure],
) -> Generator[Structure, None, None]:
    known = RemoteCalculator(name, address).implemented_properties
    properties: list[str] = [p for p in ("energy", "forces") if p in known] or known[:1]
    rest = iter(structures)
    with Client(address, allow_nonfinite=job.allow_nonfinite) as client:
        while True:
            while len(waiting) < WINDOW and (structure := next(rest, None)) is not None:
                future = _submitted(client, name, structure, properties)
                if future is not None:
                    waiting[future] = structure
                else:
                    yield structure
            if not waiting:
                return
            for future in _finished(waiting, service):
                _take(waiting[future], name, future)
                yield waiting.pop(future)


def _submitted(
    client: Client, name: str, structure: Structure, properties: list[str]
) -> Future[Results] | None:
    try:
        return client.submit(name, structure.atoms, properties)
    except AserpcError as error:  # it can't be sent
        structure.error = str(error)
        return None


def _take(structure: Structure, name: str, future: Future[Results]) -> None:
    try:
        results = future.result()
    except AserpcError as error:
        structure.error = str(error)
    else:
        structure.seconds = results.provenance["seconds"]
        structure.done(name, results)


def _relaxed(
    job: Job,
    structures: list[Structure],
    name: str,
    address: str,
    at_once: int,
    service: LocalService | None,
    waiting: dict[Future[Any], Structure],
) -> Generator[Structure, None, None]:
    with Client(address, allow_nonfinite=job.allow_nonfinite) as client:
        asked = Asking(client, name)
        with threads(asked, at_once) as executor:
            for structure in structures:
                waiting[executor.submit(_relax, job, structure, asked)] = structure
            while waiting:
                for future in _finished(waiting, service):
                    structure = waiting.pop(future)
                    future.result()
                    yield structure


def _relax(job: Job, structure: Structure, asked: Asking) -> None:
    from ase.optimize import BFGS

    started = time.perf_counter()
    atoms = structure.atoms
    try:
        atoms.calc = calculator = FutureCalculator(asked)
        with BFGS(atoms, logfile=None) as optimizer:
            structure.converged = bool(optimizer.run(fmax=job.fmax, steps=job.steps))
            structure.steps = optimizer.nsteps
        atoms.get_potential_energy()
        structure.seconds = time.perf_counter() - started
        structure.done(asked.name, calculator.results)
    except CancelledError:
        pass  # it is not done; whoever stopped it says why
    except Exception as error:  # noqa: BLE001 -- one structure's failure is not the others'
        structure.error = str(error) or type(error).__name__


def _finished(
    waiting: dict[Future[Any], Structure], service: LocalService | None
) -> set[Future[Any]]:
    """Wait for some to finish, while there are workers."""
    while not (finished := wait(waiting, CHECK_INTERVAL, FIRST_COMPLETED).done):
        if service is not None:
            service.check()
    return finished


@contextlib.contextmanager
def _progress(total: int, job: Job, name: str, address: str) -> Iterator[Any]:
    if job.as_json or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress

    verb = "relaxing" if job.relax else "evaluating"
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(verb, total=total)

        def tell(news: str) -> None:
            progress.update(task, description=escape(f"{name}: {news}") if news else verb)

        with _news(name, address, tell):
            yield lambda: progress.advance(task)


@contextlib.contextmanager
def _news(name: str, address: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell how a calculator's start gets on, as long as no worker serves it."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(CHECK_INTERVAL):
            with contextlib.suppress(AserpcError):
                status = broker_status(address, 1000 * CHECK_INTERVAL)
                counts = status["workers"].get(name, {"total": 0, "loading": 0})
                is_served = counts["total"] > counts["loading"]
                tell("" if is_served else status["spawning"].get(name, {}).get("text", ""))

    thread = threading.Thread(target=look, name="aserpc news", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _print(job: Job, structures: list[Structure]) -> None:
    if job.as_json:
        keys = ("energy", "max_force", "steps", "converged", "seconds", "error")
        print(
            json.dumps(
                [
                    {
                        "file": str(s.file),
                        "index": s.number,
                        "formula": s.formula,
                        **{key: _for_json(getattr(s, key)) for key in keys},
                        "error": s.error or None,
                    }
                    for s in structures
                ],
                indent=2,
            )
        )
        return
    rows = [
        (
            s.label,
            s.formula,
            "-" if s.energy is None else f"{s.energy:.6f}",
            "-" if s.max_force is None else f"{s.max_force:.4f}",
            s.steps if job.relax else "-",
            f"{s.seconds:.2f}",
            "failed" if s.error else "not converged" if s.converged is False else "ok",
        )
        for s in structures
    ]
    titles = ["Structure", "Formula", "Energy (eV)", "Max force (eV/Å)", "Steps", "Time (s)", ""]
    print_table(job.calculator, titles, rows)


def _for_json(value: Any) -> Any:
    """Return a value as JSON can hold it: null for what is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write(job: Job, structures: list[Structure]) -> None:
    if job.output is None:
        return
    import ase.io

    good = [structure.atoms for structure in structures if not structure.error]
    if not good:
        return
    try:
        ase.io.write(job.output, good)
    except Exception as error:  # noqa: BLE001 -- ASE's writers raise what they like
        what = f"{type(error).__name__}: {error}"
        raise SettingsError(f"cannot write {job.output}: {what}") from None
