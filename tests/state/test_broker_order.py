"""Which request is next, and which worker gets it."""

from __future__ import annotations

import pytest

from .builders import House, session


@pytest.fixture
def house() -> House:
    return House()


# ---- order ---------------------------------------------------------------------------------------


def drain(house: House, peer: bytes = b"w") -> list[tuple[str, int]]:
    """Have one worker answer all that waits; in which order it was given the requests."""
    order = []
    while given := house.given(peer):
        (key,) = given
        order.append((key[0].decode().rstrip("."), key[1]))
        house.answer(peer, key)
    return order


def test_first_come_is_first_served_within_a_session(house: House) -> None:
    house.serve(b"w")
    for number in (5, 3, 9, 1):
        house.ask(number)
    assert drain(house) == [("s", 5), ("s", 3), ("s", 9), ("s", 1)]


def test_sessions_take_turns(house: House) -> None:
    house.serve(b"w")
    for who, number in [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("c", 0)]:
        house.ask(number, who)
    assert drain(house) == [("a", 0), ("a", 1), ("b", 0), ("c", 0), ("a", 2), ("b", 1)]


def turn(house: House) -> str:
    """Have the worker answer what it computes; return whose that was."""
    (key,) = house.given(b"w")
    house.answer(b"w", key)
    return key[0].decode().rstrip(".")


def test_one_request_beside_many_waits_for_what_is_computed(house: House) -> None:
    house.serve(b"w")
    for number in range(8):
        house.ask(number, "many")
    assert turn(house) == "many"
    for number in range(3):
        # It comes while one of the many is computed, each time.
        house.ask(number, "one")
        assert [turn(house), turn(house)] == ["many", "one"]


def test_new_sessions_do_not_keep_one_with_many_waiting(house: House) -> None:
    house.serve(b"w")
    for number in range(8):
        house.ask(number, "many")
    assert turn(house) == "many"
    for number in range(3):
        house.ask(number, f"new {number}")
        assert [turn(house), turn(house)] == ["many", f"new {number}"]
    for number in range(3, 6):
        house.ask(number, f"new {number}")
    assert [turn(house) for _ in range(6)] == ["many", "new 3", "new 4", "new 5", "many", "many"]


def test_two_with_many_and_one_between_them(house: House) -> None:
    house.serve(b"w")
    for who, number in [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("b", 2)]:
        house.ask(number, who)
    (key,) = house.given(b"w")
    house.answer(b"w", key)
    house.ask(0, "c")
    assert drain(house) == [
        *[("a", 1), ("b", 0)],  # theirs is this round's turn
        *[("c", 0), ("a", 2), ("b", 1), ("b", 2)],
    ]


def test_a_session_that_comes_back_takes_the_last_turn(house: House) -> None:
    house.serve(b"w")
    for who in "abc":
        house.ask(0, who)
    house.given(b"w")
    house.answer(b"w", (session("a"), 0))
    house.ask(1, "a")
    assert drain(house) == [("b", 0), ("c", 0), ("a", 1)]


def test_higher_priority_is_served_first_within_a_session(house: House) -> None:
    house.serve(b"w")
    for number, priority in enumerate([0, -1, 5, 0, 5]):
        house.ask(number, priority=priority)
    assert drain(house) == [("s", 0), ("s", 2), ("s", 4), ("s", 3), ("s", 1)]


def test_priority_takes_no_turn_from_another_session(house: House) -> None:
    house.serve(b"w")
    for number, (who, priority) in enumerate([("a", 0), ("b", 0), ("c", 9), ("c", 9), ("b", 0)]):
        house.ask(number, who, priority=priority)
    assert drain(house) == [("a", 0), ("b", 1), ("c", 2), ("b", 4), ("c", 3)]


def test_what_is_requeued_is_first_of_its_priority_only(house: House) -> None:
    house.serve(b"w")
    for number, priority in enumerate([0, 0, 1]):
        house.ask(number, priority=priority)
    house.vanish(b"w")
    house.serve(b"v")
    assert drain(house, b"v") == [("s", 2), ("s", 0), ("s", 1)]


def test_names_have_queues_of_their_own(house: House) -> None:
    house.serve(b"w")
    house.serve(b"v", name="emt")
    house.ask(0)
    house.ask(1)
    key = house.ask(2, name="emt")
    assert house.given(b"v") == [key]


# ---- which worker --------------------------------------------------------------------------------


def test_an_idle_worker_is_asked_before_a_busy_one_with_room(house: House) -> None:
    house.serve(b"v", b"w", capacity=3)
    first, second = house.ask(0), house.ask(1)
    assert house.given(b"v") + house.given(b"w") == [first, second]


def test_slots_beyond_the_first_fill_when_no_worker_is_idle(house: House) -> None:
    house.serve(b"v", b"w", capacity=2)
    for number in range(5):
        house.ask(number)
    assert [len(house.given(peer)) for peer in (b"v", b"w")] == [2, 2]
    assert house.status()["pending_requests"] == {"lj": 1}


def test_slots_fill_evenly(house: House) -> None:
    house.serve(b"u", b"v", b"w", capacity=5)
    for number in range(12):
        house.ask(number)
        loads = sorted(len(worker.jobs) for worker in house.state.workers.values())
        assert loads[-1] - loads[0] <= 1
    assert [len(house.given(peer)) for peer in (b"u", b"v", b"w")] == [4, 4, 4]


def test_the_worker_with_the_fewest_requests_gets_the_next(house: House) -> None:
    house.serve(b"v", b"w", capacity=4)
    for number in range(6):
        house.ask(number, "ab"[number % 2])
    done = house.given(b"w")[:2]
    assert len(done) == 2
    for key in done:
        house.answer(b"w", key)
    house.given(b"v")
    later = [house.ask(number) for number in (6, 7)]
    assert house.given(b"w")[-2:] == later


def test_a_worker_with_room_for_many_waits_for_those_with_less(house: House) -> None:
    house.serve(b"large", capacity=100)
    house.serve(b"small", capacity=2)
    for number in range(10):
        house.ask(number)
    assert len(house.given(b"small")) == 2
    assert len(house.given(b"large")) == 8


def test_of_those_with_as_few_requests_the_one_that_served_the_session_is_asked(
    house: House,
) -> None:
    house.serve(b"u", b"v", b"w", capacity=3)
    for number, who in enumerate("abc"):
        house.ask(number, who)
    (mine,) = (peer for peer in (b"u", b"v", b"w") if house.given(peer) == [(session("b"), 1)])
    key = house.ask(3, "b")
    assert house.given(mine) == [key]


def test_a_session_returns_to_the_worker_that_served_it_last(house: House) -> None:
    house.serve(b"u", b"v")
    a, b = house.ask(0, "a"), house.ask(0, "b")
    assert house.given(b"u") == [a]
    house.answer(b"u", a)
    house.answer(b"v", b)
    # v was used most recently, but a was with u.
    again = house.ask(1, "a")
    assert house.given(b"u") == [again]


def test_another_session_gets_the_most_recently_used_worker(house: House) -> None:
    house.serve(b"u", b"v", b"w")
    keys = [house.ask(number, who) for number, who in enumerate("abc")]
    for peer, key in zip((b"v", b"u", b"w"), (keys[1], keys[0], keys[2]), strict=True):
        assert house.given(peer) == [key]
        house.answer(peer, key)
    key = house.ask(3, "new")
    assert house.given(b"w") == [key]


def test_a_worker_that_was_never_used_is_not_the_most_recently_used(house: House) -> None:
    house.serve(b"used")
    house.answer(b"used", house.ask(0, "a"))
    house.serve(b"fresh")
    house.given(b"used")
    key = house.ask(0, "b")
    assert house.given(b"used") == [key]


def test_surplus_workers_stay_idle(house: House) -> None:
    house.serve(b"u", b"v", b"w")
    for number in range(20):
        key = house.ask(number, str(number))
        (peer,) = [peer for peer in (b"u", b"v", b"w") if house.given(peer)]
        house.answer(peer, key)
    answered = sorted(worker.answered for worker in house.state.workers.values())
    assert answered == [0, 0, 20]


def test_a_session_whose_worker_is_busy_goes_to_another(house: House) -> None:
    house.serve(b"u", b"v")
    house.answer(b"u", house.ask(0, "a"))
    house.ask(0, "b")
    house.given(b"u")
    key = house.ask(1, "a")
    assert house.given(b"v") == [key]


def test_the_memory_of_sessions_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aserpc.broker.records.AFFINITY_SIZE", 10)
    house.serve(b"w")
    for number in range(50):
        house.answer(b"w", house.ask(0, str(number)))
    assert len(house.state.calculators["lj"]._affinity) == 10
