"""Addresses of tcp: what is taken, to bind and to connect to, and what is said of the rest."""

from __future__ import annotations

import errno
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aserpc import transport
from aserpc.errors import AddressError
from aserpc.tcp import check_tcp, to_bind, to_connect, why_not_bound


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("tcp://head:5555", "head", "5555"),
        ("tcp://head.cluster.example:1", "head.cluster.example", "1"),
        ("tcp://10.0.0.1:65535", "10.0.0.1", "65535"),
        ("tcp://[::1]:5555", "::1", "5555"),
        ("tcp://[fe80::1%eth0]:5555", "fe80::1%eth0", "5555"),
    ],
)
@pytest.mark.parametrize("binds", [True, False])
def test_hosts_and_ports_are_told_apart(address: str, host: str, port: str, binds: bool) -> None:
    assert check_tcp(address, binds=binds) == (host, port)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://", "write tcp://HOST:PORT"),
        ("tcp://head", "write tcp://HOST:PORT"),
        ("tcp://:5555", "write tcp://HOST:PORT"),
        ("tcp://head:http", "write tcp://HOST:PORT"),
        ("tcp://head:-1", "write tcp://HOST:PORT"),
        ("tcp://he ad:5555", "write tcp://HOST:PORT"),
        ("tcp://head:5555/x", "write tcp://HOST:PORT"),
        ("tcp://::1:5555", "an IPv6 address stands in brackets: tcp://[::1]:PORT"),
        ("tcp://[head]:5555", "'head' is no IPv6 address"),
        ("tcp://[]:5555", "'' is no IPv6 address"),
        ("tcp://head:0", "is out of range: 1 to 65535"),
        ("tcp://head:65536", "is out of range: 1 to 65535"),
        ("tcp://head:99999999999999999999", "is out of range"),
    ],
)
@pytest.mark.parametrize("binds", [True, False])
def test_what_is_no_address_is_told(address: str, expected: str, binds: bool) -> None:
    with pytest.raises(AddressError) as caught:
        transport.check_address(address, binds=binds)
    assert expected in str(caught.value)
    assert address in str(caught.value)


@given(st.text(max_size=30), st.booleans())
def test_any_text_is_an_address_or_refused(text: str, binds: bool) -> None:
    try:
        host, port = check_tcp(f"tcp://{text}", binds=binds)
    except AddressError:
        return
    assert host in text
    assert port in text


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "[::]"])
def test_all_addresses_can_be_bound_and_not_connected_to(host: str) -> None:
    address = f"tcp://{host}:5555"
    check_tcp(address, binds=True)
    with pytest.raises(AddressError, match="where a broker listens, on all addresses"):
        check_tcp(address, binds=False)


def test_a_free_port_is_found_for_who_binds_only() -> None:
    assert check_tcp("tcp://127.0.0.1:*", binds=True) == ("127.0.0.1", "*")
    with pytest.raises(AddressError, match="the broker's log says which"):
        check_tcp("tcp://127.0.0.1:*", binds=False)


# ---- names ---------------------------------------------------------------------------------------


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known hosts: one with both kinds of addresses, and one with IPv6 only."""
    known = {"both": ["fd00::1", "10.1.2.3"], "six": ["fd00::2"]}

    def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        if host not in known and ":" not in host and not host[:1].isdigit():
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (each, 0)) for each in known.get(host, [host])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("names")
def test_a_name_is_kept_to_connect_and_resolved_to_bind() -> None:
    assert to_connect("tcp://both:5555") == ("tcp://both:5555", False)
    assert to_connect("tcp://six:5555") == ("tcp://six:5555", True)
    assert to_connect("tcp://[fd00::9]:5555") == ("tcp://[fd00::9]:5555", True)
    assert to_bind("tcp://both:5555") == ("tcp://10.1.2.3:5555", False)
    assert to_bind("tcp://six:5555") == ("tcp://[fd00::2]:5555", True)
    assert to_bind("tcp://*:5555") == ("tcp://*:5555", False)
    assert to_bind("tcp://[::]:5555") == ("tcp://[::]:5555", True)
    assert to_bind("tcp://lo:5555") == ("tcp://lo:5555", False), "an interface is no name"


@pytest.mark.usefixtures("names")
def test_a_host_that_nobody_knows_is_told() -> None:
    for call in (to_bind, to_connect):
        with pytest.raises(AddressError, match="nothing is known here of the host of tcp://gone:1"):
            call("tcp://gone:1")


# ---- binding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "number", "expected"),
    [
        ("tcp://10.9.8.7:5555", errno.EADDRNOTAVAIL, "tcp://*:5555 is all that it has"),
        ("tcp://eth7:5555", errno.ENODEV, "eth7 is no address of this machine"),
        ("tcp://*:80", errno.EACCES, "port 80 takes root; take one from 1024 on"),
        ("tcp://*:5555", errno.EACCES, "whatever"),
        ("tcp://*:*", errno.EACCES, "whatever"),
        ("tcp://*:5555", errno.EADDRINUSE, "another program listens there"),
        ("tcp://*:5555", 12345, "whatever"),
    ],
)
def test_why_an_address_cannot_be_bound(address: str, number: int, expected: str) -> None:
    assert expected in why_not_bound(address, number, "whatever")


def test_a_port_that_is_taken_or_not_of_this_machine_is_told() -> None:
    context = transport.make_context()
    try:
        first, second = (transport.router(context, 5.0, 10) for _ in range(2))
        address = transport.bind(first, "tcp://127.0.0.1:*")
        assert not address.endswith("*")
        with pytest.raises(AddressError, match=f"cannot bind {address}: another program listens"):
            transport.bind(second, address)
        with pytest.raises(AddressError, match="is no address of this machine"):
            transport.bind(second, "tcp://203.0.113.7:5555")  # documentation's own
    finally:
        context.destroy(linger=0)


def test_ipv6_is_spoken_where_it_is_asked_for() -> None:
    context = transport.make_context()
    try:
        sock = transport.router(context, 5.0, 10)
        try:
            address = transport.bind(sock, "tcp://[::1]:*")
        except AddressError as error:
            pytest.skip(f"this machine has no IPv6: {error}")
        peer = transport.dealer(context)
        transport.connect(peer, address)
        peer.send(b"here I am")
        assert sock.poll(20_000)
    finally:
        context.destroy(linger=0)
