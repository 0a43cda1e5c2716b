"""Addresses of tcp: ``tcp://HOST:PORT``, and what of them a socket can use."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
from typing import NamedTuple

from aserpc.errors import AddressError

SCHEME = "tcp://"

#: Hosts that mean all addresses of this machine: to bind, not to connect to.
EVERYWHERE = ("*", "0.0.0.0", "::")  # noqa: S104 -- to be recognised

#: Ports below are root's.
FIRST_FREE_PORT = 1024


class Endpoint(NamedTuple):
    """What libzmq is told."""

    address: str
    #: Whether the socket must be one of IPv6.
    ipv6: bool


def check_tcp(address: str, *, binds: bool) -> tuple[str, str]:
    """Return host and port of an address; AddressError says what is wrong.

    Parameters
    ----------
    address
        As a person gives it.
    binds
        Whether a broker is to listen there; else one connects to it.
    """
    rest = address.removeprefix(SCHEME)
    found = re.fullmatch(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]/\s]+)):(?P<port>\d+|\*)", rest)
    if found is None:
        hint = ""
        with contextlib.suppress(ValueError):
            ipaddress.IPv6Address(rest.rpartition(":")[0])
            hint = "; an IPv6 address stands in brackets: tcp://[::1]:PORT"
        msg = f"{address!r} is no tcp address; write tcp://HOST:PORT{hint}"
        raise AddressError(msg)
    host, port = found["v6"] or found["host"] or "", found["port"]
    if found["host"] is None:
        _check_ipv6(address, host)
    if not binds and host in EVERYWHERE:
        msg = (
            f"{address} is where a broker listens, on all addresses of its machine; to connect, "
            f"name that: tcp://HOST:{port}"
        )
        raise AddressError(msg)
    if port == "*":
        if not binds:
            msg = f"{address} has no port; the broker's log says which it listens on"
            raise AddressError(msg)
    elif not 0 < int(port) < 1 << 16:
        msg = f"the port of {address} is out of range: 1 to 65535"
        raise AddressError(msg)
    return host, port


def _check_ipv6(address: str, host: str) -> None:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        msg = f"{address!r} is no tcp address: {host!r} is no IPv6 address"
        raise AddressError(msg) from None


def to_bind(address: str) -> Endpoint:
    """Return what a socket binds; names are resolved here, because libzmq does not for these."""
    host, port = check_tcp(address, binds=True)
    if host == "*" or host in (name for _, name in socket.if_nameindex()):
        return Endpoint(f"{SCHEME}{host}:{port}", ipv6=False)
    resolved = _resolve(address, host)
    return Endpoint(_join(resolved, port), ipv6=":" in resolved)


def to_connect(address: str) -> Endpoint:
    """Return what a socket connects to; a name stays one, so that it may move."""
    host, port = check_tcp(address, binds=False)
    ipv6 = ":" in _resolve(address, host)
    return Endpoint(_join(host, port), ipv6=ipv6)


def why_not_bound(address: str, number: int, text: str) -> str:
    """Say why an address can't be bound, from the error's number and text."""
    host, port = check_tcp(address, binds=True)
    if number in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return f"{host} is no address of this machine; tcp://*:{port} is all that it has"
    is_roots = port != "*" and int(port) < FIRST_FREE_PORT
    if is_roots and number in (errno.EACCES, errno.EPERM):
        return f"port {port} takes root; take one from {FIRST_FREE_PORT} on"
    if number == errno.EADDRINUSE:
        return "another program listens there"
    return text


def _join(host: str, port: str) -> str:
    return f"{SCHEME}[{host}]:{port}" if ":" in host else f"{SCHEME}{host}:{port}"


def _resolve(address: str, host: str) -> str:
    """Return an address of a host, of IPv4 if it has one."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"nothing is known here of the host of {address}: {reason}"
        raise AddressError(msg) from None
    addresses = [str(entry[4][0]) for entry in found]
    return next((each for each in addresses if ":" not in each), addresses[0])
