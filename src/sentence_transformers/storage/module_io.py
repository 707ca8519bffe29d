"""Loading and saving one module, of today's kind or of an older one."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_transformers.errors import ModelFormatError
from sentence_transformers.storage.files import Source, load_dir_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers.modules.base import Module


def accepts(function: Callable[..., Any], name: str) -> bool:
    """Whether a callable takes the keyword argument `name` (by name or through **kwargs)."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)


def save_module(module: Module, folder: Path, safe_serialization: bool) -> None:
    """Save a module, also one from before `safe_serialization` existed."""
    if accepts(module.save, "safe_serialization"):
        module.save(str(folder), safe_serialization=safe_serialization)
    else:
        module.save(str(folder))


def load_module(module_class: type[Module], source: Source, kwargs: dict[str, Any]) -> Any:
    """Load a module through today's `load(name, subfolder=…)`, or through the older `load(folder)`."""
    if accepts(module_class.load, "subfolder"):
        hub = source.hub_kwargs
        extra = {key: value for key, value in kwargs.items() if accepts(module_class.load, key)}
        return module_class.load(source.name, subfolder=source.subfolder, **(hub | extra))
    folder = load_dir_path(source.name, source.subfolder, **source.hub_kwargs)
    if folder is None:
        raise ModelFormatError(f"{source.name} has no folder {source.subfolder!r} for {module_class.__name__}.")
    return module_class.load(folder)
