"""What a run is made of, brought into the form that transformers' trainer takes: models, data sets, evaluators."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from sentence_transformers import _names
from sentence_transformers.encoders.base import BaseModel
from sentence_transformers.errors import InputError


def defaults_of(arguments: Any) -> dict[str, Any]:
    """The defaults of a class of arguments."""
    found = {}
    for entry in dataclasses.fields(arguments):
        if entry.default is not dataclasses.MISSING:
            found[entry.name] = entry.default
        elif entry.default_factory is not dataclasses.MISSING:
            found[entry.name] = entry.default_factory()
    return found


def prepare_for_training(model: Any) -> None:
    """Bring the transformers models into trainable form and prove how they compute, before anything wraps them."""
    for module in model.modules():
        if hasattr(module, "packs") and hasattr(module, "auto_model"):
            _ = module.auto_model
            _ = getattr(module, "packs_in_transformers", module.packs) or module.pads_safely


def is_encoder(module: Any) -> bool:
    """Whether a part of a loss is the model, or what wraps it."""
    while not isinstance(module, BaseModel) and isinstance(getattr(module, "module", None), nn.Module):
        module = module.module
    return isinstance(module, BaseModel)


def as_datasets(data: Any, argument: str) -> Any:
    """Data sets as transformers' trainer takes them; dictionaries stay dictionaries.

    Raises:
        InputError: naming the argument, for what is no data set; says what to do with lists of `InputExample`.
    """
    if data is None or isinstance(data, str):
        return data
    if isinstance(data, Mapping):
        if not data:
            raise InputError(f"{argument} is an empty dictionary.")
        return {name: as_datasets(part, f"{argument}[{name!r}]") for name, part in data.items()}
    if isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        from datasets import Dataset

        return Dataset.from_list(data)
    if hasattr(data, "column_names"):
        return data
    first = data[0] if isinstance(data, list) else next(iter(getattr(data, "examples", ())), None)
    examples = type(data).__module__.startswith("sentence_transformers.") or hasattr(first, "texts")
    raise InputError(
        f"{argument} is a {type(data).__name__}{f' of {type(first).__name__}' if first is not None else ''}, not a "
        "datasets.Dataset. Make one: datasets.Dataset.from_dict({'anchor': […], 'positive': […]})"
        + ("; or give train_dataloader=DataLoader(examples, batch_size=16)." if examples else ".")
    )


def needs_mapping(model: Any) -> bool:
    """Whether texts can go several ways through the model, and only their task says which."""
    routers = [part for part in model.modules() if hasattr(part, "sub_modules") and hasattr(part, "route_mappings")]
    return any(len(router.sub_modules) > 1 and not router.route_mappings for router in routers)


def names_in(data: tuple[Any, ...]) -> list[str]:
    """Names of data sets and of their columns."""
    parts = [dict(one) if isinstance(one, Mapping) else {None: one} for one in data if one is not None]
    found = [[name, *(getattr(part, "column_names", None) or ())] for some in parts for name, part in some.items()]
    return sorted({name for names in found for name in names if name is not None})


def unknown_names(setting: Mapping[str, Any], names: list[str]) -> list[str]:
    """Keys of a setting by column, or by data set and column, that are among no names."""
    keys = [*setting, *(key for part in setting.values() if isinstance(part, Mapping) for key in part)]
    return [key for key in keys if key not in names]


def why_untrainable(model: Any) -> str:
    """Why a model has no parameters to train."""
    backend = getattr(model, "backend", "torch")
    if backend != "torch":
        return f"The model was loaded with backend={backend!r}, a finished graph: load it with backend='torch'."
    return "Call requires_grad_(True) on the parts to train."


def as_evaluator(evaluator: Any) -> Any:
    """One evaluator of several."""
    if isinstance(evaluator, list | tuple):
        return _names.home("SequentialEvaluator")(evaluator)
    return evaluator
