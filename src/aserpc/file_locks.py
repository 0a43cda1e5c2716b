"""Locks on files: one process at a time has a file, and its lock falls with it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

#: What file systems answer that have no locks, as some of clusters.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def lock(path: Path, mode: int = 0o600, *, wait: bool = False) -> int:
    """Return the descriptor of a file that is locked; it is made if it is not there.

    Parameters
    ----------
    path
        The file.
    mode
        Who may read and write it if it is made.
    wait
        Whether to wait for others who have it.

    Raises
    ------
    BlockingIOError
        If another has it, and this does not wait.
    OSError
        If the file can't be made, or not be locked.
    """
    how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
        try:
            fcntl.flock(descriptor, how)
            if _is_at(path, descriptor):
                return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                msg = "its file system has no locks (flock)"
                raise OSError(error.errno, msg, str(path)) from None
            raise
        # Whoever had it before has removed it: the lock must be had on the new one.
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
