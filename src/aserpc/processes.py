"""What is said of a process that has ended."""

from __future__ import annotations

import signal


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
