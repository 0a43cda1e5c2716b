"""Who has which GPU: what a manager tells of it, and how the broker shows it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from aserpc.errors import ProtocolError
from aserpc.manager.devices import Devices
from aserpc.manager.records import Effect, Send
from aserpc.manager.state import ManagerState
from aserpc.messages import Accept, Goodbye, Gpus, Offer, Ready, Unknown
from aserpc.spawn import SpawnConfig

from .builders import House, about
from .manager_desk import Site

MANAGER = b"manager"


def config(name: str, **options: Any) -> SpawnConfig:
    return SpawnConfig(name, ["aserpc", "worker", name], **options)


def site(*configs: SpawnConfig, gpus: str) -> Site:
    return Site({config.name: config for config in configs}, gpus.split(), None)


def told(effects: list[Effect]) -> list[list[Any]]:
    """Return the last table that was sent."""
    messages = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, Gpus)]
    table: list[list[Any]] = messages[-1].gpus
    return table


# ---- the manager ---------------------------------------------------------------------------------


def test_whole_gpus_and_parts_are_told_with_who_has_them() -> None:
    here = site(config("whole", gpus=1), config("part", gpus=0.25, max_workers=2), gpus="4 5 6")
    here.demand("whole", 1)
    here.demand("part", 9)
    assert here.gpus_told == [
        ["4", 0.0, [["s1", "whole"]]],
        ["5", 0.5, [["s2", "part"], ["s3", "part"]]],
        ["6", 1.0, []],
    ]


def test_a_gpu_that_is_free_again_is_told() -> None:
    here = site(config("a", gpus=1), gpus="0")
    here.demand("a", 1)
    here.get_ready("s1", "idle")
    here.demand("a", 0)
    here.end("s1", "ended with exit code 0")
    assert here.gpus_told == [["0", 1.0, []]]


def test_what_has_not_changed_is_not_told_again() -> None:
    here = site(config("a", gpus=1), gpus="0")
    here.wait(60)
    assert len([m for m in here.sent if isinstance(m, Gpus)]) == 1


def test_a_new_broker_is_told() -> None:
    here = site(config("a", gpus=1), gpus="0")
    here.demand("a", 1)
    here.sent.clear()
    here.receive(Unknown())
    assert [m for m in here.sent if isinstance(m, Gpus)] == [Gpus([["0", 0.0, [["s1", "a"]]]])]


def test_without_gpus_there_is_nothing_to_tell() -> None:
    here = site(config("a"), gpus="")
    here.demand("a", 1)
    here.receive(Accept())
    assert not [m for m in here.sent if isinstance(m, Gpus)]


def test_a_worker_that_is_taken_over_has_the_gpu_that_it_had() -> None:
    numbers = itertools.count(1)
    configs = {"a": config("a", gpus=1), "b": config("b", gpus=0.5)}
    state = ManagerState(configs, {}, ["0", "1"], None, 5.0, lambda: f"s{next(numbers)}")
    state.adopt("a", "old", ("1",), 0.0)
    # The pool of the manager before was another one.
    state.adopt("b", "older", ("7",), 0.0)
    assert told(state.start(0.0)) == [
        ["0", 1.0, []],
        ["1", 0.0, [["old", "a"]]],
        ["7", 0.0, [["older", "b"]]],
    ]
    assert told(state.exited("older", "it ended", "", 1.0)) == [
        ["0", 1.0, []],
        ["1", 0.0, [["old", "a"]]],
    ]


def test_a_worker_that_is_taken_over_has_the_part_that_it_had() -> None:
    """Its calculator may be configured for more, or for none, by now."""
    configs = {"a": config("a", gpus=1), "b": config("b")}
    state = ManagerState(configs, {}, ["0", "1"], None, 5.0, lambda: "s1")
    state.adopt("a", "old", ("0",), 0.0, 0.25)
    state.adopt("b", "older", ("1",), 0.0, 0.5)
    assert told(state.start(0.0)) == [["0", 0.75, [["old", "a"]]], ["1", 0.5, [["older", "b"]]]]


def test_three_thirds_leave_nothing() -> None:
    devices = Devices(["0"])
    for number in range(3):
        devices.take(f"s{number}", ("0",), 1 / 3)
    ((_, free, _),) = devices.table({f"s{number}": "a" for number in range(3)})
    assert free == 0.0


# ---- the broker ----------------------------------------------------------------------------------


def offered(*names: str) -> House:
    house = House()
    house.worker(MANAGER, Offer([[name, 0] for name in names], {"pid": 7, "host": "h"}))
    return house


def test_the_status_shows_who_has_which_gpu() -> None:
    house = offered("a", "b")
    house.worker(MANAGER, Gpus([["0", 0.0, [["s1", "a"], ["s2", "b"]]], ["1", 1.0, []]]))
    house.worker(b"w1", Ready("a", {"pid": 11, "host": "h", "spawn_id": "s1"}, about(), 1, []))
    house.worker(b"w2", Ready("a", {"pid": 12, "host": "h"}, about(), 1, []))
    status = house.status()
    assert [(p["pid"], p["gpus"]) for p in status["processes"]] == [(11, ["0"]), (12, [])]
    (manager,) = status["managers"]
    assert (manager["pid"], manager["host"], manager["calculators"]) == (7, "h", ["a", "b"])
    assert manager["gpus"] == [
        {
            "id": "0",
            "free": 0.0,
            "workers": [
                {"calculator": "a", "pid": 11, "state": "idle"},
                {"calculator": "b", "pid": None, "state": None},
            ],
        },
        {"id": "1", "free": 1.0, "workers": []},
    ]


def test_a_worker_may_have_several() -> None:
    house = offered("a")
    house.worker(MANAGER, Gpus([["0", 0.0, [["s1", "a"]]], ["3", 0.0, [["s1", "a"]]]]))
    house.worker(b"w1", Ready("a", {"pid": 11, "spawn_id": "s1"}, about(), 1, []))
    assert house.status()["processes"][0]["gpus"] == ["0", "3"]


def test_gpus_go_with_their_manager() -> None:
    house = offered("a")
    house.worker(MANAGER, Gpus([["0", 1.0, []]]))
    house.worker(MANAGER, Goodbye([]))
    assert house.status()["managers"] == []


def test_gpus_of_a_manager_that_is_not_known_are_not_kept() -> None:
    house = House()
    house.worker(MANAGER, Gpus([["0", 1.0, []]]))
    assert house.take(MANAGER, Unknown)
    assert house.status()["managers"] == []


@pytest.mark.parametrize(
    "entry",
    [
        3,
        [],
        ["0", 1.0],
        [0, 1.0, []],
        ["0", "1", []],
        ["0", True, []],
        ["0", 1.5, []],
        ["0", float("nan"), []],
        ["0", 1.0, 3],
        ["0", 1.0, ["s1"]],
        ["0", 1.0, [["s1"]]],
        ["0", 1.0, [["s1", 3]]],
    ],
)
def test_what_tells_of_no_gpus_is_refused(entry: object) -> None:
    with pytest.raises(ProtocolError, match="GPUs are"):
        Gpus([entry]).check()
