"""The page on several machines does what it says, on hosts that are called as there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from aserpc.security.folder import KeyFolder
from support.blocks import ROOT
from support.hosts import Host, network
from support.reader import PROGRAMS, Place, Reader
from support.ssh_server import ssh_server

PAGE = ROOT / "docs" / "how-to" / "across-machines.md"


@pytest.mark.usefixtures("networks", "can_log_in")
def test_across_machines(tmp_path: Path) -> None:
    with Reader() as reader, network("login", "node1", "laptop") as hosts:
        # Those of the cluster share a home.
        cluster, programs = (reader.folder / name for name in ("cluster", "bin"))
        for folder in (cluster, programs):
            folder.mkdir(mode=0o700)
        for name in ("login", "node1"):
            reader.places[name] = place(hosts[name], cluster)
        path = f"{programs}{os.pathsep}{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
        reader.places["laptop"] = place(hosts["laptop"], reader.folder, PATH=path)
        login = hosts["login"]
        with ssh_server(tmp_path, login.address, login.prefix, cluster) as server:
            ssh = programs / "ssh"
            ssh.write_text(f'#!/bin/sh\nexec /usr/bin/{server.command} "$@"\n')
            ssh.chmod(0o755)
            reader.follow(PAGE)


@pytest.mark.usefixtures("networks")
def test_keys() -> None:
    page = ROOT / "docs" / "how-to" / "keys.md"
    names = ("head", "node", "laptop")
    with Reader() as reader, network(*names) as hosts:
        folders = {name: reader.folder / name for name in names}
        for name, folder in folders.items():
            folder.mkdir(mode=0o700)
            reader.places[name] = place(hosts[name], folder)

        def lengthen(command: str) -> str:
            """Put the keys that were made in the place of those that the page shortens."""
            for shortened, label in re.findall(r"((\w+:[\w@]+):[0-9a-f]{8}\.\.\.)", command):
                found = [
                    key.public
                    for folder in folders.values()
                    for key in KeyFolder(folder / ".config/aserpc/keys").own()
                    if key.public.label == label
                ]
                assert len(found) == 1, f"{label} was not made"
                command = command.replace(shortened, str(found[0]))
            return command

        reader.follow(page, lengthen)


def place(host: Host, home: Path, **variables: str) -> Place:
    return Place(home, tuple(host.prefix), {"HOME": str(home), "PWD": str(home), **variables})
