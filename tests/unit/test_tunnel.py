"""What ``aserpc tunnel`` has ssh do, and the words that it does not take."""

from __future__ import annotations

import shlex
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aserpc.cli.forwarding import OPTIONS, Tunnel, plan
from aserpc.errors import AddressError, SettingsError

HERE = Path("/home/me/here")


def planned(destination: str = "me@login", **words: Any) -> Tunnel:
    given = {"via": None, "folder": None, "frontend": None, "backend": None, "local": None}
    return plan(destination, **{**given, "ssh": "ssh", **words})


def forwards(tunnel: Tunnel) -> list[str]:
    """Return what ssh is told to forward."""
    command = tunnel.command("/users/me")
    return [word for before, word in pairwise(command) if before == "-L"]


def test_both_sockets_are_forwarded_from_a_folder_there_to_one_here() -> None:
    tunnel = planned(folder="/scratch/me/project", local=HERE)
    assert forwards(tunnel) == [
        "/home/me/here/frontend.ipc:/scratch/me/project/frontend.ipc",
        "/home/me/here/backend.ipc:/scratch/me/project/backend.ipc",
    ]
    assert not tunnel.needs_home
    assert tunnel.variables() == {"ASERPC_IPC_DIR": "/home/me/here"}


@pytest.mark.parametrize(
    ("folder", "path"),
    [(None, ".aserpc"), ("project/.aserpc", "project/.aserpc"), ("~/deep/in", "deep/in")],
)
def test_a_folder_starts_from_the_home_there(folder: str | None, path: str) -> None:
    tunnel = planned(folder=folder, local=HERE)
    assert tunnel.needs_home
    assert forwards(tunnel)[0] == f"/home/me/here/frontend.ipc:/users/me/{path}/frontend.ipc"
    assert "there=$(ssh me@login pwd)\n" in tunnel.script()
    assert f'-L /home/me/here/backend.ipc:"$there"/{path}/backend.ipc' in tunnel.script()


@pytest.mark.parametrize(
    ("destination", "name"),
    [
        ("me@login.cluster", "login.cluster"),
        ("login", "login"),
        ("ssh://me@login:2222", "login"),
        ("me@a/b", "a_b"),
    ],
)
def test_the_folder_here_is_called_after_the_host(destination: str, name: str) -> None:
    here = planned(destination).variables()["ASERPC_IPC_DIR"]
    assert here == str(Path.home() / f".aserpc-{name}")


def test_whoever_has_no_home_names_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(SettingsError, match="name a folder with --local"):
        planned()
    assert planned(local=HERE).variables() == {"ASERPC_IPC_DIR": "/home/me/here"}


def test_a_host_on_the_way_is_ssh_s_own_option() -> None:
    tunnel = planned(via="me@gate", ssh="ssh -p 2222", folder="/x", local=HERE)
    command = tunnel.command()
    assert command[:5] == ["ssh", "-p", "2222", "-J", "me@gate"]
    assert command[-1] == "me@login"
    assert tuple(command[5 : 5 + len(OPTIONS)]) == OPTIONS
    assert (
        "$(ssh -p 2222 -J me@gate me@login pwd)"
        in planned(via="me@gate", ssh="ssh -p 2222").script()
    )


def test_the_script_quotes_what_a_shell_would_take_apart() -> None:
    tunnel = planned(folder="/data/my files", local=Path("/home/me/it's here"))
    words = shlex.split(tunnel.script(), comments=True)
    assert "/home/me/it's here/frontend.ipc:/data/my files/frontend.ipc" in words
    assert "ASERPC_IPC_DIR=/home/me/it's here" in words


def test_ports_are_forwarded_to_the_same_here_or_to_free_ones() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        frontend, backend = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        tunnel = planned(frontend=f"tcp://node12:{frontend}", backend=f"tcp://[fd00::12]:{backend}")
        one, two = forwards(tunnel)
    port, _, rest = one.removeprefix("127.0.0.1:").partition(":")
    assert int(port) != frontend
    assert rest == f"node12:{frontend}"
    assert two == f"127.0.0.1:{backend}:[fd00::12]:{backend}"
    assert tunnel.variables() == {
        "ASERPC_IPC_FRONTEND": f"tcp://127.0.0.1:{port}",
        "ASERPC_IPC_BACKEND": f"tcp://127.0.0.1:{backend}",
    }
    assert "mkdir" not in tunnel.script()


def test_one_port_is_enough_for_clients() -> None:
    tunnel = planned(frontend="tcp://node12:5555")
    assert len(forwards(tunnel)) == 1
    assert [*tunnel.variables()] == ["ASERPC_IPC_FRONTEND"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"destination": "-oProxyCommand=touch /tmp/x"}, "is no host"),
        ({"destination": ""}, "is no host"),
        ({"destination": "me@login\nrm"}, "is no host"),
        ({"via": "-v"}, "--via is '-v', which is no host"),
        ({"folder": "/a:b"}, "there is a ':' in it"),
        ({"local": Path("/a%h")}, "there is a '%' in it"),
        ({"local": Path(f"/{'x' * 100}")}, "Set --local to a folder with a shorter path"),
        ({"ssh": " "}, "--ssh is empty"),
        ({"ssh": "ssh 'x"}, "--ssh is no command: No closing quotation"),
        ({"frontend": "ipc:///x"}, "for unix sockets there is --dir"),
        ({"frontend": "tcp://node12"}, "write tcp://HOST:PORT"),
        ({"frontend": "tcp://*:5555"}, "to connect, name that"),
        ({"frontend": "tcp://n:1", "folder": "/x"}, "leave out the addresses"),
    ],
)
def test_words_that_can_t_be_meant_so(words: dict[str, Any], told: str) -> None:
    with pytest.raises((SettingsError, AddressError)) as caught:
        planned(**words)
    assert told in str(caught.value)
