"""File descriptors: how many a process may have, and what is done before they run out.

libzmq ends the process (SIGABRT) where it needs one and gets none, so that has to be seen before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource

from aserpc.errors import TooManyFilesError

#: To how many the limit is raised where that is allowed; more than a broker has use for.
ENOUGH = 1 << 16

#: What a context of libzmq takes, with a socket, its connection and what the process opens besides.
CONTEXT_SIZE = 16


def limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """Let this process have as many descriptors as it needs, as far as that is allowed.

    Shells start with 1,024, which is a number of clients that a broker may well get.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def count() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/dev/fd")) - 1  # noqa: PTH208 -- without the one that lists


def check_room(wanted: int = CONTEXT_SIZE) -> None:
    """Raise `TooManyFilesError` if so many descriptors can't be had."""
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(wanted):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            raise TooManyFilesError(too_many(error.errno)) from None


def too_many(code: int) -> str:
    """Say what to do where there are no descriptors left."""
    if code == errno.ENFILE:
        return "this machine has as many files and connections open as it can"
    return (
        f"this process may have {limit()} files and connections open, which is too few here; "
        "allow more with: ulimit -n"
    )
