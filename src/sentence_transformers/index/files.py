"""Durable files: what was written is on disk when these return, and a file is replaced as a whole or not at all.

create     a new file                         write, flush, fsync
replace    an existing one, in one step       create beside it, os.replace, fsync the folder
Lock       one writer per folder              an advisory lock that the system drops when its process dies
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sentence_transformers.errors import IndexLockedError

LOCK = "index.lock"


@contextlib.contextmanager
def create(path: Path) -> Iterator[IO[bytes]]:
    """A new file open for writing; on disk when the block ends, removed if it fails."""
    try:
        with path.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def replace(path: Path, content: bytes, draft: str) -> None:
    """Give a file a new content in one step; `draft` is the name of a new file beside it."""
    with create(path.with_name(draft)) as file:
        file.write(content)
    path.with_name(draft).replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Lock:
    """The right to write into a folder, held until `release` or the end of the process.

    Raises:
        IndexLockedError: if someone else holds it, naming the process if that can be read.
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / LOCK).open("a+b")
        try:
            lock(self._file)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read(20).decode("ascii", "replace").strip()
            self._file.close()
            raise IndexLockedError(
                f"The index in {folder} is being written by another Index"
                f"{f' (process {holder})' if holder else ''}. One writer at a time: `close()` it or wait. "
                "Reading needs no lock."
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()).encode())
        self._file.flush()

    def release(self) -> None:
        """Give the right back."""
        self._file.close()


def lock(file: IO[bytes]) -> None:
    """Lock an open file for this file object alone, without waiting; `OSError` if it is locked."""
    if os.name == "nt":
        import msvcrt

        file.seek(2**30)  # locked bytes cannot be read: far behind the process number
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        file.seek(0)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
