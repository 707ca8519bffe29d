"""Files from models and from the web."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from tqdm.auto import tqdm

from sentence_transformers.errors import InputError
from sentence_transformers.storage.files import load_dir_path, load_file_path
from sentence_transformers.util.atomic import replacing

try:
    from huggingface_hub.errors import IncompleteSnapshotError, RevisionResolutionError
except ImportError:  # older clients never raise these

    class IncompleteSnapshotError(Exception):  # type: ignore[no-redef]  # stands in for the client's own
        """The local cache holds only a part of the files of a model."""

    class RevisionResolutionError(Exception):  # type: ignore[no-redef]  # stands in for the client's own
        """A branch or tag could not be turned into a commit."""


__all__ = [
    "IncompleteSnapshotError",
    "RevisionResolutionError",
    "disabled_tqdm",
    "http_get",
    "is_sentence_transformer_model",
    "load_dir_path",
    "load_file_path",
]

CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 60  # of silence, after which a download is given up


class disabled_tqdm(tqdm):
    """A progress bar that is never shown, whatever `disable` says; for functions that take a tqdm class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})

    def __delattr__(self, attr: str) -> None:
        """Clients delete the lock of the class, which a bar that was never shown may not have."""
        try:
            super().__delattr__(attr)
        except AttributeError:
            if attr != "_lock":
                raise


def is_sentence_transformer_model(
    model_name_or_path: str,
    token: bool | str | None = None,
    cache_folder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> bool:
    """Whether a folder or a model on the hub has a `modules.json`."""
    found = load_file_path(
        model_name_or_path,
        "modules.json",
        token=token,
        cache_folder=cache_folder,
        revision=revision,
        local_files_only=local_files_only,
    )
    return found is not None


def http_get(url: str, path: str | os.PathLike[str]) -> None:
    """Download a file over http or https. It appears under `path` only when it is complete; parent folders are made.

    Raises:
        InputError: if the address begins with something else.
        OSError: (`urllib.error.URLError`) if the server cannot be reached, answers with an error, stops halfway or
            is silent for `TIMEOUT_SECONDS`.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"Expected an http or https address, got {url!r}.")
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        with urlopen(url, timeout=TIMEOUT_SECONDS) as response, partial.open("xb") as file:
            size = int(response.headers.get("Content-Length") or 0)
            with tqdm(unit="B", total=size or None, unit_scale=True, desc=target.name) as bar:
                while chunk := response.read(CHUNK_BYTES):
                    bar.update(file.write(chunk))
        if size and partial.stat().st_size != size:
            raise OSError(f"{url} ended after {partial.stat().st_size} of {size} bytes. Try again.")
