"""A model folder: `modules.json`, `config_sentence_transformers.json` and one folder per module.

Reading walks `modules.json`, checks every entry (known class, path inside the folder) before any class is loaded, and
loads the modules in order. `write` fills a new folder, whose files `storage.saving` moves to their place.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sentence_transformers import _names
from sentence_transformers.errors import ModelFormatError
from sentence_transformers.storage.files import Source, check_inside, check_relative, read_json
from sentence_transformers.storage.module_io import load_module, save_module
from sentence_transformers.storage.saving import MODULES_FILE
from sentence_transformers.storage.settings import check_settings
from sentence_transformers.util.whose_code import OWN, is_foreign

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

CONFIG_FILE = "config_sentence_transformers.json"
MODULE_FOLDER = re.compile(r"\d+_[A-Z]\w*$")
TASK = "transformer_task"
FEATURES = {"token_embeddings", "sentence_embedding", "scores", "causal_logits", "all_layer_embeddings"}
ENTRY_SHAPE = {"name": str | int, "kwargs": list[str] | None}
CONFIG_SHAPE = {
    "__version__": dict[str, Any] | None,
    "prompts": dict[str, str | None] | None,
    "default_prompt_name": str | None,
    "similarity_fn_name": str | None,
    "model_type": str,
    "max_active_dims": int | None,
    "activation_fn": str | None,
}


class Entry(NamedTuple):
    """One line of `modules.json`, with its class found."""

    name: str
    path: str
    module_class: type
    kwargs: list[str]


def read_entries(source: Source, trust_remote_code: bool) -> list[Entry]:
    """The modules that a folder names.

    Raises:
        ModelFormatError: if the file is malformed, names an unknown or untrusted class, or a path outside the folder.
    """
    file = source.path(MODULES_FILE)
    if file is None:
        raise ModelFormatError(f"{source.name} has no {MODULES_FILE}.")
    entries = read_json(file)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ModelFormatError(f"{source.name}/{MODULES_FILE} must hold a list of modules, each a JSON object.")
    found = []
    for i, entry in enumerate(entries):
        if not {"type", "path"} <= entry.keys():
            raise ModelFormatError(f"Module {i} in {source.name}/{MODULES_FILE} lacks 'type' or 'path': {entry!r}.")
        check_settings(ENTRY_SHAPE, entry, f"Module {i} in {source.name}/{MODULES_FILE}")
        path = check_relative(entry["path"], f"path of module {i} in {source.name}/{MODULES_FILE}")
        if not Path(source.name, path).exists():
            path = path.replace("\\", "/")  # written on Windows
        check_inside(source.name, Path(source.name, path))
        if not isinstance(entry["type"], str):
            raise ModelFormatError(
                f"{source.name}/{MODULES_FILE} gives the module type {entry['type']!r}; expected a dotted class name."
            )
        module_class = _names.find_class(entry["type"], source, trust_remote_code)
        found.append(Entry(str(entry.get("name", i)), path, module_class, list(entry.get("kwargs") or [])))
    names = [entry.name for entry in found]
    if len(set(names)) < len(names) or not all(name and "." not in name for name in names):
        raise ModelFormatError(
            f"{source.name}/{MODULES_FILE}: the names are {names}; expected different ones without '.'."
        )
    return found


def load_modules(source: Source, **kwargs: Any) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The modules by name, and the keyword arguments of `encode` that the folder lets each take."""
    entries = read_entries(source, bool(kwargs.get("trust_remote_code")))
    modules = {entry.name: load_module(entry.module_class, source.at(entry.path), kwargs) for entry in entries}
    first = next(iter(modules.values()))
    if not hasattr(first, "preprocess") and not hasattr(first, "tokenize"):
        raise ModelFormatError(
            f"{source.place(MODULES_FILE)}: the first module is a {type(first).__name__}; expected a reader of texts."
        )
    check_dimensions(entries, list(modules.values()), source)
    check_names(entries, list(modules.values()), source)
    return modules, {entry.name: entry.kwargs for entry in entries if entry.kwargs}


def check_dimensions(entries: list[Entry], modules: list[Any], source: Source) -> None:
    """Raise `ModelFormatError` if a module takes vectors of another size than the one before it gives."""
    size = None
    for entry, module in zip(entries, modules, strict=True):
        key = {"Pooling": "embedding_dimension", "Dense": "in_features"}.get(type(module).__name__)
        wanted = getattr(module, key, None) if key else None
        if None not in (size, wanted) and size != wanted:
            file = source.at(entry.path).place("config.json")
            raise ModelFormatError(f"{file}: {key} is {wanted}; expected {size}, the size of the vectors before it.")
        size = module.get_embedding_dimension() if hasattr(module, "get_embedding_dimension") else None


def check_names(entries: list[Entry], modules: list[Any], source: Source) -> None:
    """Raise `ModelFormatError` if a module writes an entry of the features that none reads.

    Models with modules from outside this library may use names of their own.
    """
    if any(is_foreign(type(module).forward, OWN) for module in modules):
        return
    for i, (entry, module) in enumerate(zip(entries, modules, strict=True)):
        name = getattr(module, "module_output_name", None)
        read = {getattr(later, "module_input_name", None) for later in modules[i + 1 :]}
        if name is not None and name not in FEATURES | read:
            raise ModelFormatError(
                f"{source.place(entry.path)}: module_output_name is {name!r}, which no later module reads; "
                f"expected one of {sorted(FEATURES)}."
            )
        name = getattr(module, "module_input_name", None)
        written = {getattr(earlier, "module_output_name", None) for earlier in modules[:i]}
        if name is not None and name not in FEATURES | written:
            raise ModelFormatError(
                f"{source.place(entry.path)}: module_input_name is {name!r}, which no earlier module writes; "
                f"expected one of {sorted(FEATURES)}."
            )
        if (
            type(module).__name__ == "SpladePooling"
            and i
            and getattr(modules[i - 1], TASK, None) == "feature-extraction"
        ):
            raise ModelFormatError(
                f"{source.place(entry.path)}: a SpladePooling reads scores of tokens, but the transformer before "
                f"it gives vectors: its settings file (sentence_bert_config.json) lacks {TASK}; expected 'fill-mask'."
            )


def check_plain(source: Source) -> None:
    """Raise `ModelFormatError` if a folder without `modules.json` has folders of modules: that file was lost."""
    part = Path(source.name, source.subfolder)
    if lost := sorted(
        path.parent.name for path in part.glob("*_*/config.json") if MODULE_FOLDER.match(path.parent.name)
    ):
        raise ModelFormatError(
            f"{source.place(MODULES_FILE)} is missing, but there are the modules {lost}. Fetch it again."
        )


def read_config(source: Source) -> dict[str, Any]:
    """Settings of the model as a whole; {} for folders from before they existed."""
    config = source.json(CONFIG_FILE) or {}
    check_settings(CONFIG_SHAPE, config, source.place(CONFIG_FILE))
    if not isinstance(dim := config.get("truncate_dim"), int | None) or isinstance(dim, bool):
        raise ModelFormatError(f"{source.place(CONFIG_FILE)}: truncate_dim is {dim!r:.80}; expected a whole number.")
    prompts = {name: text for name, text in (config.get("prompts") or {}).items() if text is not None}
    if "prompts" in config:
        config["prompts"] = prompts
    if (name := config.get("default_prompt_name")) is not None and name not in {"query", "document", *prompts}:
        raise ModelFormatError(
            f"{source.place(CONFIG_FILE)}: default_prompt_name is {name!r}; expected one of {sorted(prompts)}."
        )
    saved = (config.get("__version__") or {}).get("sentence_transformers", "0")
    if newer(saved):
        logger.warning("%s was saved by version %s of this library, newer than this one.", source.name, saved)
    return config


def newer(version: str) -> bool:
    """Whether a saved model's version of this library is newer than the running one; False if it cannot be read."""
    from packaging.version import InvalidVersion, Version

    from sentence_transformers import __version__

    try:
        return Version(version) > Version(__version__)
    except (InvalidVersion, TypeError):
        return False


def write(
    folder: Path,
    modules: dict[str, Any],
    config: dict[str, Any],
    module_kwargs: dict[str, list[str]],
    safe_serialization: bool,
) -> None:
    """Write the modules and the two JSON files into an existing folder."""
    entries = []
    for i, (name, given) in enumerate(modules.items()):
        module = getattr(given, "_orig_mod", given)  # inside of what `torch.compile` gives
        in_root = i == 0 and getattr(module, "save_in_root", False)
        path = "" if in_root else f"{i}_{type(module).__name__}"
        Path(folder, path).mkdir(exist_ok=True)
        save_module(module, Path(folder, path), safe_serialization)
        entry: dict[str, Any] = {"idx": i, "name": name, "path": path, "type": _names.saved_type(type(module))}
        if name in module_kwargs:
            entry["kwargs"] = module_kwargs[name]
        entries.append(entry)
        copy_code(module, folder)
    Path(folder, MODULES_FILE).write_text(json.dumps(entries, indent=2), encoding="utf-8")
    Path(folder, CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def copy_code(module: nn.Module, folder: Path) -> None:
    """For classes that came with a model, also inside a Router, put their files into the model's root folder.

    There, and only there, a type such as "file.Class" is looked for.
    """
    for module_class in {type(part) for part in module.modules()}:
        if module_class.__module__.startswith(_names.REMOTE):
            from transformers.dynamic_module_utils import custom_object_save

            custom_object_save(module_class, folder)
