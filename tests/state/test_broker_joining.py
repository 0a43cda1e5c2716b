"""Which workers may join, and what is told of those that cannot."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from aserpc.messages import (
    Answer,
    Dismiss,
    Heartbeat,
    Hello,
    Message,
    Refuse,
    Reject,
    Unknown,
    Welcome,
)

from .builders import House, about, ready, session


@pytest.fixture
def house() -> House:
    return House()


def states(house: House) -> dict[bytes, str]:
    return {peer: worker.state.value for peer, worker in house.state.workers.items()}


# ---- who may join --------------------------------------------------------------------------------


def test_hello_and_ready_are_welcomed(house: House) -> None:
    house.load(b"w")
    assert house.take(b"w", Welcome)
    assert states(house) == {b"w": "loading"}
    house.worker(b"w", ready())
    assert house.take(b"w", Welcome)
    assert states(house) == {b"w": "idle"}


def test_a_worker_that_is_ready_needs_no_hello(house: House) -> None:
    house.worker(b"w", ready())
    assert states(house) == {b"w": "idle"}


DIFFERENCES = [
    ("factory", "emt:EMT"),
    ("args", [1]),
    ("kwargs", {"rc": 5.0}),
    ("versions", {"ase": "3.28"}),
]


@pytest.mark.parametrize(("what", "value"), DIFFERENCES)
def test_a_second_worker_that_differs_is_refused(house: House, what: str, value: Any) -> None:
    house.serve(b"v")
    house.load(b"w")
    house.worker(b"w", ready(description=about(**{what: value})))
    (refusal,) = house.take(b"w", Refuse)
    assert f"served already with {what}" in refusal.reason
    assert str(value) in refusal.reason
    assert "--allow-mixed" in refusal.reason
    assert states(house) == {b"v": "idle"}


@pytest.mark.parametrize(("what", "value"), DIFFERENCES)
def test_workers_that_differ_may_be_allowed(what: str, value: Any) -> None:
    house = House(allow_mixed=True)
    house.serve(b"v")
    house.worker(b"w", ready(description=about(**{what: value})))
    assert states(house) == {b"v": "idle", b"w": "idle"}


def test_workers_may_differ_in_process_and_host(house: House) -> None:
    house.serve(b"v")
    house.worker(b"w", ready(description=about(pid=7, host="other", python="3.13")))
    assert states(house) == {b"v": "idle", b"w": "idle"}


@pytest.mark.parametrize("value", [float("nan"), {"a": [1, float("nan")]}, [{"b": float("nan")}]])
def test_what_is_not_a_number_in_both_is_the_same(house: House, value: Any) -> None:
    for peer in (b"v", b"w"):
        house.worker(peer, ready(description=about(kwargs={"x": value}, host=repr(peer))))
    assert states(house) == {b"v": "idle", b"w": "idle"}


@pytest.mark.parametrize("value", [0.0, {}, [], {"a": [1, 2.0]}, [float("nan"), 1]])
def test_what_is_not_a_number_in_one_is_a_difference(house: House, value: Any) -> None:
    house.worker(b"v", ready(description=about(kwargs={"x": [float("nan")]})))
    house.worker(b"w", ready(description=about(kwargs={"x": value})))
    (refusal,) = house.take(b"w", Refuse)
    assert "kwargs" in refusal.reason


def test_workers_of_other_names_may_differ(house: House) -> None:
    house.serve(b"v")
    house.worker(b"w", ready("emt", description=about(factory="emt:EMT")))
    assert states(house) == {b"v": "idle", b"w": "idle"}


def test_a_worker_that_differs_may_join_when_the_others_are_leaving(house: House) -> None:
    house.serve(b"v")
    house.ask()
    house.shut_down()
    house.worker(b"w", ready(description=about(factory="emt:EMT")))
    assert states(house) == {b"v": "leaving", b"w": "idle"}


def test_the_refusal_of_long_arguments_is_short(house: House) -> None:
    house.serve(b"v")
    house.worker(b"w", ready(description=about(kwargs={"x": "y" * 100_000})))
    (refusal,) = house.take(b"w", Refuse)
    assert len(refusal.reason) < 2000


def test_who_waits_is_not_lost_when_a_loading_worker_is_refused(house: House) -> None:
    house.serve(b"v")
    house.ask(0)
    key = house.ask(1)
    house.worker(b"w", ready(description=about(args=[1])))
    house.answer(b"v", (session("s"), 0))
    assert house.given(b"v")[-1] == key


def test_a_worker_that_says_hello_under_another_name_is_another(house: House) -> None:
    house.serve(b"v", b"w")
    key = house.ask()
    house.load(b"v", name="emt")
    assert states(house) == {b"v": "loading", b"w": "busy"}
    assert house.given(b"w") == [key]


# ---- ready again ---------------------------------------------------------------------------------


def test_ready_again_keeps_what_the_worker_has(house: House) -> None:
    house.serve(b"w", capacity=2)
    keys = [house.ask(number) for number in range(2)]
    house.given(b"w")
    house.worker(b"w", ready(capacity=2, running=keys))
    assert house.given(b"w") == []
    house.answer(b"w", keys[0])
    assert house.answers() == {keys[0]: None}


def test_ready_again_sends_what_was_lost_on_the_way_in_order(house: House) -> None:
    house.serve(b"w", capacity=4)
    keys = [house.ask(number) for number in range(6)]
    house.given(b"w")
    house.worker(b"w", ready(capacity=4, running=keys[:1]))
    assert house.given(b"w") == keys[1:4]
    assert [house.job(key).attempts for key in keys] == [0] * 6


def test_ready_again_with_less_room_gets_no_more_than_that(house: House) -> None:
    house.serve(b"w", capacity=3)
    keys = [house.ask(number) for number in range(2)]
    house.worker(b"w", ready(capacity=2, running=keys))
    house.ask(2)
    assert len(house.given(b"w")) == 2


def test_ready_again_with_more_room_gets_what_waits(house: House) -> None:
    house.serve(b"w")
    keys = [house.ask(number) for number in range(3)]
    house.given(b"w")
    house.worker(b"w", ready(capacity=3, running=keys[:1]))
    assert house.given(b"w") == keys[1:]


# ---- failing to load -----------------------------------------------------------------------------


def test_a_failed_worker_s_reason_reaches_those_who_wait(house: House) -> None:
    house.load(b"w")
    house.ask()
    house.fail(b"w", "no licence for VASP")
    assert house.take(b"w", Dismiss)
    reason = house.reason()
    assert "no licence for VASP" in reason
    assert "'lj'" in reason
    assert house.is_empty()


@pytest.mark.parametrize("other", ["busy", "loading"])
def test_a_failed_worker_disturbs_nobody_while_another_is_there(house: House, other: str) -> None:
    if other == "busy":
        house.serve(b"v")
        house.ask(0)
    else:
        house.load(b"v")
    key = house.ask(1)
    house.load(b"w")
    house.fail(b"w")
    assert house.answers() == {}
    assert house.ping(key).known


def test_a_failure_with_a_message_of_any_type_does_no_harm(house: House) -> None:
    house.load(b"w")
    house.ask()
    house.fail(b"w", {1: [2]})  # type: ignore[arg-type]
    assert [*house.answers().values()] == ["worker_failed"]


# ---- hostile peers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", [Heartbeat(), Answer(session("s"), 1)], ids=lambda m: type(m).__name__
)
def test_a_worker_that_is_not_known_is_told_to_register(house: House, message: Message) -> None:
    house.worker(b"w", message)
    assert house.take(b"w", Unknown)
    assert house.is_empty()


def test_who_sends_what_cannot_be_read_is_told(house: House) -> None:
    house.perform(house.state.rejected(b"w", "no msgpack", is_worker=True))
    house.perform(house.state.rejected(b"c", "no msgpack", is_worker=False))
    assert house.mail == {b"w": [Reject("no msgpack")], b"c": [Reject("no msgpack")]}


@pytest.mark.parametrize(
    "identity",
    [
        {"pid": "x" * 100_000, "host": "y" * 100_000},
        {"pid": [1, {2: 3}], "host": {"a": b"\xff"}},
        {"pid": 5, "host": "two\nlines"},
        {"pid": msgpack.ExtType(5, b"x"), "host": None},
        {1: 2},
    ],
    ids=["long", "nested", "two lines", "extension", "other"],
)
def test_an_odd_identity_is_not_passed_on(house: House, identity: dict[Any, Any]) -> None:
    house.worker(b"w", Hello("lj", identity))
    label = house.state.workers[b"w"].label
    assert len(label) < 200
    assert label.isprintable()
    assert len(msgpack.packb(house.status())) < 1000


def test_a_worker_that_refuses_its_part_breaks_nothing(house: House) -> None:
    house.worker(b"w", ready())
    house.worker(b"w", Hello("lj", {}))
    house.worker(b"w", ready())
    house.load(b"v")
    house.answer(b"v", (session("s"), 1))
    house.goodbye(b"v")
    house.goodbye(b"v")
    assert states(house) == {b"w": "idle"}
