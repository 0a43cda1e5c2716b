"""How workers go, how they are found again, and what the status tells of them."""

from __future__ import annotations

import pytest

from aserpc.messages import (
    Dismiss,
    Ping,
    Request,
    Shutdown,
)

from .builders import QUEUE_TIMEOUT, House, ready, request, session


@pytest.fixture
def house() -> House:
    return House()


def states(house: House) -> dict[bytes, str]:
    return {peer: worker.state.value for peer, worker in house.state.workers.items()}


# ---- going ---------------------------------------------------------------------------------------


def test_an_idle_worker_may_leave(house: House) -> None:
    house.serve(b"w")
    assert house.leave(b"w")
    assert house.is_empty()


def test_a_worker_with_a_request_on_its_way_stays(house: House) -> None:
    house.serve(b"w")
    key = house.ask()
    assert not house.leave(b"w")
    house.answer(b"w", key)
    assert house.answers() == {key: None}
    assert house.leave(b"w")


def test_a_worker_with_a_cancelled_request_on_its_way_stays(house: House) -> None:
    house.serve(b"w")
    key = house.ask()
    house.cancel(key)
    assert not house.leave(b"w")
    house.answer(b"w", key)
    assert house.leave(b"w")


def test_an_unknown_worker_may_go(house: House) -> None:
    assert house.leave(b"w")
    house.goodbye(b"w")
    assert house.take(b"w", Dismiss)
    house.fail(b"w")
    assert house.take(b"w", Dismiss)


def test_goodbye_hands_back_in_order_and_counts_no_attempt(house: House) -> None:
    house.serve(b"v", capacity=4)
    keys = [house.ask(number) for number in range(5)]
    house.answer(b"v", keys[0])
    house.load(b"w")
    # The last was on its way.
    house.goodbye(b"v", keys[1], keys[2], keys[3])
    assert house.take(b"v", Dismiss)
    assert [house.job(key).attempts for key in keys[1:]] == [0] * 4
    house.worker(b"w", ready(capacity=9))
    assert house.given(b"w") == keys[1:]


def test_what_goodbye_hands_back_goes_to_those_who_are_free(house: House) -> None:
    house.serve(b"v", b"w")
    key = house.ask()
    house.goodbye(b"v", key)
    assert house.given(b"w") == [key]


def test_goodbye_may_name_requests_that_the_worker_has_not(house: House) -> None:
    house.serve(b"v", b"w")
    key = house.ask()
    house.goodbye(b"w", key, (session("x"), 5))
    house.answer(b"v", key)
    assert house.answers() == {key: None}


def test_shutdown_is_told_to_the_workers_of_the_name(house: House) -> None:
    house.serve(b"u", b"v")
    house.serve(b"w", name="emt")
    assert house.shut_down("lj") == 2
    assert [len(house.take(peer, Shutdown)) for peer in (b"u", b"v", b"w")] == [1, 1, 0]
    assert house.shut_down(None) == 3
    assert house.shut_down("nothing") == 0


def test_a_worker_that_shuts_down_answers_and_gets_nothing_more(house: House) -> None:
    house.serve(b"w", capacity=3)
    first, second = house.ask(0), house.ask(1)
    house.shut_down()
    house.given(b"w")
    house.answer(b"w", first)
    house.goodbye(b"w", second)
    assert house.answers() == {first: None}
    assert house.given(b"w") == []
    house.serve(b"v")
    assert house.given(b"v") == [second]


def test_a_worker_asked_to_shut_down_while_it_loads_gets_nothing(house: House) -> None:
    house.load(b"w")
    key = house.ask()
    house.shut_down()
    house.worker(b"w", ready())
    assert house.given(b"w") == []
    house.goodbye(b"w")
    house.wait(QUEUE_TIMEOUT)
    assert house.answers() == {key: "queue_timeout"}


def test_what_a_leaving_worker_lost_waits_no_longer_than_the_queue_timeout(house: House) -> None:
    house.serve(b"w", capacity=2)
    first, second = house.ask(0), house.ask(1)
    house.shut_down()
    house.worker(b"w", ready(capacity=2, running=[first]))
    house.wait(QUEUE_TIMEOUT)
    assert house.answers() == {second: "queue_timeout"}


# ---- the status ----------------------------------------------------------------------------------


def test_the_status_counts_workers_and_requests(house: House) -> None:
    house.serve(b"u", b"v")
    house.load(b"w")
    house.serve(b"x", name="emt")
    house.ask(0)
    house.ask(1, name="emt")
    house.ask(2, name="emt")
    status = house.status()
    assert status["workers"] == {
        "lj": {"total": 3, "idle": 1, "busy": 1, "loading": 1},
        "emt": {"total": 1, "idle": 0, "busy": 1, "loading": 0},
    }
    assert status["pending_requests"] == {"emt": 1}
    assert status["running_requests"] == {"emt": 1, "lj": 1}
    assert [entry["state"] for entry in status["processes"]] == ["busy", "idle", "loading", "busy"]


def test_the_status_counts_what_leaving_workers_still_compute(house: House) -> None:
    house.serve(b"w")
    house.ask()
    house.shut_down()
    assert house.status()["running_requests"] == {"lj": 1}
    assert house.status()["workers"] == {}


def test_the_status_of_an_empty_broker_is_empty(house: House) -> None:
    status = house.status()
    assert set(status.pop("tables").values()) == {0}
    assert status == {
        "workers": {},
        "pending_requests": {},
        "manager": {"connected": False, "spawnable": []},
        "spawning": {},
        "running_requests": {},
        "processes": [],
        "managers": [],
    }


def test_the_status_tells_how_much_is_kept(house: House) -> None:
    house.serve(b"w")
    asked = house.ask(), house.ask(1, deadline=5.0)
    tables = house.status()["tables"]
    assert (tables["requests"], tables["workers"], tables["timers"]) == (2, 1, 2)
    assert (tables["clients"], tables["answers"]) == (1, 0)
    for key in asked:
        house.answer(b"w", key)
    tables = house.status()["tables"]
    assert (tables["requests"], tables["clients"], tables["answers"]) == (0, 0, 2)
    assert house.leave(b"w")
    house.client(Ping(received=[[session("s"), 0, 1]]))
    assert set(house.status()["tables"].values()) == {0}


def test_progress_is_told_in_words(house: House) -> None:
    house.serve(b"w")
    runs, waits = house.ask(0), house.ask(1)
    house.wait(3)
    texts = [entry[3] for entry in house.ping(runs, waits).known]
    assert texts == ["with worker of 'lj' (process ? on ?)", "1 wait for 1 workers, 3 s"]


def test_the_request_that_a_worker_gets_is_the_client_s(house: House) -> None:
    house.serve(b"w")
    sent = request(properties=["energy"], options={"a": 1}, digest=b"d")
    house.client(sent)
    assert house.take(b"w", Request) == [sent]


def test_a_worker_that_was_asked_to_leave_is_let_go_when_it_asks_itself(house: House) -> None:
    house.serve(b"w")
    house.shut_down("lj")
    assert house.leave(b"w")
