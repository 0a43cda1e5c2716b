"""Which keys a connection takes, and what is said where some are missing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from aserpc.errors import KeysError
from aserpc.security.credentials import Credentials, find_credentials
from aserpc.security.folder import KeyFolder
from aserpc.security.keys import PublicKey, make_key
from aserpc.settings import Settings, load_settings

HEAD = "tcp://head.example:5555"


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


def settings(keys: KeyFolder, broker_key: str = "") -> Settings:
    given = {"keys_dir": keys.path, "broker_key": broker_key or None}
    return load_settings(given, cwd=keys.path.parent, environ={})


def broker(name: str) -> PublicKey:
    return make_key("broker", name).public


def chosen(keys: KeyFolder, address: str = HEAD, broker_key: str = "") -> PublicKey:
    found = find_credentials(address, "client", settings(keys, broker_key))
    assert isinstance(found, Credentials)
    return found.broker


def test_on_this_machine_none_are_taken(keys: KeyFolder) -> None:
    keys.make("client", "alice")
    assert find_credentials("ipc:///run/x.ipc", "client", settings(keys)) is None


def test_where_there_are_none_the_connection_is_plain_and_that_is_told(
    keys: KeyFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_credentials(HEAD, "client", settings(keys)) is None
    assert "without keys: whoever is on the way can read" in caplog.text


@pytest.mark.parametrize("role", ["client", "worker", "manager", "admin"])
def test_with_a_brokers_key_a_connection_is_never_plain(keys: KeyFolder, role: str) -> None:
    keys.allow(broker("head"))
    with pytest.raises(KeysError, match=f"aserpc keys new --role {role}"):
        find_credentials(HEAD, role, settings(keys))
    with pytest.raises(KeysError, match=f"aserpc keys new --role {role}"):
        find_credentials(HEAD, role, settings(KeyFolder(keys.path / "none"), "head"))


def test_with_a_key_of_ones_own_the_brokers_is_wanted_too(keys: KeyFolder) -> None:
    keys.make("client", "alice")
    with pytest.raises(KeysError, match="`aserpc keys list` on its machine shows it"):
        find_credentials(HEAD, "client", settings(keys))


def test_both_keys_are_given(keys: KeyFolder) -> None:
    own, head = keys.make("client", "alice"), broker("head")
    keys.allow(head)
    found = find_credentials(HEAD, "client", settings(keys))
    assert found == Credentials(own, head)
    assert found.curve() == (head.value, own.public.value, own.value)


def test_the_only_broker_is_meant_whatever_it_is_called(keys: KeyFolder) -> None:
    keys.make("client", "alice")
    one = broker("one")
    keys.allow(one)
    assert chosen(keys) == one


@pytest.mark.parametrize("address", [HEAD, "tcp://head:5555"])
def test_of_several_the_one_with_the_hosts_name_is_meant(keys: KeyFolder, address: str) -> None:
    keys.make("client", "alice")
    head, other = broker("head"), broker("other")
    keys.allow(other)
    keys.allow(head)
    assert chosen(keys, address) == head
    assert chosen(keys, address, "other") == other
    assert chosen(keys, address, str(other)) == other
    unknown = broker("unknown")
    assert chosen(keys, address, unknown.value.hex()).value == unknown.value


def test_where_it_is_not_clear_which_is_meant_it_is_asked(keys: KeyFolder) -> None:
    keys.make("client", "alice")
    for name in ("one", "two"):
        keys.allow(broker(name))
    with pytest.raises(KeysError, match="Set ASERPC_BROKER_KEY to one or two"):
        chosen(keys)
    with pytest.raises(KeysError, match=r"no name of a broker that is allowed \(one, two\)"):
        chosen(keys, broker_key="three")


def test_ones_own_broker_is_known(keys: KeyFolder) -> None:
    own = keys.make("broker", "head").public
    keys.make("client", "alice")
    assert chosen(keys) == own
