"""A contract for spawners, for those who write one.

A test module with this passes, if its spawner does what the manager relies on::

    class TestMySpawner(SpawnerContract):
        def make_spawner(self):
            return MySpawner()

Its programs are one-liners of Python. A spawner that takes time to get a process running, as one
for a batch system does, sets `patience` to how long that may take.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from aserpc.errors import SpawnError
from aserpc.manager.spawners import Handle, Spawner, Spec, Status

__all__ = ["SpawnerContract"]

T = TypeVar("T")

# Tells that it is there, then sleeps for longer than any test.
_SLEEPER = "print('here', flush=True); import time; time.sleep(600)"

# Starts another process, tells its number, and sleeps; that one ignores TERM if told to.
_PARENT = """
import subprocess, sys, time
ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
code = (ignores if sys.argv[1:] else "") + "print('here', flush=True); import time; time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code])
print("child", child.pid, flush=True)
time.sleep(600)
"""

# Starts another process and ends when there is a file; that one ignores TERM.
_LEADER = _PARENT.replace(
    "time.sleep(600)\n", "import os\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\n"
)

# Starts another process, which finishes in order when it is asked to; itself it ends at once.
_SHELL = """
import subprocess, sys, time
code = '''
import signal, sys, time
def finish(*_):
    time.sleep(0.5)
    print("finished", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, finish)
print("here", flush=True)
time.sleep(600)
'''
child = subprocess.Popen([sys.executable, "-c", code])
print("child", child.pid, flush=True)
time.sleep(600)
"""

_STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + _SLEEPER


class SpawnerContract:
    """What every spawner does, as tests for pytest.

    Subclass it as ``Test...`` and give `make_spawner`. What is started is ended after each test.
    """

    #: How long something may take that is to come, s.
    patience: float = 20.0

    #: How long a call may take, s: the manager serves nobody meanwhile.
    call_limit: float = 2.0

    #: Whether the processes run on this machine, so that tests can look at what they left behind.
    local: bool = True

    def make_spawner(self) -> Spawner:
        """Return a new spawner; another one stands for a manager that comes later."""
        raise NotImplementedError

    def make_spec(self, folder: Path, code: str, *args: str) -> Spec:
        """Return what runs a piece of Python; for machines with a Python elsewhere, override it."""
        return Spec(
            name="calculator",
            spawn_id="0a1b2c3d",
            command=[sys.executable, "-c", code, *args],
            env={**os.environ, "CONTRACT": "kept"},
            cwd=folder,
            log=folder / "logs" / "calculator.log",
        )

    # ---- means -----------------------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def _site(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path
        self.spawner = self.make_spawner()
        self._handles: list[Handle] = []
        yield
        for handle in self._handles:
            self.spawner.stop(handle, kill=True)
        for handle in self._handles:
            self.wait_for_end(handle)

    def start(self, code: str, *args: str) -> Handle:
        """Start a piece of Python."""
        handle = self.timed(lambda: self.spawner.start(self.make_spec(self.folder, code, *args)))
        self._handles.append(handle)
        return handle

    def status(self, handle: Handle, spawner: Spawner | None = None) -> Status:
        """Return what has become of a process."""
        polled = self.timed(lambda: (spawner or self.spawner).poll({"it": handle}))
        assert polled.keys() == {"it"}, "statuses go by the keys of the handles"
        return polled["it"]

    def timed(self, call: Callable[[], T]) -> T:
        """Return what a call returns, which has to be soon."""
        began = time.monotonic()
        value = call()
        assert time.monotonic() - began < self.call_limit, "a call that blocks"
        return value

    def wait_for(self, condition: Callable[[], T | None], what: str) -> T:
        """Return the first true value of a condition."""
        ends_at, pause = time.monotonic() + self.patience, threading.Event()
        while not (value := condition()):
            assert time.monotonic() < ends_at, f"not within {self.patience:g} s: {what}"
            pause.wait(0.01)
        return value

    def wait_for_end(self, handle: Handle, spawner: Spawner | None = None) -> Status:
        """Wait until a process has ended; return its last status, which is told once."""

        def ended() -> Status | None:
            status = self.status(handle, spawner)
            return status if status.state == "exited" else None

        status = self.wait_for(ended, "the process ends")
        if handle in self._handles:
            self._handles.remove(handle)
        return status

    def wait_for_line(self, handle: Handle, text: str) -> str:
        """Wait for a line of the process's output that has a text; return it."""

        def find() -> str | None:
            lines = self.spawner.logs(handle, 100).splitlines()
            return next((line for line in lines if text in line), None)

        return self.wait_for(find, f"a line with {text!r}")

    def start_family(self, *args: str) -> tuple[Handle, int]:
        """Start a process that starts another; return the second one's number too."""
        handle = self.start(_PARENT, *args)
        child = int(self.wait_for_line(handle, "child").split()[1])
        self.wait_for_line(handle, "here")
        return handle, child

    # ---- starting, and what becomes of it --------------------------------------------------------

    def test_a_handle_is_plain_json(self) -> None:
        """It is kept in a file for the next manager."""
        handle = self.start(_SLEEPER)
        assert json.loads(json.dumps(handle)) == handle

    def test_a_process_runs_until_it_ends(self) -> None:
        """It is pending or running, never exited, while it is there."""
        handle = self.start(_SLEEPER)
        assert self.status(handle).state in ("pending", "running")
        self.wait_for_line(handle, "here")
        assert self.status(handle) == Status("running")

    def test_an_orderly_end_is_no_failure(self) -> None:
        """Exit code 0."""
        status = self.wait_for_end(self.start("pass"))
        assert not status.failed
        assert "0" in status.why

    def test_an_exit_code_is_told(self) -> None:
        """In words, as in "ended with exit code 3"."""
        status = self.wait_for_end(self.start("raise SystemExit(3)"))
        assert status.failed
        assert "exit code 3" in status.why

    def test_a_signal_is_told_by_its_name(self) -> None:
        """As in "was killed by signal SIGKILL (perhaps out of memory)"."""
        code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        status = self.wait_for_end(self.start(code))
        assert status.failed
        assert "SIGKILL" in status.why

    def test_it_gets_its_folder_and_environment(self) -> None:
        """Those of the spec."""
        handle = self.start("import os; print(os.getcwd(), os.environ['CONTRACT'])")
        self.wait_for_end(handle)
        assert self.spawner.logs(handle, 1).split() == [os.path.realpath(self.folder), "kept"]

    def test_a_missing_program_is_refused(self) -> None:
        """With its name in the reason."""
        spec = self.make_spec(self.folder, "pass")
        missing = replace(spec, command=["/no/such/program"])
        with pytest.raises(SpawnError, match="/no/such/program"):
            self.spawner.start(missing)

    def test_a_missing_folder_is_refused(self) -> None:
        """It is not the program that is missing."""
        spec = replace(self.make_spec(self.folder, "pass"), cwd=self.folder / "elsewhere")
        with pytest.raises(SpawnError, match=r"no folder.*elsewhere"):
            self.spawner.start(spec)

    def test_what_no_system_can_start_is_refused(self) -> None:
        """A NUL, which ends a C string, in an argument."""
        with pytest.raises(SpawnError):
            self.spawner.start(self.make_spec(self.folder, "pass", "\0"))

    def test_several_processes_are_told_apart(self) -> None:
        """By the keys of the handles."""
        runs, ends = self.start(_SLEEPER), self.start("raise SystemExit(4)")
        why = self.wait_for_end(ends).why
        assert "4" in why
        assert self.timed(lambda: self.spawner.poll({"runs": runs}))["runs"].state == "running"
        assert self.spawner.poll({}) == {}

    # ---- ending ----------------------------------------------------------------------------------

    def test_stop_lets_a_process_end_in_order(self) -> None:
        """It gets SIGTERM, and can do what it has to."""
        code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
        handle = self.start(code + _SLEEPER)
        self.wait_for_line(handle, "here")
        self.timed(lambda: self.spawner.stop(handle, kill=False))
        assert "exit code 7" in self.wait_for_end(handle).why

    def test_kill_ends_what_ignores_stop(self) -> None:
        """SIGKILL."""
        handle = self.start(_STUBBORN)
        self.wait_for_line(handle, "here")
        self.timed(lambda: self.spawner.stop(handle, kill=False))
        assert self.status(handle).state == "running"
        self.timed(lambda: self.spawner.stop(handle, kill=True))
        assert self.wait_for_end(handle).failed

    def test_stop_reaches_what_the_process_has_started(self) -> None:
        """`uvx` and the like leave the work to a child."""
        handle, child = self.start_family()
        self.spawner.stop(handle, kill=False)
        self.wait_for_end(handle)
        if self.local:
            self.wait_for(lambda: not _is_alive(child), "the child ends")

    def test_what_the_process_has_started_may_finish(self) -> None:
        """A shell ends at once when it is asked to, and its worker has a request to finish."""
        handle = self.start(_SHELL)
        self.wait_for_line(handle, "here")
        self.timed(lambda: self.spawner.stop(handle, kill=False))
        status = self.wait_for_end(handle)
        assert not status.failed
        assert "finished" in self.spawner.logs(handle, 3)

    def test_what_does_not_finish_is_killed(self) -> None:
        """Also when the process that was started has ended already."""
        handle, child = self.start_family("stubborn")
        self.spawner.stop(handle, kill=False)
        assert self.status(handle).state == "running"
        self.spawner.stop(handle, kill=True)
        self.wait_for_end(handle)
        if self.local:
            self.wait_for(lambda: not _is_alive(child), "the child ends")

    def test_kill_reaches_what_the_process_has_started(self) -> None:
        """Also what ignores SIGTERM."""
        handle, child = self.start_family("stubborn")
        self.spawner.stop(handle, kill=True)
        self.wait_for_end(handle)
        if self.local:
            self.wait_for(lambda: not _is_alive(child), "the child ends")

    def test_nothing_is_left_behind_by_a_process_that_ends(self) -> None:
        """A child that outlives it would keep its GPU."""
        code = _PARENT.replace("time.sleep(600)\n", "")
        handle = self.start(code, "stubborn")
        child = int(self.wait_for_line(handle, "child").split()[1])
        self.wait_for_end(handle)
        if self.local:
            self.wait_for(lambda: not _is_alive(child), "the child ends")

    def test_stop_after_the_end_does_nothing(self) -> None:
        """It may have ended by itself meanwhile."""
        handle = self.start("pass")
        self.wait_for_end(handle)
        self.spawner.stop(handle, kill=False)
        self.spawner.stop(handle, kill=True)

    # ---- output ----------------------------------------------------------------------------------

    def test_the_last_lines_are_those_of_output_and_errors(self) -> None:
        """They say why a start failed."""
        code = "import sys; [print(i, flush=True) for i in range(50)]; sys.exit('no weights')"
        handle = self.start(code)
        self.wait_for_end(handle)
        assert self.spawner.logs(handle, 3).splitlines() == ["48", "49", "no weights"]

    def test_output_is_appended(self) -> None:
        """What was there stays."""
        first = self.start("print('first')")
        self.wait_for_end(first)
        second = self.start("print('second')")
        self.wait_for_end(second)
        assert self.spawner.logs(second, 2).splitlines() == ["first", "second"]

    def test_much_output_holds_up_nothing(self) -> None:
        """Nobody reads it while it is written."""
        handle = self.start("for _ in range(50_000): print('x' * 99)\nprint('end')")
        self.wait_for_end(handle)
        assert self.spawner.logs(handle, 1) == "end"

    def test_logs_of_a_process_that_printed_nothing_are_empty(self) -> None:
        """No error."""
        handle = self.start("pass")
        self.wait_for_end(handle)
        assert self.spawner.logs(handle, 20) == ""

    # ---- the next manager ------------------------------------------------------------------------

    def test_another_spawner_takes_a_process_over(self) -> None:
        """By its handle from a file: it polls, reads and ends it."""
        handle = self.start(_SLEEPER)
        self.wait_for_line(handle, "here")
        later, kept = self.make_spawner(), json.loads(json.dumps(handle))
        assert self.timed(lambda: later.adopt(kept)) is True
        assert self.status(kept, later).state == "running"
        assert later.logs(kept, 1) == "here"
        later.stop(kept, kill=False)
        self.wait_for_end(kept, later)

    def test_another_spawner_kills_what_it_took_over(self) -> None:
        """With what that has started."""
        handle, child = self.start_family("stubborn")
        later, kept = self.make_spawner(), json.loads(json.dumps(handle))
        assert later.adopt(kept) is True
        later.stop(kept, kill=True)
        self.wait_for_end(kept, later)
        if self.local:
            self.wait_for(lambda: not _is_alive(child), "the child ends")

    def test_nothing_is_left_behind_by_a_process_that_was_taken_over(self) -> None:
        """As by one's own."""
        handle = self.start(_LEADER, "stubborn")
        child = int(self.wait_for_line(handle, "child").split()[1])
        later, kept = self.make_spawner(), json.loads(json.dumps(handle))
        assert later.adopt(kept) is True
        (self.folder / "go").touch()
        self.wait_for_end(kept, later)
        if self.local:
            self.wait_for(lambda: not _is_alive(child), "the child ends")

    def test_a_process_that_has_ended_is_not_taken_over(self) -> None:
        """Its number may be another's by now."""
        handle = self.start("pass")
        self.wait_for_end(handle)
        later = self.make_spawner()
        assert later.adopt(json.loads(json.dumps(handle))) is False

    @pytest.mark.parametrize("handle", [{}, {"pid": None}, {"pid": "1", "started": [], "log": 1}])
    def test_what_is_no_handle_is_not_taken_over(self, handle: Handle) -> None:
        """The file may be of another spawner, or damaged."""
        assert self.make_spawner().adopt(handle) is False


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody asked after does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
