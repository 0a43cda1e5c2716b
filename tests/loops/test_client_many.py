"""Streams of structures, and futures of many futures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, as_completed, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import SCFError
from ase.constraints import FixAtoms
from ase.io import read, write

from aserpc import Client
from aserpc.client import blocking, windows
from aserpc.errors import NonFiniteError, PayloadError
from support.asking import atom
from support.calculators import Failing, Gate, Generous, Spring
from support.gated import Gated
from support.service import Service
from support.waiting import InThread, wait_for


@pytest.fixture
def client(service: Service) -> Client:
    """A client of a broker with two workers."""
    service.start_broker()
    for _ in range(2):
        service.start_worker("spring", Spring)
    return service.client()


class Source:
    """An iterator of atoms that counts how many were taken."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.count, self.fails_at, self.taken = count, fails_at, 0

    def __iter__(self) -> Iterator[Atoms]:
        for x in range(self.count):
            if x == self.fails_at:
                raise OSError("the file ends here")
            self.taken += 1
            yield atom(x)


def bad() -> Atoms:
    """Return an atom that the calculator fails for."""
    atoms = atom(1)
    atoms.info["error"] = "SCFError"
    return atoms


# ---- map -----------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_structures(client: Client) -> None:
    energies = [r["energy"] for r in client.map("spring", map(atom, range(2500)), ["energy"])]
    assert energies == [x * x / 2 for x in range(2500)]


def test_a_window_of_structures_is_taken_as_results_are(client: Client) -> None:
    source = Source(10**6)
    results = client.map("spring", source, window=20)
    assert source.taken == 0
    for x in range(100):
        assert next(results)["energy"] == x * x / 2
        assert source.taken <= x + 20
    assert isinstance(results, Iterator)
    del results
    wait_for(lambda: not client._waiting)


def test_large_structures_have_a_smaller_window(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW_BYTES", 3 * windows.size_of(atom(0)))
    source = Source(50)
    results = client.map("spring", source)
    for x in range(50):
        assert next(results)["energy"] == x * x / 2
        assert source.taken <= x + 3


def test_the_rest_of_a_map_that_is_left_is_cancelled(gated: Gated) -> None:
    client = gated.service.client()
    gated.open()
    results = client.map("gate", map(atom, range(10)), window=10)
    next(results)
    (gated.folder / "go").unlink()
    for _ in range(3):
        client.submit("gate", atom(1))
    assert isinstance(results, Iterator)
    del results
    wait_for(lambda: len(client._waiting) <= 3)


def test_an_error_is_raised_in_its_place_and_the_rest_is_cancelled(
    client: Client, service: Service
) -> None:
    service.start_worker("failing", Failing)
    results = client.map("failing", [atom(2), bad(), atom(4)])
    assert next(results)["energy"] == 2
    with pytest.raises(SCFError):
        next(results)
    assert next(results, None) is None
    wait_for(lambda: not client._waiting)


def test_errors_may_be_returned_in_their_places(client: Client, service: Service) -> None:
    service.start_worker("failing", Failing)
    far = atom(float("nan"))
    one, two, three, four = client.map(
        "failing", [atom(2), bad(), far, atom(4)], return_exceptions=True
    )
    assert isinstance(one, dict)
    assert isinstance(two, SCFError)
    assert isinstance(three, NonFiniteError)
    assert isinstance(four, dict)
    assert four["energy"] == 8


def test_what_an_iterator_raises_comes_after_the_results_before_it(client: Client) -> None:
    results = client.map("spring", Source(9, fails_at=5), return_exceptions=True)
    for x in range(5):
        found = next(results)
        assert isinstance(found, dict)
        assert found["energy"] == x * x / 2
    with pytest.raises(OSError, match="the file ends here"):
        next(results)


def test_mistakes_are_raised_before_anything_is_taken(client: Client) -> None:
    with pytest.raises(TypeError, match=r"write \[atoms\]"):
        client.map("spring", atom(1))
    with pytest.raises(TypeError):
        client.map("spring", 7)  # type: ignore[call-overload]
    for file in ("scan.xyz", Path("scan.xyz")):
        with pytest.raises(TypeError, match=r"not 'scan\.xyz'; ase\.io\.iread reads"):
            client.evaluate("spring", file)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="list of names"):
        client.map("spring", [], "energy")
    with pytest.raises(ValueError, match="no calculator name"):
        client.map("", [])
    with pytest.raises(ValueError, match="deadline"):
        client.map("spring", [], deadline=-1)
    with pytest.raises(TypeError, match="priority is a whole number"):
        client.map("spring", [], priority=0.5)  # type: ignore[call-overload]
    wrong: tuple[Any, ...] = (0, -1, True, 2.0)
    for window in wrong:
        with pytest.raises(ValueError, match="window is a number"):
            client.map("spring", [], window=window)
    assert list(client.map("spring", [], window=np.int64(3))) == []


def test_what_is_no_structure_is_told_in_its_place(client: Client) -> None:
    given: list[Any] = [atom(2), "H2O", None]
    for verb in (client.map, client.evaluate):
        found = list(verb("spring", given, return_exceptions=True))
        assert not isinstance(found[0], Exception)
        for wrong, error in zip(given[1:], found[1:], strict=True):
            assert isinstance(error, PayloadError)
            assert f"a structure is an ase.Atoms, not {wrong!r}" in str(error)


def test_closing_the_client_ends_a_map(gated: Gated) -> None:
    client = gated.service.client()
    mapping = InThread(lambda: list(client.map("gate", map(atom, range(5)))))
    wait_for(gated.started)
    client.close()
    with pytest.raises(CancelledError):
        mapping.result()
    wait_for(lambda: not gated.pending())
    gated.open()


def test_two_maps_and_threads_share_a_client(client: Client) -> None:
    def energies(shift: int) -> list[float]:
        atoms = (atom(x + shift) for x in range(200))
        return [r["energy"] for r in client.map("spring", atoms, window=7)]

    threads = [InThread(lambda shift=shift: energies(shift)) for shift in range(4)]  # type: ignore[misc]
    for shift, thread in enumerate(threads):
        assert thread.result() == [(x + shift) ** 2 / 2 for x in range(200)]


def test_all_clients_of_a_process_have_one_thread_and_one_socket(gated: Gated) -> None:
    clients = [gated.service.client() for _ in range(3)]
    futures = [InThread(lambda c=c: c.submit("gate", atom(1)).result(20)) for c in clients]  # type: ignore[misc]
    wait_for(lambda: gated.pending() + gated.running() == 3)
    assert [t.name for t in threading.enumerate()].count("aserpc client") == 1
    assert blocking.pool()._lent == 1
    gated.open()
    for future in futures:
        future.result()


# ---- evaluate ------------------------------------------------------------------------------------


def test_evaluated_structures_are_copies_with_results(client: Client, tmp_path: Path) -> None:
    given = [Atoms("H2", [(x, 0, 0), (0, x, 0)]) for x in range(3)]
    given[1].info["name"] = "the second"
    given[2].set_constraint(FixAtoms([0]))
    energies = [float(x * x) for x in range(3)]
    found = client.evaluate("spring", iter(given))
    assert [atoms.get_potential_energy() for atoms in found] == energies
    assert found[1].info == {"name": "the second"}
    assert found[2].get_forces().tolist() == [[0, 0, 0], [0, -2, 0]]
    assert found[0].calc.name == "spring"
    assert all(atoms.calc is None for atoms in given)
    write(tmp_path / "found.extxyz", found)
    again = read(tmp_path / "found.extxyz", ":")
    assert [atoms.get_potential_energy() for atoms in again] == energies


def test_a_structure_that_is_reused_is_evaluated_as_it_was(client: Client) -> None:
    def moving() -> Iterator[Atoms]:
        atoms = atom(0)
        for x in range(10):
            atoms.positions[0, 0] = x
            yield atoms

    found = client.evaluate("spring", moving())
    assert [a.positions[0, 0] for a in found] == list(range(10))
    assert [a.get_potential_energy() for a in found] == [x * x / 2 for x in range(10)]


def test_results_without_a_name_in_ase_are_left_out(client: Client, service: Service) -> None:
    service.start_worker("generous", Generous)
    (found,) = client.evaluate("generous", [atom(1)])
    assert found.calc.results.keys() == {"energy", "free_energy", "forces", "stress"}


def test_evaluate_gives_errors_in_their_places_or_raises(client: Client, service: Service) -> None:
    service.start_worker("failing", Failing)
    good, failed = client.evaluate("failing", [atom(2), bad()], return_exceptions=True)
    assert isinstance(good, Atoms)
    assert good.get_potential_energy() == 2
    assert isinstance(failed, SCFError)
    with pytest.raises(SCFError):
        client.evaluate("failing", [atom(2), bad()])


# ---- cancelling and priority ---------------------------------------------------------------------


def test_a_cancelled_request_is_never_computed_and_nothing_else_is_disturbed(
    gated: Gated,
) -> None:
    client = gated.service.client()
    futures = [client.submit("gate", atom(x)) for x in range(5)]
    wait_for(gated.started)
    assert futures[3].cancel()
    assert futures[0].cancel(), "its calculation goes on; nobody waits for it"
    wait_for(lambda: gated.pending() == 3)
    gated.open()
    energies = [futures[x].result(20)["energy"] for x in (1, 2, 4)]
    assert energies == [x * x / 2 for x in (1, 2, 4)]
    assert gated.started() == 4


def test_cancelled_futures_are_done_for_whoever_waits(gated: Gated) -> None:
    client = gated.service.client()
    one, two = (client.submit("gate", atom(x)) for x in range(2))
    waiting = InThread(lambda: wait([one, two], 20, FIRST_COMPLETED))
    one.cancel()
    waited = waiting.result()
    assert waited is not None
    assert waited.done == {one}
    two.cancel()
    assert {*as_completed([one, two], 20)} == {one, two}
    gated.open()


def test_higher_priority_overtakes_what_this_client_has_queued(gated: Gated) -> None:
    client = gated.service.client()
    order: list[str] = []

    def ask(name: str, **options: Any) -> Future[Any]:
        future = client.submit("gate", atom(1), **options)
        future.add_done_callback(lambda _: order.append(name))
        return future

    first = ask("first")
    wait_for(gated.started)
    rest = [ask("later", priority=-1), ask("usual"), ask("urgent", priority=np.int64(3))]
    wait_for(lambda: gated.pending() == 3)
    gated.open()
    wait([first, *rest], 20)
    assert order == ["first", "urgent", "usual", "later"]


# ---- gather --------------------------------------------------------------------------------------


def test_gathered_futures_give_their_results_in_order(client: Client) -> None:
    futures = [client.submit("spring", atom(x)) for x in range(20)]
    results = client.gather(futures).result(20)
    assert [r["energy"] for r in results] == [x * x / 2 for x in range(20)]
    assert client.gather([]).result(20) == []


def test_a_function_of_the_results_may_submit_and_wait(client: Client) -> None:
    def then(results: list[Any]) -> float:
        x = sum(r["energy"] for r in results)
        return float(client.submit("spring", atom(x)).result(20)["energy"])

    first = client.gather([client.submit("spring", atom(2)) for _ in range(3)], then)
    second = client.gather([first, first], sum)
    assert second.result(20) == 36
    assert client.gather([], len).result(20) == 0


def test_what_cannot_be_gathered_is_told_at_once(client: Client) -> None:
    one = client.submit("spring", atom(1))
    wrong: list[tuple[Any, Any, str]] = [
        (one, None, "not one future"),
        ([one, {"energy": 1.0}], None, "not {'energy': 1.0}"),
        ([one], "mean", "then is a function .* not 'mean'"),
    ]
    for futures, then, message in wrong:
        with pytest.raises(TypeError, match=message):
            client.gather(futures, then)


def test_the_first_failure_is_that_of_the_whole(gated: Gated) -> None:
    gated.service.start_worker("failing", Failing)
    client = gated.service.client()
    slow = client.submit("gate", atom(1))
    called = threading.Event()
    whole = client.gather([slow, client.submit("failing", bad())], lambda _: called.set())
    assert isinstance(whole.exception(20), SCFError)
    assert not slow.done()
    gated.open()
    slow.result(20)
    assert not called.is_set()


def test_what_the_function_raises_is_the_failure(client: Client) -> None:
    def then(results: list[Any]) -> None:
        raise ZeroDivisionError("of the function")

    whole = client.gather([client.submit("spring", atom(1))], then)
    assert isinstance(whole.exception(20), ZeroDivisionError)


def test_cancelling_the_whole_cancels_all(gated: Gated) -> None:
    client = gated.service.client()
    futures = [client.submit("gate", atom(x)) for x in range(3)]
    whole = client.gather(futures)
    wait_for(gated.started)
    assert whole.cancel()
    assert all(future.cancelled() for future in futures)
    assert {*as_completed([whole], 20)} == {whole}
    wait_for(lambda: not gated.pending())
    gated.open()


def test_closing_the_client_cancels_what_is_gathered(service: Service, tmp_path: Path) -> None:
    service.start_broker()
    service.start_worker("gate", lambda: Gate(str(tmp_path)))
    with service.client() as client:
        whole = client.gather([client.submit("gate", atom(1))])
        wait_for(lambda: list(tmp_path.glob("started-*")))
    with pytest.raises(CancelledError):
        whole.result(20)
    (tmp_path / "go").touch()


# ---- calculator ----------------------------------------------------------------------------------


def test_a_clients_calculators_ask_the_same_broker_as_it_does(service: Service) -> None:
    service.start_broker()
    service.start_worker("spring", Spring)
    client = service.client(timeout=7000, allow_nonfinite=True)
    calculator = client.calculator("spring", retries=2)
    assert calculator.get_property("energy", atom(2)) == 2
    assert calculator.broker == client.broker
    assert (calculator.timeout, calculator.retries) == (7000, 2)
    assert calculator.allow_nonfinite


# ---- progress ------------------------------------------------------------------------------------


def test_a_map_shows_how_far_it_is(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    list(client.map("spring", [atom(x) for x in range(7)], progress=True))
    client.evaluate("spring", map(atom, range(9)), progress=True)
    shown = capsys.readouterr()
    assert "7/7" in shown.err
    assert "9/?" in shown.err
    assert "spring" in shown.err
    assert shown.out == ""
