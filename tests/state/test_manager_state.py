"""The manager's rules: how many workers, on what, and what a failed start means."""

from __future__ import annotations

import itertools

import pytest

from aserpc.manager.devices import Devices
from aserpc.manager.fleets import PAUSES
from aserpc.manager.records import Start, Stop
from aserpc.manager.state import ManagerState
from aserpc.manager.tables import (
    HEALTH_TRANSITIONS,
    PROCESS_TRANSITIONS,
    Health,
    ProcessState,
)
from aserpc.messages import Demand, Offer, Probe, SpawnFailed, Spawning, Unknown

from .manager_desk import Desk, config


def test_it_offers_what_it_can_start() -> None:
    desk = Desk(config("lj", max_workers=2, min_workers=1), config("emt"))
    (offer,) = [m for m in desk.sent if isinstance(m, Offer)]
    assert offer.calculators == [["lj", 1], ["emt", 0]]


def test_nobody_asks_and_nothing_is_started() -> None:
    desk = Desk(config())
    desk.demand("lj", 0)
    desk.wait(100)
    assert desk.starts == []


def test_min_workers_are_started_without_being_asked_for() -> None:
    desk = Desk(config(min_workers=2, max_workers=3))
    assert len(desk.starts) == 2


def test_a_worker_that_leaves_below_the_minimum_is_replaced() -> None:
    desk = Desk(config(min_workers=1))
    desk.ready("lj", "s1")
    desk.exit("s1", "ended with exit code 0")
    assert [start.spawn_id for start in desk.starts] == ["s1", "s2"]


def test_one_request_starts_one_worker() -> None:
    desk = Desk(config(max_workers=4))
    desk.demand("lj", 1)
    desk.demand("lj", 1)
    assert len(desk.starts) == 1


def test_twenty_requests_start_no_more_than_max_workers() -> None:
    desk = Desk(config(max_workers=3))
    for queued in range(1, 21):
        desk.demand("lj", queued)
    assert len(desk.starts) == 3


def test_short_calculations_are_waited_for_rather_than_another_start() -> None:
    desk = Desk(config(max_workers=4))
    desk.demand("lj", 1)
    desk.now = 10.0
    desk.ready("lj", "s1", queued=20, seconds=0.01)  # starting took 10 s
    assert len(desk.starts) == 1


def test_long_calculations_bring_up_more_workers() -> None:
    desk = Desk(config(max_workers=4))
    desk.demand("lj", 1)
    desk.now = 1.5
    desk.ready("lj", "s1", queued=3, seconds=2.0)
    assert len(desk.starts) == 4


def test_no_more_workers_than_requests_wait() -> None:
    desk = Desk(config(max_workers=8))
    desk.demand("lj", 2, seconds=1000.0)
    assert len(desk.starts) == 2


def test_a_worker_that_somebody_else_started_counts() -> None:
    desk = Desk(config())
    desk.demand("lj", 1, ((None, "busy", 0.0),), seconds=0.1)
    assert desk.starts == []


def test_the_total_holds_over_all_calculators() -> None:
    desk = Desk(config("a", max_workers=4), config("b", max_workers=4), total=3)
    desk.demand("a", 9)
    desk.demand("b", 9)
    assert len(desk.starts) == 3


def test_a_failed_start_is_told_with_its_last_words() -> None:
    desk = Desk(config())
    desk.demand("lj", 1)
    desk.exit("s1", "ended with exit code 1", "no weights")
    (failed,) = [m for m in desk.sent if isinstance(m, SpawnFailed)]
    assert "ended with exit code 1" in failed.reason
    assert "no weights" in failed.reason


def test_a_failed_start_among_others_is_not_told_to_those_who_wait() -> None:
    desk = Desk(config(max_workers=2))
    desk.demand("lj", 5)
    desk.exit("s1")
    assert not [m for m in desk.sent if isinstance(m, SpawnFailed)]


def test_pauses_grow_between_starts_that_fail() -> None:
    desk = Desk(config(max_restarts=3))
    for number, pause in enumerate(PAUSES[:3], start=1):
        desk.demand("lj", 1)
        assert len(desk.starts) == number
        desk.exit(f"s{number}")
        desk.wait(pause - 0.01)
        assert len(desk.starts) == number
        desk.wait(0.02)
    assert len(desk.starts) == 4


def test_too_many_failed_starts_are_fatal_and_said() -> None:
    desk = Desk(config(max_restarts=1))
    desk.demand("lj", 1)
    desk.exit("s1")
    desk.wait(PAUSES[0])
    desk.exit("s2", lines="no such model")
    assert desk.fleet("lj").health is Health.FATAL
    told = [m for m in desk.sent if isinstance(m, Spawning)][-1]
    assert "no such model" in told.fatal
    desk.demand("lj", 5)
    desk.wait(1000)
    assert len(desk.starts) == 2


def test_loading_the_configuration_again_forgives() -> None:
    desk = Desk(config(max_restarts=0))
    desk.demand("lj", 1)
    desk.exit("s1")
    assert desk.fleet("lj").health is Health.FATAL
    desk.take(desk.state.reload({"lj": config()}, desk.now))
    assert len(desk.starts) == 2


def test_a_worker_that_was_ready_forgives_the_failures_before() -> None:
    desk = Desk(config(max_restarts=1))
    desk.demand("lj", 1)
    desk.exit("s1")
    desk.wait(PAUSES[0])
    desk.ready("lj", "s2")
    desk.exit("s2")
    assert desk.fleet("lj").failures == 0


def test_a_start_that_takes_too_long_is_ended_and_failed() -> None:
    desk = Desk(config(start_timeout=30.0, stop_timeout=5.0))
    desk.demand("lj", 1)
    desk.wait(29)
    assert desk.stops == []
    desk.wait(2)
    assert desk.stops == [Stop("s1", kill=False)]
    assert any(isinstance(m, SpawnFailed) and "start_timeout" in m.reason for m in desk.sent)
    desk.wait(6)
    assert desk.stops[-1] == Stop("s1", kill=True)


def test_each_worker_has_a_gpu_of_its_own() -> None:
    desk = Desk(config(max_workers=4, gpus=1), gpus="0 1 2")
    desk.demand("lj", 9)
    assert [start.gpu for start in desk.starts] == ["0", "1", "2"]


def test_a_gpu_is_free_again_when_its_worker_ends() -> None:
    desk = Desk(config(max_workers=2, gpus=1), gpus="7")
    desk.demand("lj", 9)
    desk.ready("lj", "s1", queued=9)
    desk.exit("s1", "was killed by signal SIGKILL")
    assert [start.gpu for start in desk.starts] == ["7", "7"]


def test_those_who_wait_for_a_gpu_are_told() -> None:
    desk = Desk(config("a", gpus=1), config("b", gpus=1), gpus="0")
    desk.demand("a", 1)
    desk.demand("b", 1)
    told = [m for m in desk.sent if isinstance(m, Spawning) and m.calculator == "b"][-1]
    assert "GPU" in told.text


def test_the_longest_idle_worker_of_another_name_makes_room() -> None:
    desk = Desk(config("a", gpus=1, max_workers=2), config("b", gpus=1), gpus="0 1")
    desk.demand("a", 9)
    desk.demand("a", 0, (("s1", "idle", 3.0), ("s2", "idle", 9.0)))
    desk.demand("b", 1)
    assert desk.stops == [Stop("s2", kill=False)]
    desk.exit("s2", "ended with exit code 0")
    assert (desk.starts[-1].config.name, desk.starts[-1].gpu) == ("b", "1")


def test_a_busy_worker_makes_no_room() -> None:
    desk = Desk(config("a", gpus=1), config("b", gpus=1), gpus="0")
    desk.demand("a", 1)
    desk.ready("a", "s1")
    desk.demand("b", 1)
    desk.wait(60)
    assert desk.stops == []


def test_one_that_gets_a_request_when_it_is_to_make_room_may_finish_it() -> None:
    desk = Desk(config("a", gpus=1, stop_timeout=5.0), config("b", gpus=1), gpus="0")
    desk.demand("a", 1)
    desk.demand("a", 0, (("s1", "idle", 3.0),))
    desk.demand("b", 1)
    desk.demand("a", 0, (("s1", "busy", 0.0),))
    desk.wait(3600)
    assert desk.stops == [Stop("s1", kill=False)]
    desk.demand("a", 0)  # it has said goodbye
    desk.wait(6)
    assert desk.stops[1:] == [Stop("s1", kill=True)]


def test_one_that_may_finish_holds_up_no_other_room() -> None:
    desk = Desk(config("a", gpus=1, max_workers=2), config("b", gpus=1), gpus="0 1")
    desk.demand("a", 9)
    desk.demand("a", 0, (("s1", "idle", 9.0), ("s2", "idle", 3.0)))
    desk.demand("b", 1)
    assert desk.stops == [Stop("s1", kill=False)]
    desk.demand("a", 0, (("s1", "busy", 0.0), ("s2", "idle", 4.0)))
    assert desk.stops == [Stop("s1", kill=False), Stop("s2", kill=False)]


def test_the_end_waits_for_none_that_may_finish() -> None:
    desk = Desk(config("a", gpus=1, stop_timeout=5.0), config("b", gpus=1), gpus="0")
    desk.demand("a", 1)
    desk.demand("a", 0, (("s1", "idle", 3.0),))
    desk.demand("b", 1)
    desk.demand("a", 0, (("s1", "busy", 0.0),))
    desk.wait(60)
    desk.take(desk.state.finish(desk.now))
    desk.wait(6)
    assert desk.stops == [Stop("s1", kill=False), Stop("s1", kill=True)]


def test_workers_beyond_a_lower_maximum_end_when_they_are_idle() -> None:
    desk = Desk(config(max_workers=4))
    desk.demand("lj", 9)
    desk.demand("lj", 0, (("s1", "busy", 0.0), ("s2", "idle", 2.0), ("s3", "idle", 5.0)))
    desk.take(desk.state.reload({"lj": config(max_workers=1)}, desk.now))
    desk.demand("lj", 0, (("s1", "busy", 0.0), ("s2", "idle", 2.0), ("s3", "busy", 0.0)))
    assert desk.stops == [Stop("s4", kill=False), Stop("s2", kill=False)]  # s4 loads still
    desk.demand("lj", 0, (("s1", "busy", 0.0), ("s3", "idle", 0.0)))
    assert desk.stops[2:] == [Stop("s3", kill=False)]
    desk.demand("lj", 0, (("s1", "idle", 0.0),))
    assert len(desk.stops) == 3


def test_the_end_stops_every_worker_and_kills_what_stays() -> None:
    desk = Desk(config(stop_timeout=5.0, max_workers=2))
    desk.demand("lj", 9)
    desk.take(desk.state.finish(desk.now))
    assert desk.stops == [Stop("s1", kill=False), Stop("s2", kill=False)]
    desk.exit("s1", "ended with exit code 0")
    desk.wait(6)
    assert desk.stops[-1] == Stop("s2", kill=True)
    assert not desk.state.ended
    desk.exit("s2", "was killed by signal SIGKILL")
    assert desk.state.ended
    assert not [m for m in desk.sent if isinstance(m, SpawnFailed)]


def test_a_worker_of_a_dead_manager_is_counted_with_its_gpu() -> None:
    numbers = itertools.count(1)
    configs = {"lj": config(gpus=1)}
    state = ManagerState(configs, {}, ["0"], None, 5.0, lambda: f"s{next(numbers)}")
    state.adopt("lj", "old", ("0",), 0.0)
    effects = state.start(0.0)
    effects += state.receive(Demand("lj", 5, 1, 1.0, [["old", "busy", 0.0]]), 1.0)
    assert not [effect for effect in effects if isinstance(effect, Start)]
    assert state.fleets["lj"].processes["old"].state is ProcessState.RUNNING


def test_an_unknown_manager_offers_again_and_answers_a_probe() -> None:
    desk = Desk(config())
    desk.sent.clear()
    desk.take(desk.state.receive(Unknown(), 1.0))
    desk.take(desk.state.receive(Probe(), 1.0))
    kinds = [type(message).__name__ for message in desk.sent]
    assert kinds == ["Offer", "Spawning", "Heartbeat"]


def test_a_name_that_another_manager_offers_is_left_to_it() -> None:
    from aserpc.messages import Accept

    desk = Desk(config(min_workers=0))
    desk.take(desk.state.receive(Accept([["lj", "the manager in process 2"]]), 0.0))
    desk.demand("lj", 5)
    assert desk.starts == []


@pytest.mark.parametrize(
    ("amounts", "devices"),
    [
        ((1, 1, 1), [("0",), ("1",), None]),
        ((0.5, 0.5, 0.5), [("0",), ("0",), ("1",)]),
        ((0.5, 1, 1), [("0",), ("1",), None]),
        ((2, 0.5), [("0", "1"), None]),
        ((0, 0), [(), ()]),
    ],
)
def test_devices_are_shared_by_parts_and_given_whole(
    amounts: tuple[float, ...], devices: list[tuple[str, ...] | None]
) -> None:
    pool, found = Devices(["0", "1"]), []
    for number, amount in enumerate(amounts):
        found.append(pool.find(amount))
        if found[-1] is not None:
            pool.take(str(number), found[-1], amount)
    assert found == devices


def test_the_tables_name_every_state() -> None:
    assert {s for pair in PROCESS_TRANSITIONS for s in pair} == set(ProcessState)
    assert {s for pair in HEALTH_TRANSITIONS for s in pair} == set(Health)


def test_how_a_start_gets_on_stays_told() -> None:
    desk = Desk(config())
    desk.demand("lj", 1)
    desk.take(desk.state.tell("s1", "Downloading torch", desk.now))
    desk.wait(1.0)
    told = [m.text for m in desk.sent if isinstance(m, Spawning)]
    assert "Downloading torch" in told[-1]
    desk.ready("lj", "s1")
    assert [m.text for m in desk.sent if isinstance(m, Spawning)][-1] == ""


def test_what_no_room_can_be_made_for_ends_nobody() -> None:
    desk = Desk(config("a", gpus=1), config("b", gpus=2), gpus="0")
    desk.demand("a", 1)
    desk.demand("a", 0, (("s1", "idle", 9.0),))
    desk.demand("b", 1)
    desk.wait(10)
    assert desk.stops == []


def test_a_worker_without_a_gpu_makes_no_room_for_one_that_needs_it() -> None:
    desk = Desk(config("a"), config("b", gpus=1), config("c", gpus=1), gpus="0")
    desk.demand("a", 1)
    desk.demand("a", 0, (("s1", "idle", 9.0),))
    desk.demand("b", 1)
    desk.ready("b", "s2")
    desk.demand("c", 1)
    desk.wait(10)
    assert desk.stops == []
