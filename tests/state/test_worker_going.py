"""When a worker goes, and what it does before."""

from __future__ import annotations

import pytest

from aserpc.messages import (
    Answer,
    Cancel,
    Dismiss,
    Failed,
    Goodbye,
    Message,
    Probe,
    Refuse,
    Reject,
    Request,
    Shutdown,
    Stopping,
    Unknown,
    Welcome,
    failure,
)
from aserpc.worker.state import (
    GOODBYE_TIMEOUT,
    TRANSITIONS,
    Phase,
)

from .builders import about, session
from .worker_desk import IDLE_TIMEOUT, Desk, kinds


@pytest.fixture
def desk() -> Desk:
    return Desk()


# ---- idling and leaving --------------------------------------------------------------------------


def test_it_asks_to_leave_after_the_idle_timeout(desk: Desk) -> None:
    assert "LEAVE" not in kinds(desk.wait(IDLE_TIMEOUT - 0.01))
    assert "LEAVE" in kinds(desk.wait(0.02))
    assert desk.state.phase is Phase.LEAVING


def test_it_goes_when_the_broker_confirms(desk: Desk) -> None:
    desk.wait(IDLE_TIMEOUT)
    desk.get(Dismiss())
    assert desk.state.ended
    assert desk.state.error is None


def test_a_request_makes_it_stay(desk: Desk) -> None:
    desk.wait(IDLE_TIMEOUT)
    key = desk.ask()
    assert desk.begin() == key
    desk.wait(10 * GOODBYE_TIMEOUT)
    desk.end(key)
    assert "LEAVE" not in kinds(desk.wait(IDLE_TIMEOUT - 0.01))
    assert "LEAVE" in kinds(desk.wait(0.02))


def test_it_goes_when_no_broker_answers(desk: Desk) -> None:
    desk.wait(IDLE_TIMEOUT + GOODBYE_TIMEOUT)
    assert desk.state.ended


def test_the_idle_timeout_counts_from_the_last_answer(desk: Desk) -> None:
    desk.wait(IDLE_TIMEOUT - 1)
    key = desk.ask()
    desk.begin()
    desk.end(key)
    assert "LEAVE" not in kinds(desk.wait(IDLE_TIMEOUT - 0.01))


def test_it_is_not_idle_while_it_computes(desk: Desk) -> None:
    desk.ask()
    desk.begin()
    assert "LEAVE" not in kinds(desk.wait(3 * IDLE_TIMEOUT))


def test_loading_is_not_idling() -> None:
    desk = Desk(serves=False)
    assert {*kinds(desk.wait(3 * IDLE_TIMEOUT))} == {"HEARTBEAT"}
    desk.state.loaded(about(), desk.now)
    assert "LEAVE" not in kinds(desk.wait(IDLE_TIMEOUT - 0.01))


def test_a_dismissal_that_was_not_asked_for_is_ignored(desk: Desk) -> None:
    desk.get(Dismiss())
    assert not desk.state.ended


# ---- finishing -----------------------------------------------------------------------------------


def test_shutdown_finishes_what_runs_and_hands_back_the_rest() -> None:
    desk = Desk(capacity=3)
    keys = [desk.ask(number) for number in range(3)]
    desk.begin()
    assert desk.get(Shutdown()) == []
    assert desk.begin() is None
    sent = desk.end(keys[0])
    assert sent == [Answer(*keys[0]), Goodbye([list(key) for key in keys[1:]])]
    desk.get(Dismiss())
    assert desk.state.ended


def test_an_idle_worker_says_goodbye_at_once(desk: Desk) -> None:
    assert desk.get(Shutdown()) == [Goodbye([])]
    assert desk.get(Shutdown()) == []
    assert desk.state.finish(desk.now) == []


def test_it_waits_for_the_broker_s_leave_but_not_for_ever(desk: Desk) -> None:
    desk.state.finish(desk.now)
    desk.wait(GOODBYE_TIMEOUT - 0.01)
    assert not desk.state.ended
    desk.wait(0.02)
    assert desk.state.ended


def test_what_it_computes_may_take_long_though_it_finishes(desk: Desk) -> None:
    # It was about to leave before: that has an end of its own.
    desk.wait(IDLE_TIMEOUT)
    key = desk.ask()
    desk.begin()
    desk.get(Shutdown())
    desk.wait(100 * GOODBYE_TIMEOUT)
    assert not desk.state.ended
    assert kinds(desk.end(key)) == ["ANSWER", "GOODBYE"]


def test_a_request_to_a_worker_that_finishes_is_ignored(desk: Desk) -> None:
    desk.state.finish(desk.now)
    desk.ask()
    assert desk.begin() is None


def test_a_worker_stopped_while_it_loads_says_goodbye() -> None:
    desk = Desk(serves=False)
    assert desk.state.finish(desk.now) == [Goodbye([])]
    assert desk.state.loaded(about(), desk.now) == []
    assert desk.state.load_failed(failure("worker_failed", "x"), desk.now) == []
    assert desk.state.error is None


def test_a_calculator_that_cannot_be_made_is_told_and_ends_it() -> None:
    desk = Desk(serves=False)
    error = failure("worker_failed", "no licence")
    assert desk.state.load_failed(error, desk.now) == [Failed("lj", error)]
    assert desk.state.error == "no licence"
    desk.get(Dismiss())
    assert desk.state.ended


@pytest.mark.parametrize("message", [Refuse("differs"), Reject("version")])
@pytest.mark.parametrize("phase", ["loading", "serving", "leaving", "finishing", "ended"])
def test_a_worker_that_is_refused_ends_with_the_reason(message: Message, phase: str) -> None:
    desk = Desk(serves=phase != "loading")
    if phase in ("leaving", "ended"):
        desk.wait(IDLE_TIMEOUT)
    if phase == "finishing":
        desk.state.finish(desk.now)
    if phase == "ended":
        desk.get(Dismiss())
    desk.get(message)
    assert desk.state.ended
    assert desk.state.error == (None if phase == "ended" else message.reason)  # type: ignore[attr-defined]


def test_the_first_reason_counts(desk: Desk) -> None:
    desk.get(Refuse("first"))
    desk.get(Refuse("second"))
    assert desk.state.error == "first"


# ---- the table -----------------------------------------------------------------------------------

P = Phase


def to(desk: Desk, phase: Phase) -> None:
    """Bring a worker that serves, or loads, to another phase."""
    if phase is P.LEAVING:
        desk.wait(IDLE_TIMEOUT)
    elif phase is P.FINISHING:
        desk.get(Shutdown())
    elif phase is P.ENDED:
        desk.get(Refuse("differs"))
    elif desk.state.phase is P.LOADING:
        desk.state.loaded(about(), desk.now)
    else:
        desk.ask()


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: f"{row[0].name}-{row[1].name}")
def test_every_transition_happens(row: tuple[Phase, Phase]) -> None:
    before, after = row
    desk = Desk(serves=before is not P.LOADING)
    if before not in (P.LOADING, P.SERVING):
        to(desk, before)
    to(desk, after)
    assert row in desk.state.moves


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    "message",
    [
        Request(session("s"), 1, "lj"), Cancel([[session("s"), 1]]), Welcome(), Unknown(), Probe(),
        Refuse("x"), Shutdown(), Dismiss(), Stopping(), Reject("x"),
    ],
    ids=lambda message: message.KIND,
)  # fmt: skip
def test_every_message_is_taken_in_every_phase(phase: Phase, message: Message) -> None:
    desk = Desk(serves=phase is not P.LOADING)
    if phase not in (P.LOADING, P.SERVING):
        to(desk, phase)
    assert desk.state.phase is phase
    for _ in range(3):
        desk.get(message)
        desk.wait(1.0)
