"""An ssh server of the tests' own on this machine, where who runs them may log in."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.waiting import wait_for

#: Where it is if the search path has none.
SBIN = Path("/usr/sbin/sshd")

_CONFIG = """
HostKey {folder}/host
AuthorizedKeysFile {folder}/own.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
{more}
"""

_CLIENT_CONFIG = """
Host *
    HostName {address}
    Port {port}
    User {user}
    IdentityFile {folder}/own
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
    StrictHostKeyChecking accept-new
    BatchMode yes
    LogLevel ERROR
"""


@dataclass(frozen=True)
class SshServer:
    """A server; with the configuration in the folder any name of a host leads to it."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def command(self) -> str:
        """The ssh that can log in."""
        return f"ssh -F {self.folder}/config"

    def end_connections(self) -> None:
        """End all connections, as when the server's machine goes down in order."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for child in children.split():
            os.kill(int(child), signal.SIGTERM)

    def log(self) -> str:
        """Return what the server has said."""
        return (self.folder / "log").read_text(errors="replace")


@contextlib.contextmanager
def ssh_server(
    folder: Path, address: str = "127.0.0.1", prefix: Sequence[str] = (), home: Path | None = None
) -> Iterator[SshServer]:
    """Have a server for the time of the block; its connections end with it.

    Parameters
    ----------
    folder
        For its files and those of its clients.
    address
        Where it listens.
    prefix
        What stands before its command, so that it runs elsewhere.
    home
        What is taken for the home of who logs in.
    """
    for key in ("host", "own"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True
        )
    if os.geteuid() == 0:
        # Packages have it made when the machine starts, but a container does not start.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    more = "" if home is None else f'ForceCommand cd {home} && exec sh -c "$SSH_ORIGINAL_COMMAND"'
    (folder / "sshd_config").write_text(_CONFIG.format(folder=folder, more=more))
    client = {"address": address, "port": port, "user": getpass.getuser(), "folder": folder}
    (folder / "config").write_text(_CLIENT_CONFIG.format(**client))
    arguments = ["-D", "-e", "-p", str(port), "-o", f"ListenAddress={address}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*prefix, _sshd(), *arguments, "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    server = SshServer(folder, process)
    try:
        wait_for(
            lambda: "Server listening" in server.log() or process.poll() is not None,
            what=server.log,
        )
        yield server
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def why_not(folder: Path) -> str:
    """Say why nobody can log in here; nothing if one can."""
    for program in ("ssh", "ssh-keygen", _sshd()):
        if shutil.which(program) is None:
            return f"there is no program {program}, of OpenSSH"
    with ssh_server(folder) as server:
        command = [*server.command.split(), "here", "true"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return "" if done.returncode == 0 else f"{done.stderr.strip()}; {server.log().strip()}"


def _sshd() -> str:
    return shutil.which("sshd") or str(SBIN)
