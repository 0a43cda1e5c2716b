"""Which faults may explain which errors; all others are complaints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from aserpc.broker.deaths import MAX_ATTEMPTS, MAX_LOSSES
from aserpc.client.state import MAX_RESENDS
from chaos.clients import are_short
from chaos.records import Asked, Chronicle

#: What ends a worker, or its connection, in the middle of a calculation.
LOSSES = ("kill worker", "stop worker")
NETWORK = ("close workers' network", "freeze workers' network")
CLIENTS_NETWORK = ("close clients' network", "freeze clients' network")
BROKER = ("kill broker", "end broker", "stop broker")

#: The longest that a worker which comes back is taken for being there before it is, s.
HASTE = 0.5


def losses(run: Chronicle, asked: Asked) -> int:
    """Return how many workers of its calculator may have been lost while a request waited."""
    # While a broker is stopped, workers close connections that are silent.
    number = len(run.during(asked, *LOSSES, target=asked.name) + run.during(asked, "stop broker"))
    if asked.name == "far":
        number += len(run.during(asked, *NETWORK))
    return number


def _own_error(_: Chronicle, asked: Asked) -> bool:
    return asked.work == "raise"


def _timeout(run: Chronicle, asked: Asked) -> bool:
    # One that is stopped for longer than the limit may be ended when it goes on.
    stopped = run.during(asked, "stop worker", target=asked.name)
    return asked.work in ("hang", "seize") or bool(stopped)


def _poison(run: Chronicle, asked: Asked) -> bool:
    # Connections across a network are no verdict.
    seen = losses(run, asked)
    return asked.work == "crash" or (asked.name != "far" and seen >= MAX_ATTEMPTS)


def _lost(run: Chronicle, asked: Asked) -> bool:
    return losses(run, asked) >= MAX_LOSSES


def _no_workers(run: Chronicle, asked: Asked) -> bool:
    assert asked.ended is not None
    return run.was_absent(asked.name, asked.at - HASTE, asked.ended)


def _start_failed(run: Chronicle, asked: Asked) -> bool:
    return asked.name == "managed" and bool(run.during(asked, *LOSSES, "end worker", "shutdown"))


def _silent(run: Chronicle, asked: Asked) -> bool:
    # Each time that it is lost, it is sent again.
    return len(run.during(asked, *BROKER, *CLIENTS_NETWORK)) >= MAX_RESENDS


def _broker_stopped(run: Chronicle, asked: Asked) -> bool:
    return bool(run.during(asked, "end broker"))


def _deadline(_: Chronicle, asked: Asked) -> bool:
    assert asked.ended is not None
    return asked.deadline is not None and asked.ended >= asked.at + asked.deadline - 0.01


def _cancelled(_: Chronicle, asked: Asked) -> bool:
    return "-once-" in asked.token  # by the client itself, see `ask_at_once`


def _nothing(_: Chronicle, __: Asked) -> bool:
    return False


#: What may explain an error of a type. There is no fault that explains any other.
EXPLAINED: dict[str, Callable[[Chronicle, Asked], bool]] = {
    "CalculationError": _own_error,
    "CalculationTimeoutError": _timeout,
    "PoisonError": _poison,
    "WorkerLostError": _lost,
    "NoWorkersError": _no_workers,
    "WorkerFailedError": _start_failed,
    "BrokerSilentError": _silent,
    "BrokerStoppedError": _broker_stopped,
    "DeadlineError": _deadline,
    "cancelled": _cancelled,
}

#: Work that must not be answered as if it were any other.
NO_ANSWER = ("hang", "seize", "crash", "raise")


def complaints(run: Chronicle) -> list[str]:
    """Return what no fault explains."""
    found = list(run.complaints)
    computed = run.computed()
    for asked in run.asked.values():
        if asked.ended is None:
            continue
        if asked.wrong:
            found.append(f"wrong, {asked.wrong}: {asked}")
        elif not asked.error and asked.work in NO_ANSWER:
            found.append(f"answered: {asked}")
        elif not asked.error and not computed[asked.token]:
            found.append(f"answered by nobody: {asked}")
        elif asked.error and not EXPLAINED.get(asked.error, _nothing)(run, asked):
            found.append(f"unexplained: {asked}{_faults(run, asked)}")
        if computed[asked.token] > 1 + _repeats(run, asked):
            found.append(f"computed {computed[asked.token]} times: {asked}{_faults(run, asked)}")
    return found


def _repeats(run: Chronicle, asked: Asked) -> int:
    """Return how often a request may have been computed again."""
    # An answer that the clients' network loses is kept; only with its broker it is lost.
    number = losses(run, asked) + len(run.during(asked, *BROKER))
    # One that was sent ahead may be begun just when it is taken back, and its answer may be on the
    # way when its worker dies of the next one.
    if are_short(asked.at) or (asked.ended is not None and are_short(asked.ended)):
        number += 1
    if asked.work == "raise":  # asked again for less, see `RemoteCalculator._fetch`
        number += 1
    return number + (MAX_ATTEMPTS - 1 if asked.work == "crash" else 0)


def _faults(run: Chronicle, asked: Asked) -> str:
    kinds = {fault.kind for fault in run.faults}
    return "".join(f"\n    {fault}" for fault in run.during(asked, *kinds)) or "\n    no faults"


def summary(run: Chronicle, seed: str) -> str:
    """Tell a run in a line."""
    faults = Counter(fault.kind for fault in run.faults)
    errors = Counter(asked.error for asked in run.asked.values() if asked.error)
    answers = sum(1 for a in run.asked.values() if a.ended is not None and not a.error)
    kills = sum(number for kind, number in faults.items() if kind.startswith("kill"))
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(errors.items()))
    done = ", ".join(f"{number} {kind}" for kind, number in sorted(faults.items()))
    return (
        f"chaos, seed {seed}: {len(run.asked)} requests, {kills} kills, {answers} answers, "
        f"{run.counts['resent']} resends; errors: {told or 'none'}; faults: {done or 'none'}"
    )
