"""What a client asks for in one request, and what it no longer asks for."""

from __future__ import annotations

import copy
import pickle
import threading

from aserpc.client.needs import FORGET_AFTER, PropertyNeeds
from aserpc.client.session import Session


def geometry(needs: PropertyNeeds, *names: str) -> list[str]:
    """Have a geometry need properties; return what the first request asks for."""
    needs.next_geometry()
    asked = []
    for name in names:
        needs.note(name)
        asked.append(needs.ask_for(name))
    return sorted(asked[0])


def test_at_first_only_what_is_asked_is_asked_for() -> None:
    assert geometry(PropertyNeeds(), "forces") == ["forces"]


def test_what_is_asked_for_comes_first() -> None:
    needs = PropertyNeeds()
    geometry(needs, "energy", "forces")
    needs.next_geometry()
    needs.note("forces")
    assert needs.ask_for("forces") == ["forces", "energy"]


def test_a_script_s_needs_are_asked_for_together() -> None:
    needs = PropertyNeeds()
    geometry(needs, "energy", "forces", "stress")
    assert geometry(needs, "forces") == ["energy", "forces", "stress"]


def test_a_property_that_nobody_asks_for_is_never_asked_for() -> None:
    needs = PropertyNeeds()
    for _ in range(10):
        assert geometry(needs, "energy", "forces") in (["energy"], ["energy", "forces"])


def test_a_property_that_three_geometries_did_not_need_is_forgotten() -> None:
    needs = PropertyNeeds()
    geometry(needs, "energy", "stress")
    for _ in range(FORGET_AFTER):
        assert geometry(needs, "energy") == ["energy", "stress"]
    assert geometry(needs, "energy") == ["energy"]


def test_only_geometries_in_a_row_count() -> None:
    needs = PropertyNeeds()
    geometry(needs, "energy", "stress")
    for _ in range(5):
        geometry(needs, "energy")
        geometry(needs, "energy")
        assert geometry(needs, "energy", "stress") == ["energy", "stress"]


def test_a_property_logged_every_third_step_stays() -> None:
    needs = PropertyNeeds()
    for step in range(30):
        asked = geometry(needs, "forces", *(["energy"] if step % 3 == 0 else []))
        assert step == 0 or asked == ["energy", "forces"]


def test_after_a_failure_only_what_worked_is_asked_for() -> None:
    needs = PropertyNeeds()
    geometry(needs, "energy", "stress")
    needs.forget_others("energy")
    assert geometry(needs, "energy") == ["energy"]
    assert geometry(needs, "energy", "stress") == ["energy"]
    assert geometry(needs, "energy") == ["energy", "stress"]


# ---- sessions ------------------------------------------------------------------------------------


def test_the_keys_of_a_session_differ_in_their_number() -> None:
    session = Session()
    keys = [session.next_key() for _ in range(3)]
    assert [number for _, number in keys] == [0, 1, 2]
    assert {len(identity) for identity, _ in keys} == {16}
    assert len({identity for identity, _ in keys}) == 1


def test_copies_of_a_session_are_sessions_of_their_own() -> None:
    session = Session()
    others = [copy.copy(session), copy.deepcopy(session), pickle.loads(pickle.dumps(session))]
    assert len({other.next_key()[0] for other in [session, *others]}) == 4


def test_a_fork_is_a_session_of_its_own() -> None:
    session = Session()
    before = session.next_key()
    pid, identity, numbers = session._source
    session._source = (pid + 1, identity, numbers)  # as the child of the fork sees it
    after = [session.next_key() for _ in range(2)]
    assert [number for _, number in after] == [0, 1]
    assert after[0][0] != before[0]


def test_threads_never_get_the_same_key() -> None:
    session = Session()
    keys: list[tuple[bytes, int]] = []

    def work() -> None:
        keys.extend(session.next_key() for _ in range(2000))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*keys}) == len(keys) == 8000
