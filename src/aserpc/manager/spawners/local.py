"""Processes on this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from aserpc.errors import SpawnError
from aserpc.logs import last_lines
from aserpc.manager.spawners import Handle, Spec, Status
from aserpc.processes import in_words

#: What Popen meets where the program or the folder is not there, or is not what it should be.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC, errno.EISDIR}


class LocalSpawner:
    """Starts processes on this machine, each in a session of its own.

    Its handle is the process's number with the time of its start, which together are never used
    again, and the path of its log.
    """

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        #: Processes that were asked to end: what they have started may finish, until it is killed.
        self._asked: set[int] = set()

    def start(self, spec: Spec) -> Handle:
        """See `Spawner.start`."""
        try:
            spec.log.parent.mkdir(exist_ok=True)
            # A file opened to append, not a pipe: the output goes on when the manager is gone,
            # and a log that is cut grows from there.
            with spec.log.open("ab") as log:
                child = subprocess.Popen(  # noqa: S603 -- the site's own configuration
                    spec.command,
                    env=spec.env,
                    cwd=spec.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            what = error.filename or spec.command[0]
            msg = f"{error.strerror}: {what}"
            ours = (str(spec.log), str(spec.log.parent))
            if error.errno in _ABSENT and str(what) not in ours:
                msg = f"has no {'folder' if str(what) == str(spec.cwd) else 'program'}: {msg}"
            raise SpawnError(msg) from None
        except ValueError as error:  # a NUL, or what the file system cannot encode
            msg = f"has a command that cannot be run: {error}"
            raise SpawnError(msg) from None
        self._children[child.pid] = child
        return {"pid": child.pid, "started": _started(child.pid), "log": str(spec.log)}

    def poll(self, handles: Mapping[str, Handle]) -> dict[str, Status]:
        """See `Spawner.poll`."""
        return {key: self._status(handle) for key, handle in handles.items()}

    def _status(self, handle: Handle) -> Status:
        pid = handle["pid"]
        child = self._children.get(pid)
        if child is None:
            if self.adopt(handle) or self._finishes(pid):
                return Status("running")
            self._asked.discard(pid)
            if _started(pid) is None:  # the number is no other process's: the group is its own
                _signal(pid, signal.SIGKILL)
            return Status("exited", "ended")
        code = child.poll()
        if code is None or self._finishes(pid):
            return Status("running")
        del self._children[pid]
        in_order = code == 0 or (code == -signal.SIGTERM and pid in self._asked)
        self._asked.discard(pid)
        _signal(pid, signal.SIGKILL)  # what it has left behind, in its session
        return Status("exited", in_words(code), failed=not in_order)

    def _finishes(self, pid: int) -> bool:
        """Whether a process was asked to end, and has, but not what it has started.

        A shell, say, ends at once and leaves a worker that has a request to finish.
        """
        return pid in self._asked and _has_members(pid)

    def stop(self, handle: Handle, *, kill: bool) -> None:
        """See `Spawner.stop`."""
        pid = handle["pid"]
        if pid in self._children or pid in self._asked or _started(pid) == handle["started"]:
            (self._asked.discard if kill else self._asked.add)(pid)
            _signal(pid, signal.SIGKILL if kill else signal.SIGTERM)

    def logs(self, handle: Handle, lines: int) -> str:
        """See `Spawner.logs`."""
        return last_lines(Path(handle["log"]), lines)

    def adopt(self, handle: Handle) -> bool:
        """See `Spawner.adopt`."""
        pid, started, log = (handle.get(key) for key in ("pid", "started", "log"))
        if type(pid) is not int or pid <= 0 or type(started) is not int or type(log) is not str:
            return False  # no handle of this spawner's
        return _started(pid) == started


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _has_members(group: int) -> bool:
    """Whether a process group has a process that runs; then its number is no other's."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group, *_ = stat.read_text().rpartition(")")[2].split()
            if int(its_group) == group and state != "Z":
                return True
    return False


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it is gone."""
    try:
        # The command in parentheses may hold anything; 20 fields after it is the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
