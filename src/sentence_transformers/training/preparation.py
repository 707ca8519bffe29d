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


def as_datasets(data: Any) -> Any:
    """Data sets as transformers' trainer takes them; dictionaries stay dictionaries."""
    if isinstance(data, Mapping):
        if not data:
            raise InputError("The dictionary of data sets is empty.")
        return dict(data)
    if isinstance(data, list):
        from datasets import Dataset

        return Dataset.from_list(data)
    return data


def as_evaluator(evaluator: Any) -> Any:
    """One evaluator of several."""
    if isinstance(evaluator, list | tuple):
        return _names.home("SequentialEvaluator")(evaluator)
    return evaluator
