"""What ``aserpc run`` has finished, kept beside its output, so that a later run goes on from there.

The file is a list of records, each written as soon as a structure is finished: length and checksum
(4 bytes each, the lowest first), then a msgpack list of the record's key and the frames of its
results. A record that was not written to its end, as in a crash, is dropped with all after it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgpack

from aserpc import file_locks
from aserpc.cli.structures import Structure
from aserpc.errors import AserpcError, SettingsError
from aserpc.payload import pack_atoms, pack_results, unpack_results

#: The first bytes of such a file; the number is that of its form.
MAGIC = b"aserpc finished 1\n"

_HEAD = struct.Struct("<II")

#: No record is larger; what says so is none.
_LARGEST = 1 << 31


class Finished:
    """The finished structures of runs with one output; a context manager.

    Parameters
    ----------
    output : Path, optional
        Where the structures are written in the end; None: nothing is kept.
    task : mapping
        What is computed, and with what: results of another task are not taken for this one's.
    restart : bool
        Forget what is finished.

    Raises
    ------
    SettingsError
        If the file can't be used: it is something else, or another run has it.
    """

    def __init__(
        self, output: Path | None, task: Mapping[str, Any], *, restart: bool = False
    ) -> None:
        self.path = None if output is None else path_beside(output)
        self._task = json.dumps(task, sort_keys=True, default=str).encode()
        self._records: dict[bytes, bytes] = {}
        self._keys: dict[int, bytes] = {}
        self._file: BinaryIO | None = None
        if self.path is not None:
            self._file = _open(self.path, restart=restart)
            self._records = _read(self._file, self.path)

    def __enter__(self) -> Finished:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None and self.path is not None:
            if not self._records:
                self.path.unlink(missing_ok=True)
            self._file.close()  # which ends the lock, too

    def restore(self, structures: Iterable[Structure]) -> list[Structure]:
        """Give structures the results that are there already; return the others."""
        return [structure for structure in structures if not self._restored(structure)]

    def _restored(self, structure: Structure) -> bool:
        if self._file is None:
            return False
        key = self._keys[id(structure)] = self._key(structure)
        payload = self._records.get(key)
        if payload is None:
            return False
        try:
            found = unpack_results(msgpack.unpackb(payload)[1:])
            structure.atoms.set_positions(found["positions"], apply_constraint=False)
            structure.done(found["calculator"], found["results"])
            structure.converged, structure.steps = found["converged"], found["steps"]
            structure.seconds = found["seconds"]
        except (AserpcError, ValueError, KeyError, TypeError):
            return False  # of another version: computed again
        return True

    def add(self, structure: Structure) -> None:
        """Keep a finished structure, once."""
        key = self._keys.get(id(structure))
        if self._file is None or key is None or key in self._records:
            return
        assert structure.atoms.calc is not None
        frames, _ = pack_results(
            {
                "positions": structure.atoms.get_positions(),
                "calculator": structure.atoms.calc.name,
                "results": dict(structure.atoms.calc.results),
                "converged": structure.converged,
                "steps": structure.steps,
                "seconds": structure.seconds,
            }
        )
        payload: bytes = msgpack.packb([key, *map(bytes, frames)])
        record = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        if self._file.write(record) < len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._records[key] = payload

    def _key(self, structure: Structure) -> bytes:
        """Return what a structure is known by: not where it is from, but all that it is."""
        packed = pack_atoms(structure.atoms)
        digest = hashlib.blake2b(self._task, digest_size=16)
        digest.update(packed.digest())
        for frame in packed.rest:  # a relaxation depends on constraints
            digest.update(frame)
        return digest.digest()


def path_beside(output: Path) -> Path:
    """Return where what is finished is kept."""
    return output.with_name(f"{output.name}.done")


def _open(path: Path, *, restart: bool) -> BinaryIO:
    try:
        descriptor = file_locks.lock(path, 0o666)
    except BlockingIOError:
        raise SettingsError(f"another aserpc run has {path}; wait for it") from None
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from None
    # Unbuffered: what is finished is there also after kill -9.
    file: BinaryIO = os.fdopen(descriptor, "a+b", buffering=0)
    with contextlib.ExitStack() as stack:
        stack.callback(file.close)
        file.seek(0)
        start = file.read(len(MAGIC))
        if start and start != MAGIC:
            raise SettingsError(
                f"{path} is not what this version of aserpc run keeps; "
                "move it away, or choose another output"
            )
        if restart:
            file.truncate(0)
        if restart or not start:
            file.write(MAGIC)
        stack.pop_all()
    return file


def _read(file: BinaryIO, path: Path) -> dict[bytes, bytes]:
    """Return the records by their keys; cut off what was not written to its end."""
    records: dict[bytes, bytes] = {}
    end = len(MAGIC)
    with path.open("rb") as source:
        source.seek(end)
        for payload in read_payloads(source):
            try:
                key = msgpack.unpackb(payload)[0]
            except (ValueError, IndexError, TypeError, msgpack.UnpackException):
                break
            records[key] = payload
            end += _HEAD.size + len(payload)
    file.truncate(end)
    return records


def read_payloads(source: BinaryIO) -> Iterator[bytes]:
    """Yield the records that follow, as long as they are whole."""
    while len(head := source.read(_HEAD.size)) == _HEAD.size:
        length, checksum = _HEAD.unpack(head)
        if length > _LARGEST:
            return
        payload = source.read(length)
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield payload
