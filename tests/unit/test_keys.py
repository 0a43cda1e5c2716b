"""Keys as text and as files, and what is said of bad ones."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from aserpc.errors import KeysError
from aserpc.security.folder import KeyFolder
from aserpc.security.keys import (
    PublicKey,
    SecretKey,
    default_name,
    make_key,
    parse_public,
    parse_secret,
)
from aserpc.security.roles import ROLES
from support.waiting import InThread

DIGITS = "0123456789abcdef" * 4
ALICE = parse_public(f"client:alice:{DIGITS}")


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "config" / "keys")


def complaint(call: Callable[[], object]) -> str:
    """Return what an error says, in one line."""
    with pytest.raises(KeysError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---- as text -------------------------------------------------------------------------------------


@given(
    st.sampled_from(ROLES),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True),
    st.binary(min_size=32, max_size=32),
)
def test_a_public_key_is_read_as_it_is_written(role: str, name: str, value: bytes) -> None:
    key = PublicKey(role, name, value)
    assert parse_public(f"  {key}\n") == key
    assert parse_public(value.hex().upper(), role, name) == key


@given(st.text(max_size=200))
def test_no_text_is_a_public_key_by_chance(text: str) -> None:
    message = complaint(lambda: parse_public(text, "client"))
    assert len(message) < 1000


def test_a_key_needs_no_quotes_in_a_shell() -> None:
    key = make_key("client", default_name("client")).public
    assert set(str(key)) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-:"
    )


def test_a_new_key_is_one_of_curve() -> None:
    key = make_key("worker", "node")
    again = parse_secret(key.text())
    assert again == key
    assert z85.decode(zmq.curve_public(z85.encode(key.value))) == key.public.value
    assert make_key("worker", "node") != key


def test_a_secret_key_shows_nothing_by_accident() -> None:
    key = make_key("client", "alice")
    assert key.value.hex() not in repr(key)
    assert str(key.value) not in repr(key)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("", {}, "is no public key: ROLE:NAME:HEX, with 64 hexadecimal digits"),
        ("client:alice", {}, "'client:alice' is no public key"),
        (f"client:alice:{DIGITS[:-1]}", {}, "is no public key"),
        (f"client:alice:{DIGITS}0", {}, "is no public key"),
        (f"client:alice:{DIGITS[:-1]}g", {}, "is no public key"),
        ("x" * 5000, {}, "..."),
        (DIGITS, {}, "say what the key is for: --role broker|client|worker|manager|admin"),
        (f"king:alice:{DIGITS}", {}, "'king' is no role; there are broker, client, worker"),
        (DIGITS, {"role": "Client"}, "'Client' is no role"),
        (f"client:a b:{DIGITS}", {}, "'a b' is no name of a key"),
        (DIGITS, {"role": "client", "name": "-rf"}, "'-rf' is no name of a key"),
        (DIGITS, {"role": "client", "name": "x" * 65}, "is no name of a key"),
    ],
)
def test_what_is_no_public_key_is_told(text: str, options: dict[str, str], expected: str) -> None:
    assert expected in complaint(lambda: parse_public(text, **options))


def test_a_secret_key_given_for_a_public_one_is_not_repeated() -> None:
    key = make_key("client", "alice")
    message = complaint(lambda: parse_public(f" {key.text()} "))
    assert message.startswith("that is a secret key")
    assert key.value.hex() not in message


def test_a_key_without_a_name_is_called_by_its_digits() -> None:
    assert parse_public(DIGITS, "client").label == "client:01234567"


# ---- as files ------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_kept_where_nobody_else_can_read_it(keys: KeyFolder) -> None:
    before = os.umask(0)
    try:
        made = keys.make("client", "alice")
        keys.allow(ALICE)
    finally:
        os.umask(before)
    assert mode(keys.path) == 0o700
    assert all(mode(path) == 0o600 for path in keys.path.iterdir())
    assert KeyFolder(keys.path).secret("client") == made
    assert [key.public for key in keys.own()] == [made.public]


def test_where_there_are_no_keys_none_are_found_and_nothing_is_made(keys: KeyFolder) -> None:
    assert keys.own() == []
    assert keys.allowed() == []
    assert keys.brokers() == []
    assert not keys.path.parent.exists()


def test_a_key_is_not_made_over_another(keys: KeyFolder) -> None:
    made = keys.make("client", "alice")
    assert "there is a client key already" in complaint(lambda: keys.make("client", "bob"))
    assert keys.secret("client") == made


@pytest.mark.parametrize("first", ["broker", "client"])
def test_ones_own_keys_are_allowed_where_the_brokers_is(keys: KeyFolder, first: str) -> None:
    second = "client" if first == "broker" else "broker"
    keys.make(first, "one")
    assert keys.allowed() == []
    keys.make(second, "two")
    (allowed,) = keys.allowed()
    own = keys.secret("client")
    assert own is not None
    assert allowed == own.public
    broker = keys.secret("broker")
    assert broker is not None
    assert keys.brokers() == [broker.public]


def test_a_revoked_key_of_ones_own_is_not_allowed_again_by_the_way(keys: KeyFolder) -> None:
    keys.make("broker", "one")
    keys.make("client", "two")
    keys.revoke("two")
    keys.make("worker", "three")
    assert [key.label for key in keys.allowed()] == ["worker:three"]


def test_the_first_key_that_may_do_is_taken(keys: KeyFolder) -> None:
    assert keys.for_role("worker") is None
    manager = keys.make("manager", "m")
    assert keys.for_role("worker") == keys.for_role("manager") == manager
    worker = keys.make("worker", "w")
    assert keys.for_role("worker") == worker
    assert keys.for_role("admin") is None


@pytest.mark.parametrize("text", [str(ALICE), ALICE.label, "alice", DIGITS])
def test_a_key_is_revoked_by_any_of_its_names(keys: KeyFolder, text: str) -> None:
    other = parse_public(DIGITS[::-1], "client", "bob")
    assert keys.allow(ALICE)
    assert keys.allow(other)
    assert keys.revoke(text) == ALICE
    assert keys.allowed() == [other]
    assert "is no key that is allowed; there are: client:bob" in complaint(
        lambda: keys.revoke(text)
    )


def test_a_name_that_several_keys_have_is_not_enough(keys: KeyFolder) -> None:
    keys.allow(ALICE)
    keys.allow(parse_public(DIGITS[::-1], "worker", "alice"))
    expected = "'alice' may be client:alice or worker:alice; say which"
    assert complaint(lambda: keys.revoke("alice")) == expected
    assert keys.revoke("worker:alice").role == "worker"


def test_a_key_is_allowed_once(keys: KeyFolder) -> None:
    assert keys.allow(ALICE)
    assert not keys.allow(ALICE)
    again = parse_public(DIGITS, "admin", "alice")
    assert "allowed already, as client:alice" in complaint(lambda: keys.allow(again))
    other = parse_public(DIGITS[::-1], "client", "alice")
    assert "another key is allowed as client:alice" in complaint(lambda: keys.allow(other))
    assert keys.allowed() == [ALICE]


def test_ones_own_secret_key_without_its_marks_is_not_allowed(keys: KeyFolder) -> None:
    made = keys.make("client", "alice")
    digits = parse_public(made.value.hex(), "client", "alice")
    assert complaint(lambda: keys.allow(digits)).startswith("that is your secret key")
    assert made.value.hex() not in "".join(
        path.read_text() for path in keys.path.iterdir() if path.name == "allowed_keys"
    )


def test_lines_that_a_person_wrote_stay(keys: KeyFolder) -> None:
    keys.allow(ALICE)
    path = keys.allowed_path
    path.write_text(f"# from the group's page\n\n{ALICE}\n")
    other = parse_public(DIGITS[::-1], "client", "bob")
    keys.allow(other)
    assert path.read_text() == f"# from the group's page\n\n{ALICE}\n{other}\n"
    keys.revoke("bob")
    assert path.read_text() == f"# from the group's page\n\n{ALICE}\n"


def test_two_who_allow_keys_at_once_both_do(keys: KeyFolder) -> None:
    several = [PublicKey("client", f"c{i}", bytes([i]) * 32) for i in range(20)]
    calls = [InThread(partial(KeyFolder(keys.path).allow, key)) for key in several]
    assert all(call.result() for call in calls)
    assert set(keys.allowed()) == set(several)


# ---- what is not private -------------------------------------------------------------------------


def test_a_folder_that_others_can_enter_is_refused(keys: KeyFolder) -> None:
    keys.make("client", "alice")
    keys.allow(ALICE)
    keys.path.chmod(0o750)
    calls: list[Callable[[], object]] = [
        lambda: keys.secret("client"),
        keys.allowed,
        lambda: keys.make("worker", "w"),
        lambda: keys.allow(ALICE),
        lambda: keys.revoke("alice"),
    ]
    for call in calls:
        assert complaint(call).endswith(f"make it private with: chmod 700 {keys.path}")
    keys.path.chmod(0o700)
    assert keys.own()


def test_a_secret_that_others_can_read_is_refused(keys: KeyFolder) -> None:
    keys.make("client", "alice")
    path = keys.secret_path("client")
    path.chmod(0o640)
    assert f"make it private with: chmod 600 {path}" in complaint(lambda: keys.secret("client"))


def test_a_list_that_others_can_write_is_refused(keys: KeyFolder) -> None:
    keys.allow(ALICE)
    keys.allowed_path.chmod(0o620)
    assert complaint(keys.allowed).endswith(f"chmod 600 {keys.allowed_path}")
    keys.allowed_path.chmod(0o644)
    assert keys.allowed() == [ALICE]


def test_keys_of_somebody_else_are_refused(
    keys: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.make("client", "alice")
    monkeypatch.setattr(os, "getuid", lambda: keys.path.stat().st_uid + 1)
    assert "belongs to somebody else; set ASERPC_KEYS_DIR" in complaint(keys.own)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds no secret key; remove it"),
        (b"secret:client:alice:00\n", "holds no secret key"),
        (b"client:alice:" + DIGITS.encode(), "holds no secret key"),
        (b"\xff\xfe", "cannot read"),
    ],
)
def test_a_broken_secret_is_told_and_not_shown(
    keys: KeyFolder, content: bytes, expected: str
) -> None:
    keys.make("client", "alice")
    keys.secret_path("client").write_bytes(content)
    message = complaint(lambda: keys.secret("client"))
    assert expected in message
    assert str(keys.secret_path("client")) in message
    assert DIGITS not in message


def test_a_broken_list_is_told_with_its_line(keys: KeyFolder) -> None:
    keys.allow(ALICE)
    keys.allowed_path.write_text(f"{ALICE}\nking:x:{DIGITS}\n")
    assert f"{keys.allowed_path}, line 2: 'king' is no role" in complaint(keys.allowed)


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    keys = KeyFolder(tmp_path / "file" / "keys")
    assert "cannot make" in complaint(lambda: keys.make("client", "alice"))
    other = KeyFolder(tmp_path / "file")
    assert "is no folder" in complaint(lambda: other.make("client", "alice"))


def test_a_folder_that_one_can_not_enter_is_told(
    keys: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    for call in (lambda: keys.secret("client"), keys.allowed):
        assert complaint(call).startswith("cannot read ")


def test_without_libsodium_it_is_told(keys: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    made = keys.make("client", "alice")
    monkeypatch.setattr(zmq, "has", lambda what: what != "curve")
    assert "built without CURVE (libsodium)" in complaint(lambda: make_key("client", "x"))
    assert "built without CURVE (libsodium)" in complaint(lambda: parse_secret(made.text()))
    assert isinstance(made, SecretKey)
