"""What callers give from Python, and what a mistake says; nothing is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ase import Atoms

from aserpc import Broker, Client, Manager, RemoteCalculator, Worker
from aserpc.client import broker_status, list_calculators, shutdown_workers
from aserpc.client.control import reload_managers
from aserpc.errors import SettingsError

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    "call",
    [
        lambda: RemoteCalculator("it", "foo"),
        lambda: Client("foo"),
        lambda: broker_status("foo"),
        lambda: shutdown_workers(None, "foo"),
        lambda: Worker("it", dict, "foo"),
        lambda: Manager({}, "foo"),
    ],
)
def test_an_address_that_is_none_is_told_as_the_broker(call: Callable[[], object]) -> None:
    with pytest.raises(SettingsError, match=r"^broker = 'foo' \(given by the caller\) is no addr"):
        call()


def test_the_addresses_of_a_broker_are_told_as_its_sides() -> None:
    with pytest.raises(SettingsError, match=r"^frontend = 'foo'"):
        Broker("foo")
    with pytest.raises(SettingsError, match=r"^backend = 'foo'"):
        Broker(None, "foo")


@pytest.mark.parametrize("timeout", [0, -5, "x", float("nan"), None, True])
@pytest.mark.parametrize("ask", [list_calculators, broker_status, reload_managers])
def test_a_question_takes_a_positive_time(ask: Callable[..., Any], timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout is a positive number, not "):
        ask(timeout=timeout)


def test_a_clients_timeout_is_told_as_such() -> None:
    with pytest.raises(SettingsError, match=r"^timeout = -1"):
        Client(timeout=-1, check_broker=False)


@pytest.mark.parametrize("name", ["", "a\n", "x" * 400, "ü" * 128, "\ud800"])
def test_what_is_no_calculators_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match="is no calculator name"):
        RemoteCalculator(name, check_broker=False)
    with pytest.raises(ValueError, match="is no calculator name"):
        Client(check_broker=False).submit(name, Atoms())


@pytest.mark.parametrize("name", [None, 3, b"lj", ["lj"]])
def test_a_calculators_name_is_a_text(name: Any) -> None:
    with pytest.raises(TypeError, match="a calculator's name is a text, not"):
        RemoteCalculator(name, check_broker=False)
    with pytest.raises(TypeError, match="a calculator's name is a text, not"):
        Client(check_broker=False).submit(name, Atoms())


@pytest.mark.parametrize("atoms", [3, None, [Atoms("H")], "H2O"])
def test_what_is_no_structure_is_refused_at_once(atoms: Any) -> None:
    with pytest.raises(TypeError, match=r"a structure is an ase\.Atoms, not .+ \((\w+)\)$"):
        Client(check_broker=False).submit("lj", atoms)
