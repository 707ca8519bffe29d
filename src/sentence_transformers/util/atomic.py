"""Files that are replaced whole: whoever reads one finds the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file, to be written in the block, that takes the place of `path` when the block ends without an error.

    Whoever reads `path` finds the old content or the new one, never a part. Permissions stay, and a link is followed.
    """
    target = Path(path).resolve()
    fresh = target.with_name(f".{uuid4().hex}-{target.name}")
    try:
        yield fresh
        sync(fresh)
        keep_mode(target, fresh)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the content of a file on disk."""
    with path.open("rb+" if os.name == "nt" else "rb") as file:
        os.fsync(file.fileno())


def keep_mode(old: Path, new: Path) -> None:
    """Give a new file the permissions of the one it replaces, if there is one and the file system has permissions."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        shutil.copymode(old, new)
