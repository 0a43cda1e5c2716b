"""Files into which processes write what they print: kept short, and read."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO

#: A log over this size is cut to nothing; of its end at least half as much is kept, bytes.
MAX_SIZE = 50_000_000

#: How much of a log is looked through for its last lines, bytes.
_TAIL = 100_000

#: How often a log that is followed is looked at, s.
_INTERVAL = 0.2


def earlier(log: Path) -> Path:
    """Return the file that keeps what a log held before it was cut."""
    return log.with_name(log.name + ".1")


def bound(log: Path) -> None:
    """Cut a log that has grown long; its writer appends, so that it goes on from there."""
    with contextlib.suppress(OSError):
        if log.stat().st_size <= MAX_SIZE:
            return
        with log.open("rb") as source, earlier(log).open("wb") as copy:
            # What is written between the last copy and the cut is lost. So what has come while the
            # last piece was copied is copied too; not for ever, the writer may be as fast as we.
            for _ in range(10):
                size = os.fstat(source.fileno()).st_size
                if size == source.tell():
                    break
                if copy.tell() + size - source.tell() > MAX_SIZE:
                    copy.seek(0)
                    copy.truncate()
                    source.seek(size - MAX_SIZE // 2)
                _copy(source, copy, size - source.tell())
            os.truncate(log, 0)


def _copy(source: BinaryIO, copy: BinaryIO, size: int) -> None:
    while size > 0 and (piece := source.read(min(size, 1 << 20))):
        copy.write(piece)
        size -= len(piece)


def last_lines(log: Path, lines: int) -> str:
    """Return the last lines of a log, of 100 kB at most; empty if there is none."""
    tail = _tail(log, _TAIL)
    if tail.count(b"\n") <= lines and len(tail) < _TAIL:  # it may have been cut just now
        tail = _tail(earlier(log), _TAIL - len(tail)) + tail
    return "\n".join(tail.decode(errors="replace").splitlines()[-lines:])


def _tail(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)
    except OSError:
        return b""


def show(log: Path, output: BinaryIO, *, follow: bool) -> None:
    """Write what is in a log, and what was before it was cut; `follow` it for ever."""
    with contextlib.suppress(FileNotFoundError), earlier(log).open("rb") as file:
        shutil.copyfileobj(file, output)
    with log.open("rb") as file:
        while True:
            if os.fstat(file.fileno()).st_size < file.tell():
                file.seek(0)  # it was cut
            shutil.copyfileobj(file, output)
            output.flush()
            if not follow:
                return
            time.sleep(_INTERVAL)
