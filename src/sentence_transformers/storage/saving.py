"""Saving into a folder that may hold an older model, and files of the user's.

Everything is first written into a folder of its own; then file after file is moved to its place. A process killed while
it writes leaves the old model as it was; one killed while it moves files leaves those that are left in the folder
`PENDING`, where the next `load` or save finds them and goes on. What the model does not bring stays as it is. The
folder of a process that was killed while it wrote is removed by a later save (`working_folder`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sentence_transformers.errors import ModelFormatError
from sentence_transformers.storage.files import PENDING, check_relative
from sentence_transformers.util.atomic import keep_mode, lock_of, locked, replacing, sync

MODULES_FILE = "modules.json"
STARTING = 60  # seconds in which a new folder may not be locked yet
OBSOLETE = Path(".obsolete.json")
SETTINGS_FILES = ("config.json", MODULES_FILE)
ADAPTER = "adapter_config.json"
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
WEIGHTS = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|pytorch_model(-\d+-of-\d+)?\.bin|(model\.safetensors|pytorch_model\.bin)\.index\.json"
)
ADAPTERS = re.compile(r"adapter_model\.(safetensors|bin)|adapter_config\.json")
TOKENS = re.compile(r"added_tokens\.json|special_tokens_map\.json|chat_template\.jinja")
READ = re.compile("|".join(kind.pattern for kind in (WEIGHTS, ADAPTERS, TOKENS)))  # without being named by modules.json


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], came_from: Path | None = None) -> Iterator[Path]:
    """A new empty folder whose files go into `path`, one by one, when the block ends without an error.

    Files of other names stay as they are, but for weights and adapters of the model that was there, which would be
    read in the place of the new ones (`obsolete_files`). Permissions of files that are replaced stay; a link to a
    folder is followed. Interrupted before all files are written, the older model is there as it was; later, the next
    `load` or save moves the rest (`finish_save`).

    Args:
        came_from: the folder that the model was loaded from.

    Raises:
        OSError: if a folder stands where a file has to go, or a file where the folder has to, or weights that were not
            saved by this library would be read with the new model; before anything is changed.
    """
    target = Path(path).resolve()
    if target.is_file():
        raise FileExistsError(f"{target} is a file, where the folder of the model has to go. Name another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    there = target.exists()
    beside = not there or (os.access(target.parent, os.W_OK) and target.parent.stat().st_dev == target.stat().st_dev)
    with working_folder(target.parent if beside else target) as fresh:
        yield fresh
        target.mkdir(exist_ok=True)  # with the permissions that new folders have
        with locked(target):  # the processes of one training run may all save their model
            finish_save(target)
            commit(fresh, target, came_from is not None and came_from.resolve() == target)


@contextlib.contextmanager
def working_folder(place: Path) -> Iterator[Path]:
    """A new folder in `place` for the time of a block. Those of processes that were killed are removed first: they have
    the name of this one's, and nobody holds their lock. Without locks (Windows, some network drives) they stay.
    """
    for left in place.glob(f"{PENDING}-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STARTING and (descriptor := lock_of(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(descriptor)
    fresh = Path(tempfile.mkdtemp(prefix=f"{PENDING}-", dir=place))
    held = lock_of(fresh)
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if held is not None:
            os.close(held)


def commit(fresh: Path, target: Path, own: bool) -> None:
    """Let the files of `fresh` be those of the model in `target`: from here on the save can only be completed."""
    names = files_of(fresh)
    for name in names:
        if (target / name).is_dir():
            raise IsADirectoryError(f"{target / name} is a folder, where a file of the model has to go. Rename it.")
    obsolete = [name.as_posix() for name in obsolete_files(names, target, own)]
    (fresh / OBSOLETE).write_text(json.dumps(obsolete), encoding="utf-8")
    usual = stat.S_IMODE((fresh / OBSOLETE).stat().st_mode)
    for name in [*names, OBSOLETE]:
        file = fresh / name
        if (mode := stat.S_IMODE(file.stat().st_mode)) != mode | usual:  # safetensors lets nobody but the owner read
            file.chmod(mode | usual)
        sync(file)
    try:
        fresh.rename(target / PENDING)
    except OSError as error:
        if error.errno != errno.EXDEV:  # the folder is mounted, from the same device as the one around it
            raise
        with working_folder(target) as inside:
            shutil.copytree(fresh, inside, dirs_exist_ok=True)
            inside.rename(target / PENDING)
    finish_save(target)


def finish_save(target: Path) -> None:
    """Move what an interrupted save left into its place, `modules.json` last. Several processes may do so at once."""
    pending = target / PENDING
    for name in files_of(pending):
        if name != OBSOLETE:
            move(pending / name, target / name)
    with contextlib.suppress(FileNotFoundError):  # nothing was left, or another process did it
        for name in json.loads((pending / OBSOLETE).read_text(encoding="utf-8")):
            (target / check_relative(name)).unlink(missing_ok=True)
        (pending / OBSOLETE).unlink()
    for folder, _, _ in os.walk(pending, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def complete(path: str) -> None:
    """Finish a save into the folder `path` that was interrupted.

    Raises:
        ModelFormatError: if the folder cannot be written to.
    """
    folder = Path(path).resolve()
    if not (folder / PENDING).is_dir():
        return
    try:
        with locked(folder):
            finish_save(folder)
    except OSError as error:
        raise ModelFormatError(
            f"Saving into {folder} was interrupted, and the rest, in {PENDING}, cannot be moved to its place: {error}. "
            "Load the model once with the right to write there, or save it anew."
        ) from error


def files_of(folder: Path) -> list[Path]:
    """Names of all files below a folder, `modules.json` last; none if there is no such folder."""
    names = sorted(Path(place, name).relative_to(folder) for place, _, files in os.walk(folder) for name in files)
    return sorted(names, key=lambda name: name == Path(MODULES_FILE))


def move(source: Path, target: Path) -> None:
    """Let a file take the place of another, with its permissions; nothing happens if another process has moved it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        keep_mode(target, source)
        source.replace(target)
    except FileNotFoundError:
        if source.exists():
            raise
    except OSError as error:
        if error.errno != errno.EXDEV:  # a link below the folder leads to another file system
            raise
        with replacing(target) as beside:
            shutil.copy2(source, beside)
        source.unlink(missing_ok=True)


def obsolete_files(names: Sequence[Path], target: Path, own: bool) -> list[Path]:
    """Weights, adapters and token files in `target` that would be read with the new files `names`, or in their place.

    Weights stay where the new files have none, but need them: those of an adapter, and those of a graph file that is
    saved into the folder that its model was loaded from (`own`).

    Raises:
        FileExistsError: if they are not known to be this library's.
    """
    found = []
    for part in {name.parent for name in names if name.name in SETTINGS_FILES or READ.fullmatch(name.name)}:
        new = {name.name for name in names if name.parent == part}
        weights = any(map(WEIGHTS.fullmatch, new))
        kinds = [TOKENS]
        if weights or not (own or ADAPTER in new):
            kinds.append(WEIGHTS)
        if weights or not own or ADAPTER in new:
            kinds.append(ADAPTERS)
        here = [item.name for item in (target / part).iterdir() if item.is_file()] if (target / part).is_dir() else []
        found += [part / name for name in here if name not in new and any(kind.fullmatch(name) for kind in kinds)]
    if (target / MODULES_FILE).is_file():
        return found
    for name in found:
        has_bin = any(new.parent == name.parent and new.suffix == ".bin" for new in names)
        if name.name == ADAPTER or (name.name in SAFETENSORS and has_bin):
            raise FileExistsError(
                f"{target / name} would be read with the model that is saved here, and was not written by this "
                "library (the folder has no modules.json). Remove it, or save into another folder."
            )
    return []
