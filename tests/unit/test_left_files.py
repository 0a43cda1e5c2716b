"""Files that a killed broker or manager has left: what is in them is not trusted."""

from __future__ import annotations

import os
from pathlib import Path

import msgpack
import pytest

from aserpc.broker.roster import Roster, pack_roster, unpack_roster
from aserpc.errors import ProtocolError
from aserpc.manager.spawned import Spawned, pack_spawned, unpack_spawned
from aserpc.manager.spawners.local import LocalSpawner

SESSION = b"s" * 16
ROSTER = Roster(
    {b"\x00one": ("emt", [(SESSION, 7), (SESSION, 9)]), b"\x00two": ("größe", [])},
    {b"\x00three": {"emt": 2, "lj": 0}},
)
SPAWNED: dict[str, Spawned] = {
    "a1": {"name": "emt", "gpus": ["0"], "part": 0.5, "handle": {"pid": 7}}
}


def test_what_was_left_is_read() -> None:
    assert unpack_roster(pack_roster(ROSTER)) == ROSTER
    stopped = Roster(stopped=True)
    assert unpack_roster(pack_roster(stopped)) == stopped
    assert unpack_spawned(pack_spawned(SPAWNED)) == SPAWNED


def roster(workers: object = (), managers: object = (), **more: object) -> bytes:
    packed: bytes = msgpack.packb({"workers": workers, "managers": managers, **more})
    return packed


def test_a_worker_is_expected_once() -> None:
    twice = roster([[b"one", "emt", []], [b"one", "lj", []]])
    assert unpack_roster(twice).workers == {b"one": ("lj", [])}


def test_one_that_does_not_say_how_the_broker_ended_has_it_stopped() -> None:
    assert unpack_roster(roster()).stopped


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgpack.packb([]),
        msgpack.packb([[b"one", "emt"]]),
        msgpack.packb({"workers": []}),
        msgpack.packb({"one": "emt"}),
        roster(7),
        roster([[b"one", "emt"]]),
        roster([["one", "emt", []]]),
        roster([[10**12, "emt", []]]),
        roster([[b"one", "", []]]),
        roster([[b"one", "a\nb", []]]),
        roster([[b"one", b"emt", []]]),
        roster([[b"one", None, []]]),
        roster([[b"one", "emt", [SESSION]]]),
        roster([[b"one", "emt", [[SESSION, -1]]]]),
        roster([[b"one", "emt", [[b"short", 1]]]]),
        roster([], [[b"one", [["emt", None]]]]),
        roster([], [[b"one", [["", 1]]]]),
        roster([], [[b"one", {"emt": 1}]]),
        roster([], [["one", []]]),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
    ],
)
def test_what_is_no_roster_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_roster(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"7",
        b'{"a1": 7}',
        b'{"a1": {"name": "emt", "gpus": []}}',
        b'{"a1": {"name": 7, "gpus": [], "part": 1, "handle": {}}}',
        b'{"a1": {"name": "emt", "gpus": "0", "part": 1, "handle": {}}}',
        b'{"a1": {"name": "emt", "gpus": [0], "part": 1, "handle": {}}}',
        b'{"a1": {"name": "emt", "gpus": [], "part": 1, "handle": 7}}',
        b'{"a1": {"name": "emt", "gpus": [], "handle": {}}}',
        b'{"a1": {"name": "emt", "gpus": [], "part": "1", "handle": {}}}',
        b'{"a1": {"name": "emt", "gpus": [], "part": true, "handle": {}}}',
        b'{"a1": {"name": "emt", "gpus": [], "part": 2, "handle": {}}}',
        b'{"a1": {"name": "emt", "gpus": [], "part": NaN, "handle": {}}}',
        b"[" * 100_000,
        b'{"a1":' * 100_000,
    ],
)
def test_what_is_no_note_of_workers_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        unpack_spawned(data)


@pytest.mark.parametrize(
    "change",
    [
        {"pid": "self"},
        {"pid": 0},
        {"pid": -1},
        {"pid": True},
        {"pid": None},
        {"started": None},
        {"started": "0"},
        {"log": None},
        {"log": 3},
    ],
)
def test_a_handle_that_is_none_is_not_taken_over(change: dict[str, object]) -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    handle: dict[str, object] = {"pid": os.getpid(), "started": int(fields[19]), "log": "x"}
    spawner = LocalSpawner()
    assert spawner.adopt(handle)
    assert not spawner.adopt({**handle, **change})
    assert not spawner.adopt({key: handle[key] for key in handle.keys() - change.keys()})
