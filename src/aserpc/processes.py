"""What is said of a process that has ended: how, and its last words."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def in_words(code: int) -> str:
    """Say how a process ended, from its return code."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    perhaps = " (perhaps out of memory)" if -code == signal.SIGKILL else ""
    return f"was killed by signal {name}{perhaps}"


def last_lines(path: Path, lines: int) -> str:
    """Return the last lines of a file, of 100 kB at most; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 100_000))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
