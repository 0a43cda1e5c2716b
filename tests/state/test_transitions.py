"""Every row of the broker's tables happens in some history; what is not in them happens in none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aserpc.broker.tables import (
    JOB_TRANSITIONS,
    WORKER_TRANSITIONS,
    JobState,
    WorkerState,
    is_allowed,
)
from aserpc.messages import Hello, Offer, Ready, Spawning, WorkerEnded

from .builders import QUEUE_TIMEOUT, WORKER_TIMEOUT, House, about, ready, session

J, W = JobState, WorkerState
FIRST, SECOND = (session("s"), 0), (session("s"), 1)


def one(house: House) -> None:
    house.serve(b"w")
    house.ask(0)


def two(house: House) -> None:
    house.serve(b"w", capacity=2)
    house.ask(0)
    house.ask(1)


def expected(house: House) -> None:
    house.load(b"w")
    house.restart()


def orphaned(house: House) -> None:
    two(house)
    house.wait(1.0)
    house.restart()


def client_goes(house: House) -> None:
    house.silent.add(b"client")
    wait(house)


def then(first: Callable[[House], None], *steps: Callable[[House], object]) -> Callable[..., None]:
    def history(house: House) -> None:
        for step in (first, *steps):
            step(house)

    return history


def serve(house: House) -> None:
    house.serve(b"w")


def load(house: House) -> None:
    house.load(b"w")


def vanish(house: House) -> None:
    house.vanish(b"w")


def shut_down(house: House) -> None:
    house.shut_down()


def goodbye(house: House) -> None:
    house.goodbye(b"w")


def answer(house: House) -> None:
    house.answer(b"w", FIRST)


def stop(house: House) -> None:
    house.perform(house.state.stop())


def cancel(house: House) -> None:
    house.cancel(FIRST)


def cancel_second(house: House) -> None:
    house.cancel(SECOND)


def wait(house: House) -> None:
    house.wait(QUEUE_TIMEOUT + WORKER_TIMEOUT)


def fail(house: House) -> None:
    house.fail(b"w")


def ask(house: House) -> None:
    house.ask(0)


def describe(house: House) -> None:
    house.describe(0)


def is_ready(house: House) -> None:
    house.worker(b"w", ready())


def condemned(house: House) -> None:
    house.worker(b"manager", Offer([["lj", 0]], {}))
    house.worker(b"manager", Spawning("lj", ["v", "w"], ""))
    for peer in (b"v", b"w"):
        identity = {"spawn_id": peer.decode()}
        house.worker(peer, Hello("lj", identity))
        house.worker(peer, Ready("lj", identity, about()))
    house.ask(0)
    for _ in range(2):
        worker = house.job(FIRST).worker
        assert worker is not None
        house.vanish(worker.peer)


def told(house: House) -> None:
    (spawn_id,) = [
        s for s, death in house.state.deaths.items() if death is house.job(FIRST).deaths[-1]
    ]
    house.worker(b"manager", WorkerEnded("lj", spawn_id, "it was killed", told=True))


JOBS = {
    (J.QUEUED, J.ASSIGNED): two,
    (J.QUEUED, J.RUNNING): one,
    (J.ASSIGNED, J.RUNNING): then(two, answer),
    (J.ASSIGNED, J.QUEUED): then(two, vanish),
    (J.RUNNING, J.QUEUED): then(one, vanish),
    (J.RUNNING, J.DONE): then(one, answer),
    (J.ASSIGNED, J.DONE): then(two, lambda house: house.answer(b"w", SECOND)),
    (J.RUNNING, J.CONDEMNED): condemned,
    (J.CONDEMNED, J.FAILED): then(condemned, wait),
    (J.CONDEMNED, J.QUEUED): then(condemned, told),
    (J.CONDEMNED, J.CANCELLED): then(condemned, cancel),
    (J.RUNNING, J.FAILED): then(one, vanish, lambda house: house.serve(b"v"), stop),
    (J.RUNNING, J.ORPHANED): then(one, client_goes),
    (J.ORPHANED, J.RUNNING): then(orphaned, ask),
    (J.ORPHANED, J.ASSIGNED): then(orphaned, lambda house: house.ask(1)),
    (J.ORPHANED, J.DONE): then(orphaned, answer),
    (J.ORPHANED, J.CANCELLED): then(orphaned, vanish, wait),
    (J.ASSIGNED, J.FAILED): then(two, cancel, stop),
    (J.QUEUED, J.FAILED): then(load, ask, fail),
    (J.QUEUED, J.EXPIRED): then(load, ask, vanish, wait),
    (J.QUEUED, J.DONE): then(serve, describe),
    (J.QUEUED, J.CANCELLED): then(load, ask, cancel),
    (J.ASSIGNED, J.CANCELLED): then(two, cancel_second),
    (J.RUNNING, J.CANCELLED): then(one, cancel),
}

WORKERS = {
    (W.RETURNING, W.LOADING): then(expected, load),
    (W.RETURNING, W.LEAVING): then(expected, shut_down),
    (W.RETURNING, W.GONE): then(expected, goodbye),
    (W.RETURNING, W.LOST): then(expected, lambda house: house.cut.add(b"w"), wait),
    (W.LOADING, W.IDLE): then(load, is_ready),
    (W.LOADING, W.GONE): then(load, fail),
    (W.LOADING, W.LOST): then(load, vanish),
    (W.IDLE, W.BUSY): one,
    (W.IDLE, W.LEAVING): then(serve, shut_down),
    (W.IDLE, W.GONE): then(serve, lambda house: house.leave(b"w")),
    (W.IDLE, W.LOST): then(serve, wait),
    (W.BUSY, W.IDLE): then(one, answer),
    (W.BUSY, W.LEAVING): then(one, shut_down),
    (W.BUSY, W.GONE): then(one, goodbye),
    (W.BUSY, W.LOST): then(one, vanish),
    (W.LOADING, W.LEAVING): then(load, shut_down),
    (W.LEAVING, W.GONE): then(one, shut_down, goodbye),
    (W.LEAVING, W.LOST): then(one, shut_down, vanish),
}


@pytest.mark.parametrize("row", JOB_TRANSITIONS, ids=lambda row: f"{row[0].name}-{row[1].name}")
def test_every_transition_of_a_request_happens(row: tuple[JobState, JobState]) -> None:
    house = House()
    JOBS[row](house)
    assert row in house.state.moves


@pytest.mark.parametrize("row", WORKER_TRANSITIONS, ids=lambda row: f"{row[0].name}-{row[1].name}")
def test_every_transition_of_a_worker_happens(row: tuple[WorkerState, WorkerState]) -> None:
    house = House()
    WORKERS[row](house)
    assert row in house.state.moves


def test_the_ends_are_ends() -> None:
    ends = {J.DONE, J.FAILED, J.EXPIRED, J.CANCELLED, W.GONE, W.LOST}
    begun = {before for before, _ in (*JOB_TRANSITIONS, *WORKER_TRANSITIONS)}
    assert begun == {*J, *W} - ends


def test_a_state_does_not_follow_itself() -> None:
    assert not any(is_allowed(state, state) for state in (*J, *W))
