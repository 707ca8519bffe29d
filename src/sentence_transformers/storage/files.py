"""Files of a model, whether it lies in a folder, in the hub's cache or on the hub.

`load_file_path` and `load_dir_path` are the only doors through which the library reaches a file of a model. Each takes
the model's name or folder and a path *inside* it; a path that would leave the folder (absolute, `..`, or a symbolic
link to the outside) is refused with `ModelFormatError` before anything is opened. Hub caches are the one exception to
the link rule: there the hub client itself links snapshots to blobs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sentence_transformers.errors import ModelFormatError, SentenceTransformersError

PENDING = ".sentence_transformers_save"  # files of a save that is complete but for moving them
OPENED_BY_OTHERS = ("additional_chat_templates", "onnx", "openvino")  # folders whose files other libraries open


@contextlib.contextmanager
def reading(where: object) -> Iterator[None]:
    """Raise `ModelFormatError` naming `where` for whatever goes wrong while its content is used."""
    try:
        yield
    except (ModelFormatError, ImportError, MemoryError):
        raise
    except Exception as error:
        said = str(error) if isinstance(error, SentenceTransformersError) else f"{type(error).__name__}: {error}"
        raise ModelFormatError(f"{where} is damaged or does not fit the model's other files: {said}") from error


@dataclass(frozen=True)
class Source:
    """Where a model comes from and how it may be fetched: one value instead of five arguments at every door.

    Args:
        name: a folder, or a hub id such as "sentence-transformers/all-MiniLM-L6-v2".
        subfolder: the part of the model that is meant, relative to its root.
    """

    name: str
    subfolder: str = ""
    token: bool | str | None = None
    cache_folder: str | None = None
    revision: str | None = None
    local_files_only: bool = False

    @property
    def is_folder(self) -> bool:
        return Path(self.name).is_dir()

    @property
    def hub_kwargs(self) -> dict[str, Any]:
        """Keyword arguments as `load_file_path`, `Module.load` and huggingface_hub name them."""
        return {
            "token": self.token,
            "cache_folder": self.cache_folder,
            "revision": self.revision,
            "local_files_only": self.local_files_only,
        }

    def at(self, subfolder: str) -> Source:
        """The same model, another part of it."""
        return replace(self, subfolder=join(self.subfolder, check_relative(subfolder)))

    def path(self, filename: str) -> str | None:
        """Local path of one file of this part of the model, or None if the model has no such file."""
        return load_file_path(self.name, filename, self.subfolder, **self.hub_kwargs)

    def place(self, filename: str) -> str:
        """Where a file of this part of the model is, or would be; for messages."""
        return "/".join((self.name.rstrip("/"), join(self.subfolder, filename)))

    def json(self, filename: str) -> dict[str, Any] | None:
        """The JSON object in a file, or None if there is no such file; `ModelFormatError` if it holds anything else."""
        path = self.path(filename)
        content = None if path is None else read_json(path)
        if path is not None and not isinstance(content, dict):
            raise ModelFormatError(f"{path} must hold a JSON object, not {content!r:.80}.")
        return content


def on_the_hub(source: Source) -> Source | None:
    """The hub id and commit of a folder that is a snapshot in the hub's cache; None for any other folder.

    A snapshot need not hold all files of its repository: those of other backends are left out (`storage.resolve`).
    """
    folder = Path(source.name)
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not repository.startswith("models--"):
        return None
    name = repository.removeprefix("models--").replace("--", "/", 1)
    return replace(source, name=name, revision=folder.name, cache_folder=str(folder.parents[2]))


def read_json(path: str | os.PathLike[str]) -> Any:
    """Content of a JSON file; `ModelFormatError` naming file, line and column if it cannot be parsed."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(
            f"{path} is not valid JSON: {error}. The file may be truncated; fetch it again."
        ) from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settle(folder: str | os.PathLike[str]) -> None:
    """Finish a save that was interrupted, of a model into `folder`, or into the one around it (`storage.saving`)."""
    for place in (Path(folder), Path(folder).parent):
        if (place / PENDING).is_dir():
            from sentence_transformers.storage.saving import complete

            complete(str(place))


def join(*parts: str) -> str:
    """Join relative POSIX paths, leaving out empty ones."""
    return "/".join(part.strip("/") for part in parts if part.strip("/"))


def check_relative(path: str, what: str = "path") -> str:
    """Return `path` if it is relative and stays inside the folder it is applied to, else raise `ModelFormatError`."""
    if not isinstance(path, str):
        raise ModelFormatError(f"The {what} in a model folder must be a string, got {path!r}.")
    windows, posix = PureWindowsPath(path), PurePosixPath(path)
    if posix.is_absolute() or windows.drive or windows.root or ".." in posix.parts or ".." in windows.parts:
        raise ModelFormatError(
            f"The {what} {path!r} points outside the model folder. Model folders may only name files inside themselves."
        )
    return path


def check_inside(folder: str, path: Path) -> Path:
    """Raise `ModelFormatError` if `path` (links followed) lies outside `folder`."""
    root = Path(folder).resolve()
    resolved = path.resolve()
    repository = next((parent.parent for parent in (root, *root.parents) if parent.name == "snapshots"), None)
    in_hub_cache = repository is not None and repository / "blobs" in resolved.parents
    if resolved != root and root not in resolved.parents and not in_hub_cache:
        raise ModelFormatError(
            f"{path} is a link to {resolved}, outside the model folder {root}. Copy the file into the folder."
        )
    return path


def check_links(folder: str, subfolder: str = "") -> None:
    """Raise `ModelFormatError` if a file in a part of a model links outside: for files that others open."""
    part = Path(folder, subfolder)
    for place in (part, *(part / name for name in OPENED_BY_OTHERS)):
        for path in place.iterdir() if place.is_dir() else ():
            if path.is_symlink():
                check_inside(folder, path)


def load_file_path(
    model_name_or_path: str,
    filename: str | os.PathLike[str],
    subfolder: str = "",
    token: bool | str | None = None,
    cache_folder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> str | None:
    """Local path of a file of a model; None if the model has no such file. Fetches it from the hub if need be.

    Raises:
        ModelFormatError: if `subfolder` or `filename` leave the model folder.
    """
    relative = join(check_relative(subfolder), check_relative(Path(filename).as_posix()))
    if Path(model_name_or_path).is_dir():
        settle(model_name_or_path)
        path = Path(model_name_or_path, relative)
        return str(check_inside(model_name_or_path, path)) if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return hf_hub_download(
            model_name_or_path,
            relative,
            token=token,
            cache_dir=cache_folder,
            revision=revision,
            local_files_only=local_files_only or offline(),
            library_name="sentence-transformers",
        )
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None


def load_dir_path(
    model_name_or_path: str,
    subfolder: str = "",
    token: bool | str | None = None,
    cache_folder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> str | None:
    """Local path of a sub-folder of a model; None if it has none. Fetches the folder from the hub if need be.

    Raises:
        ModelFormatError: if `subfolder` leaves the model folder.
    """
    relative = join(check_relative(subfolder))
    if Path(model_name_or_path).is_dir():
        settle(model_name_or_path)
        path = Path(model_name_or_path, relative)
        return str(check_inside(model_name_or_path, path)) if path.is_dir() else None
    from huggingface_hub import snapshot_download

    root = snapshot_download(
        model_name_or_path,
        allow_patterns=f"{relative}/**" if relative else None,
        token=token,
        cache_dir=cache_folder,
        revision=revision,
        local_files_only=local_files_only or offline(),
        library_name="sentence-transformers",
    )
    path = Path(root, relative)
    return str(path) if path.is_dir() else None


def offline() -> bool:
    """Whether the user switched the hub off (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)."""
    return any(
        os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )
