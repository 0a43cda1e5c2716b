"""Keys as text: a role, a name and 32 bytes, which a shell takes without quotes."""

from __future__ import annotations

import getpass
import os
import re
import socket
from dataclasses import dataclass, field

import zmq
from zmq.utils import z85

from aserpc.errors import KeysError
from aserpc.security.roles import ROLES

#: Length of a key, in bytes.
KEY_SIZE = 32

#: What begins the text of a secret key.
SECRET = "secret"  # noqa: S105 -- no secret, but what marks one

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHOW = "The public one is shown by: aserpc keys list"


@dataclass(frozen=True)
class PublicKey:
    """Whose connections a broker takes, or which broker one connects to.

    Its text is ``ROLE:NAME:HEX``.
    """

    role: str
    name: str
    value: bytes

    @property
    def label(self) -> str:
        """What it is called where its digits do not matter."""
        return f"{self.role}:{self.name}"

    def __str__(self) -> str:
        return f"{self.label}:{self.value.hex()}"


@dataclass(frozen=True)
class SecretKey:
    """The secret half of a key, with the public one."""

    public: PublicKey
    value: bytes = field(repr=False)

    def text(self) -> str:
        """Return ``secret:ROLE:NAME:HEX``."""
        return f"{SECRET}:{self.public.label}:{self.value.hex()}"


def make_key(role: str, name: str) -> SecretKey:
    """Make a key."""
    check_curve()
    check_role(role)
    check_name(name)
    public, secret = zmq.curve_keypair()
    return SecretKey(PublicKey(role, name, z85.decode(public)), z85.decode(secret))


def parse_public(text: str, role: str | None = None, name: str | None = None) -> PublicKey:
    """Read a public key as a person gives it.

    Parameters
    ----------
    text
        ``ROLE:NAME:HEX``, or the digits alone.
    role, name
        In place of those in the text.

    Raises
    ------
    KeysError
        With what is wrong; a secret key is refused, and not repeated.
    """
    text = text.strip()
    if f"{SECRET}:" in text:
        msg = f"that is a secret key, which is nobody else's business. {_SHOW}"
        raise KeysError(msg)
    own_role, own_name, digits = _split(text)
    role, name = role or own_role, name or own_name
    value = _value(digits)
    if role is None:
        msg = f"say what the key is for: --role {'|'.join(ROLES)}"
        raise KeysError(msg)
    check_role(role)
    name = name or value.hex()[:8]
    check_name(name)
    return PublicKey(role, name, value)


def parse_secret(text: str) -> SecretKey:
    """Read what `SecretKey.text` gave; KeysError does not repeat it."""
    check_curve()
    word, _, rest = text.strip().partition(":")
    try:
        if word != SECRET:
            msg = "it does not begin with 'secret:'"
            raise KeysError(msg)
        role, name, digits = _split(rest)
        value = _value(digits)
        check_role(role or "")
        check_name(name or "")
    except KeysError:
        msg = "holds no secret key"
        raise KeysError(msg) from None
    public = z85.decode(zmq.curve_public(z85.encode(value)))
    return SecretKey(PublicKey(role or "", name or "", public), value)


def check_curve() -> None:
    """Raise `KeysError` where libzmq has no CURVE."""
    if not zmq.has("curve"):
        msg = (
            "this pyzmq was built without CURVE (libsodium), which keys need. Install it from a "
            "wheel: pip install --force-reinstall --only-binary pyzmq pyzmq"
        )
        raise KeysError(msg)


def check_role(role: str) -> None:
    """Raise `KeysError` for a role that is none."""
    if role not in ROLES:
        msg = f"{role!r} is no role; there are {', '.join(ROLES)}"
        raise KeysError(msg)


def check_name(name: str) -> None:
    """Raise `KeysError` for what is no name of a key."""
    if _NAME.fullmatch(name) is None:
        msg = f"{name[:80]!r} is no name of a key: 1 to 64 letters, digits and . _ @ -"
        raise KeysError(msg)


def default_name(role: str) -> str:
    """Return a name that tells people whose key it is: the host's, or user and host."""
    host = _safe(socket.gethostname().partition(".")[0]) or "host"
    if role == "broker":
        return host
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user whom nobody knows
        user = str(os.getuid())
    return f"{_safe(user) or 'user'}@{host}"[:64]


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-_")[:30]


def _split(text: str) -> tuple[str | None, str | None, str]:
    parts = text.split(":")
    if len(parts) == 1:
        return None, None, text
    if len(parts) != 3:
        raise _no_key(text)
    return parts[0], parts[1], parts[2]


def _value(digits: str) -> bytes:
    if re.fullmatch(f"[0-9a-fA-F]{{{2 * KEY_SIZE}}}", digits) is None:
        raise _no_key(digits)
    return bytes.fromhex(digits)


def _no_key(text: str) -> KeysError:
    told = text if len(text) <= 100 else f"{text[:97]}..."
    msg = (
        f"{told!r} is no public key: ROLE:NAME:HEX, with {2 * KEY_SIZE} hexadecimal digits, as "
        "`aserpc keys new` and `aserpc keys list` print it"
    )
    return KeysError(msg)
