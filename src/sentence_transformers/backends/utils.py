"""Helpers for backends of other libraries, as `sentence_transformers.backend.utils` has them.

A runtime of its own keeps a model's file in a sub-folder (`onnx/model.onnx`), exports it where there is none, and saves
it there again.
"""

from __future__ import annotations

import fnmatch
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

logger = logging.getLogger(__name__)


def _save_pretrained_wrapper(_save_pretrained_fn: Callable[..., Any], subfolder: str) -> Callable[..., Any]:
    """A `save_pretrained` that writes into a sub-folder of the folder that it is given, and makes it."""

    def wrapper(save_directory: str | Path, **kwargs: Any) -> Any:
        folder = Path(save_directory, subfolder)
        folder.mkdir(parents=True, exist_ok=True)
        return _save_pretrained_fn(folder, **kwargs)

    return wrapper


def backend_should_export(
    load_path: Path,
    is_local: bool,
    model_kwargs: dict[str, Any],
    target_file_name: str,
    target_file_glob: str,
    backend_name: str,
) -> tuple[bool, dict[str, Any]]:
    """Whether a model has to be exported, and the arguments by which its file is loaded or made.

    Args:
        load_path: folder of the model, or its hub id.
        is_local: whether it is a folder.
        model_kwargs: `export` (True: always; False: never; None or none: if there is no file), which is taken out;
            `file_name`, `subfolder`, and of the hub `revision` and `token`.
        target_file_name: name of the file where `model_kwargs` has no `file_name`, as "model.onnx".
        target_file_glob: which files count, as "onnx/**/*.onnx".
        backend_name: for messages, as "ONNX".

    Returns:
        Whether to export; `model_kwargs` with `file_name` and `subfolder` of the file.
    """
    export = model_kwargs.pop("export", None)
    if export:
        return True, model_kwargs
    wanted = model_kwargs.get("file_name", target_file_name)
    subfolder = model_kwargs.get("subfolder") or ""
    files = graph_files(load_path, is_local, subfolder, target_file_glob, model_kwargs)
    found = [file for file in files if file in (wanted, f"{target_file_glob.split('/')[0]}/{wanted}")]
    if found and len(files) > 1 and "file_name" not in model_kwargs:
        logger.warning(
            'Several %s files in %r: %s. %r is taken; another is named by `model_kwargs={"file_name": …}`.',
            backend_name,
            str(load_path),
            files,
            found[0],
        )
    place = PurePosixPath(found[0] if found else wanted)
    if found or place.name != wanted:
        model_kwargs["subfolder"] = str(PurePosixPath(subfolder, place.parent))
        model_kwargs["file_name"] = place.name
    if found or export is False:
        return False, model_kwargs
    logger.warning("No %r found in %r. Exporting the model to %s.", wanted, str(load_path), backend_name)
    if files:
        logger.warning(
            'To load one of the %s files %s instead, name it: `model_kwargs={"file_name": "%s"}`.',
            backend_name,
            files,
            files[0],
        )
    return True, model_kwargs


def graph_files(load_path: Path, is_local: bool, subfolder: str, pattern: str, hub_kwargs: dict[str, Any]) -> list[str]:
    """The files of a folder or a hub repository that match, relative to `subfolder`, sorted."""
    if is_local:
        root = Path(load_path, subfolder)
        return sorted(file.relative_to(root).as_posix() for file in root.glob(pattern))
    from huggingface_hub import list_repo_files

    listed = list_repo_files(
        Path(load_path).as_posix(), revision=hub_kwargs.get("revision"), token=hub_kwargs.get("token")
    )
    inside = f"{subfolder}/" if subfolder else ""
    names = [name.removeprefix(inside) for name in listed if name.startswith(inside)]
    return sorted(name for name in names if fnmatch.fnmatch(name, pattern.replace("**/", "*")))


def backend_warn_to_save(model_name_or_path: str, is_local: bool, backend_name: str) -> None:
    """Log how an exported model is kept."""
    how = f"save_pretrained({model_name_or_path!r})"
    if not is_local:
        how = f"push_to_hub({model_name_or_path!r}, create_pr=True)"
    logger.warning("Save the exported %s model, so that it need not be exported again: `model.%s`.", backend_name, how)


def save_or_push_to_hub_model(
    export_function: Callable[[str], Any],
    export_function_name: str,
    config: Any,
    model_name_or_path: str,
    push_to_hub: bool = False,
    create_pr: bool = False,
    file_suffix: str | None = None,
    backend: str = "onnx",
    model: Any = None,
) -> None:
    """Put files that a function makes into `onnx/` or `openvino/` of a folder or a hub repository.

    Args:
        export_function: writes into the folder that it is given: `model_{file_suffix}.onnx`, with the files of its
            weights beside it, or `openvino/openvino_model.xml` and `.bin`, which are named with the suffix here.
        export_function_name: said in the description of the commit, as `config` is.
        config: what the files were made with.
        model_name_or_path: the folder of the model, or its hub id with `push_to_hub`.
        push_to_hub: whether the files are uploaded.
        create_pr: upload as a pull request.
        file_suffix: what follows "model_" in the names.
        backend: "onnx" or "openvino".
        model: whose class the description says; default: SentenceTransformer.

    Raises:
        FileNotFoundError: if the function did not write the file.
    """
    from sentence_transformers.backends.graph_quantize import upload
    from sentence_transformers.storage.saving import atomic_folder

    kind = "SentenceTransformer" if model is None else type(model).__name__
    with tempfile.TemporaryDirectory() as scratch:
        export_function(scratch)
        stem, end = (f"model_{file_suffix}", ".onnx") if backend == "onnx" else ("openvino_model", ".xml")
        source = Path(scratch, "" if backend == "onnx" else backend)
        named = stem if backend == "onnx" else f"{stem}_{file_suffix}"
        files = sorted(source.glob(f"{stem}.*"), key=lambda file: (file.suffix != end, file.name))
        if not files or files[0].suffix != end:
            raise FileNotFoundError(f"{export_function_name} has not written {(source / stem).name}{end}.")
        description = (
            f"Made by `{export_function_name}` with\n```python\n{config!r}\n```\n\nTo load it:\n```python\n"
            f'from sentence_transformers import {kind}\n\nmodel = {kind}(\n    "{model_name_or_path}",\n'
            f'    backend="{backend}",\n    model_kwargs={{"file_name": "{named}{end}"}},\n)\n```\n'
        )
        with tempfile.TemporaryDirectory() if push_to_hub else atomic_folder(model_name_or_path) as folder:
            target = Path(folder, backend)
            target.mkdir()
            moved = [Path(shutil.copy(file, target / file.name.replace(stem, named, 1))) for file in files]
            if push_to_hub:
                upload(moved, model_name_or_path, backend, create_pr, description)
