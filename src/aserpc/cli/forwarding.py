"""What ``aserpc tunnel`` does: ssh forwards the sockets of a broker on another machine.

A local socket stands for each of the broker's. With unix sockets at both ends it is file
permissions that say who may connect, here and there, so this takes no keys.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from aserpc import socket_folder, tcp, transport
from aserpc.cli.console import complain
from aserpc.errors import AddressError, AserpcError, BrokerUnreachableError, SettingsError
from aserpc.processes import in_words
from aserpc.serving import stop_on_signals

#: The broker's sides: their sockets in its folder, and the variables for their addresses.
SIDES = {"frontend": "ASERPC_IPC_FRONTEND", "backend": "ASERPC_IPC_BACKEND"}

#: Its folder, unless one is named; from the home there.
DEFAULT_FOLDER = ".aserpc"

#: Options of ssh: no command is run, what can't be forwarded is an error, a socket that another ssh
#: left behind is no obstacle, a dead link ends it within a minute, and no connection is shared that
#: would go on forwarding when this one ends.
OPTIONS = (
    "-N",
    *("-o", "ExitOnForwardFailure=yes"),
    *("-o", "StreamLocalBindUnlink=yes"),
    *("-o", "ServerAliveInterval=15"),
    *("-o", "ServerAliveCountMax=3"),
    *("-S", "none"),
)

#: How often it is looked whether ssh is there yet, or no longer, s.
INTERVAL = 0.2

#: How often the broker is asked for an answer, and how long it may take, s.
QUESTIONS, PATIENCE = 2, 2.5

#: How long ssh may take to end, s.
STOP_TIMEOUT = 5.0

Process: TypeAlias = "subprocess.Popen[str] | subprocess.Popen[bytes]"


@dataclass(frozen=True)
class Forward:
    """A socket of the broker and what stands for it here."""

    side: str
    #: Address here.
    local: str
    #: Path there, from the home unless it is absolute, or ``HOST:PORT``.
    remote: str

    @property
    def is_file(self) -> bool:
        """Whether it is a unix socket."""
        return self.local.startswith("ipc://")

    @property
    def here(self) -> str:
        """What ssh calls this end."""
        return self.local.partition("://")[2]

    @property
    def needs_home(self) -> bool:
        """Whether the path of the home there must be known."""
        return self.is_file and not self.remote.startswith("/")


@dataclass(frozen=True)
class Tunnel:
    """The forwarding of a broker's sockets through ssh.

    Attributes
    ----------
    destination : str
        Where ssh connects to.
    options : sequence of str
        How: ssh with options of the user's, and the hosts on the way.
    forwards : sequence of Forward
        What is forwarded.
    """

    destination: str
    options: Sequence[str]
    forwards: Sequence[Forward]

    @property
    def needs_home(self) -> bool:
        """Whether the path of the home there must be known."""
        return any(forward.needs_home for forward in self.forwards)

    def command(self, home: str = "") -> list[str]:
        """Return the command; `home` is the path of the home there."""
        forwards = [
            ("-L", f"{f.here}:{PurePosixPath(home, f.remote) if f.is_file else f.remote}")
            for f in self.forwards
        ]
        options = [word for forward in forwards for word in forward]
        return [*self.options, *OPTIONS, *options, self.destination]

    def variables(self) -> dict[str, str]:
        """Return what to set, so that everything here uses the broker there."""
        if self.forwards[0].is_file:
            return {"ASERPC_IPC_DIR": str(Path(self.forwards[0].here).parent)}
        return {SIDES[forward.side]: forward.local for forward in self.forwards}

    def exports(self) -> str:
        """Return the same as commands of a shell."""
        return "\n".join(f"export {k}={shlex.quote(v)}" for k, v in self.variables().items())

    def script(self) -> str:
        """Return commands of a shell that do it."""
        lines = ["# Leave this running, until Ctrl-C; with --run aserpc does it for you."]
        if self.forwards[0].is_file:
            lines.append(f"mkdir -p -m 700 {shlex.quote(self.variables()['ASERPC_IPC_DIR'])}")
        if self.needs_home:
            lines.append(f"there=$({shlex.join(self._ask_home())})")
        forwards = []
        for forward in self.forwards:
            before = '"$there"/' if forward.needs_home else ""
            here = shlex.quote(forward.here)
            forwards.append(f"    -L {here}:{before}{shlex.quote(forward.remote)}")
        command = shlex.join([*self.options, *OPTIONS])
        lines.append(" \\\n".join([command, *forwards, f"    {shlex.quote(self.destination)}"]))
        return "\n".join([*lines, "", "# In other terminals:", self.exports()])

    def _ask_home(self) -> list[str]:
        return [*self.options, self.destination, "pwd"]

    def run(self) -> None:
        """Run ssh until a signal ends it.

        Raises
        ------
        SettingsError
            If there is no ssh.
        AddressError
            If a socket can't be made here.
        AserpcError
            If ssh fails.
        """
        program = self.options[0]
        if shutil.which(program) is None:
            msg = f"there is no program {program} here; install OpenSSH, or name another (--ssh)"
            raise SettingsError(msg)
        waker, stopped = transport.Waker(), threading.Event()
        with contextlib.ExitStack() as stack:
            stack.callback(waker.close)
            for forward in self.forwards:
                try:
                    stack.enter_context(socket_folder.reserved(forward.local))
                except AddressError as error:
                    msg = f"{error}. For the tunnel, --local names another folder"
                    raise AddressError(msg) from None
                if forward.is_file:
                    Path(forward.here).unlink(missing_ok=True)  # of one that was killed
            stack.enter_context(stop_on_signals(stopped.set, waker))
            home = self._find_home(waker, stopped) if self.needs_home else ""
            if not stopped.is_set():
                self._forward(home, waker, stopped)

    def _find_home(self, waker: transport.Waker, stopped: threading.Event) -> str:
        with subprocess.Popen(  # noqa: S603 -- the user's own ssh
            self._ask_home(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                self._wait(process, waker, stopped)
            finally:
                _end(process)
            assert process.stdout is not None
            # What a shell's start-up files print comes first.
            lines = process.stdout.read().split("\n")
        home = next((line for line in reversed(lines) if line.startswith("/")), "")
        if not home and not stopped.is_set():
            msg = f"{self.destination} does not say where your home is; give an absolute --dir"
            raise SettingsError(msg)
        return home

    def _forward(self, home: str, waker: transport.Waker, stopped: threading.Event) -> None:
        process = subprocess.Popen(  # noqa: S603 -- the user's own ssh
            self.command(home), stdin=subprocess.DEVNULL
        )
        try:
            while process.poll() is None and not stopped.is_set() and not self._is_open():
                waker.wait(INTERVAL)
            if process.poll() is None and not stopped.is_set():
                print(f"the tunnel to {self.destination} is open. In other terminals:\n")
                print(f"{self.exports()}\n", flush=True)
                self._look_for_broker(stopped)
            self._wait(process, waker, stopped)
        finally:
            _end(process)
        if not stopped.is_set():
            msg = f"the tunnel to {self.destination} has ended: the connection was closed"
            raise AserpcError(msg)

    def _is_open(self) -> bool:
        """Whether ssh listens for all: it does so one by one, when it is connected."""
        last = self.forwards[-1]
        if last.is_file:
            return Path(last.here).exists()
        host, _, port = last.here.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=INTERVAL).close()
        except OSError:
            return False
        return True

    def _look_for_broker(self, stopped: threading.Event) -> None:
        """Say whether a broker answers; one that comes later is as good."""
        first = self.forwards[0]
        if first.side != "frontend":
            return
        error: AserpcError | None = None
        for _ in range(QUESTIONS):
            error = _trouble(first.local)
            if not isinstance(error, BrokerUnreachableError) or stopped.is_set():
                break
        if error is None:
            print("the broker there answers", flush=True)
        elif stopped.is_set():
            pass
        elif first.is_file:
            complain(
                f"no broker answers yet at {first.remote} on {self.destination}; is that where it "
                "serves? Its log begins with its addresses"
            )
        else:
            complain(str(error))

    def _wait(self, process: Process, waker: transport.Waker, stopped: threading.Event) -> None:
        """Wait for the end of ssh, or until it is stopped."""
        while process.poll() is None and not stopped.is_set():
            waker.wait(INTERVAL)
        # Ctrl-C ends ssh as well, and perhaps before we hear of it.
        if process.returncode and not stopped.wait(INTERVAL):
            msg = (
                f"the tunnel to {self.destination} has ended: ssh {in_words(process.returncode)}; "
                "it has said why above"
            )
            raise AserpcError(msg)


def plan(
    destination: str,
    *,
    via: str | None,
    folder: str | None,
    frontend: str | None,
    backend: str | None,
    local: Path | None,
    ssh: str,
) -> Tunnel:
    """Return the tunnel that the command line asks for; see ``aserpc tunnel --help``.

    Raises
    ------
    SettingsError, AddressError
        A word that can't be meant so.
    """
    for what, text in (("the destination", destination), ("--via", via)):
        if text is not None and (not text or text.startswith("-") or re.search(r"\s", text)):
            raise SettingsError(f"{what} is {text!r}, which is no host; write user@host")
    try:
        words = shlex.split(ssh)
    except ValueError as error:
        raise SettingsError(f"--ssh is no command: {error}: {ssh}") from None
    if not words:
        raise SettingsError("--ssh is empty; leave it out, or name the program")
    options = [*words, *(("-J", via) if via else ())]
    if frontend or backend:
        if folder is not None or local is not None:
            raise SettingsError("--dir and --local are for unix sockets: leave out the addresses")
        given = (("frontend", frontend), ("backend", backend))
        forwards = [_to_port(side, address) for side, address in given if address]
    else:
        here = local.expanduser().absolute() if local else _default_local(destination)
        there = PurePosixPath((folder or DEFAULT_FOLDER).removeprefix("~/"))
        forwards = [_to_file(side, here, there) for side in SIDES]
    return Tunnel(destination, options, forwards)


def _default_local(destination: str) -> Path:
    host = destination.removeprefix("ssh://").rpartition("@")[2].partition(":")[0]
    try:
        home = Path.home()
    except RuntimeError:
        raise SettingsError("you have no home here; name a folder with --local") from None
    return home / f".aserpc-{re.sub(r'[^A-Za-z0-9_.-]+', '_', host)}"


def _to_file(side: str, here: Path, there: PurePosixPath) -> Forward:
    path = here / f"{side}.ipc"
    for folder in (str(here), str(there)):
        if found := re.search(r"[:%$\\\n]", folder):
            raise SettingsError(f"ssh can't forward to {folder!r}: there is a {found[0]!r} in it")
    transport.check_address(f"ipc://{path}", "--local")
    return Forward(side, f"ipc://{path}", str(there / f"{side}.ipc"))


def _to_port(side: str, address: str) -> Forward:
    if not address.startswith(tcp.SCHEME):
        raise SettingsError(
            f"--{side} {address} is no tcp address; for unix sockets there is --dir"
        )
    tcp.check_tcp(address, binds=False)
    remote = address.removeprefix(tcp.SCHEME)
    port = _free_port(int(remote.rpartition(":")[2]))
    return Forward(side, f"{tcp.SCHEME}127.0.0.1:{port}", remote)


def _free_port(wanted: int) -> int:
    """Return a port that is free here: the wanted one, if it is."""
    for port in (wanted, 0):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(sock.getsockname()[1])
    raise SettingsError("there is no free port here")


def _trouble(address: str) -> AserpcError | None:
    """Return why a broker does not answer; None if it does."""
    from aserpc.client.blocking import check_broker

    try:
        check_broker(address, PATIENCE)
    except AserpcError as error:
        return error
    return None


def _end(process: Process) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
