"""Files that are whole or absent, and locks: whoever reads a file finds the old content or the new, never a part.

creating     a new file                        write, flush, fsync; removed if that fails
replacing    an existing one, in one step      write beside it, fsync, os.replace, fsync the folder
drafts       what a process that was killed in `replacing` left
lock         of an open file                   an advisory lock that the system drops when its process dies
locked       of a folder                       likewise
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from uuid import uuid4


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file, to be written in the block, that takes the place of `path` when the block ends without an error.

    Whoever reads `path` finds the old content or the new one, never a part; afterwards the new one is on disk.
    Permissions stay, and a link is followed.
    """
    target = Path(path).resolve()
    fresh = target.with_name(f".{uuid4().hex}-{target.name}")
    try:
        yield fresh
        sync(fresh)
        keep_mode(target, fresh)
        fresh.replace(target)
        sync_folder(target.parent)
    finally:
        fresh.unlink(missing_ok=True)


def drafts(folder: Path, names: str) -> list[Path]:
    """The unfinished files of a folder that were to replace those whose names match a pattern."""
    return [path for path in folder.iterdir() if re.fullmatch(rf"\.[0-9a-f]{{32}}-({names})", path.name)]


@contextlib.contextmanager
def creating(path: Path) -> Iterator[IO[bytes]]:
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


def sync(path: Path) -> None:
    """Have the content of a file on disk."""
    with path.open("rb+" if os.name == "nt" else "rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, where the system has such a call and the folder may be listed."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without that call
            raise
    finally:
        os.close(descriptor)


def keep_mode(old: Path, new: Path) -> None:
    """Give a new file the permissions of the one it replaces, if there is one and the file system has permissions."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        shutil.copymode(old, new)


def lock(file: IO[bytes] | int, wait: bool = False) -> None:
    """Lock an open file for this file object alone; `OSError` if it is locked and should not be waited for."""
    if os.name == "nt":
        import msvcrt

        assert not isinstance(file, int)
        file.seek(2**30)  # locked bytes cannot be read: far behind the process number
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        file.seek(0)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other thread or process is in such a block with the same folder, where there are locks."""
    descriptor = lock_of(folder, wait=True)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def lock_of(folder: Path, wait: bool = False) -> int | None:
    """A descriptor that holds the lock of a folder until it is closed or the process ends; None if it cannot be had."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows; a folder that nobody may list
        return None
    try:
        lock(descriptor, wait)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
