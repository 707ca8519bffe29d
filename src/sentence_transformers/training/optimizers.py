"""What is trained: the model in its trainable form, its parameters and those of the loss, in groups.

Parameters of the model and of the loss (a classifier on top, a learned scale) are trained together. A group has one
learning rate and decays or does not; biases and the weights of normalisation never decay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from sentence_transformers.encoders.base import BaseModel
from sentence_transformers.errors import InputError
from sentence_transformers.util.environment import is_dist_initialized


def loss_parameters(losses: Iterable[nn.Module], model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters of the losses that are not the model's, by name."""
    own = {id(parameter) for parameter in model.parameters()}
    found: dict[str, nn.Parameter] = {}
    for loss in losses:
        inside = {id(p) for part in loss.modules() if hasattr(part, "preprocess") for p in part.parameters()}
        for name, parameter in loss.named_parameters():
            belongs = id(parameter) in own or (id(parameter) in inside and not getattr(loss, "trains_copies", False))
            if parameter.requires_grad and not belongs and not any(parameter is p for p in found.values()):
                found[f"loss.{name}"] = parameter
    return found


def parameter_groups(
    parameters: dict[str, nn.Parameter], decaying: Iterable[str], weight_decay: float, rates: dict[str, float]
) -> list[dict[str, Any]]:
    """Parameters as groups for an optimizer.

    Args:
        parameters: all that are trained, by name.
        decaying: names of those that decay.
        rates: pattern -> learning rate; the last pattern found in a name wins.

    Returns:
        Those that decay and those that do not, each in the order given, without a rate of their own; then, for each
        pattern, the same two with its rate, if any name of that kind has the pattern.

    Raises:
        InputError: for a pattern that is in no name.
    """
    decays = set(decaying)
    groups: dict[tuple[str | None, bool], dict[str, Any]] = {}
    for pattern, rate in [(None, None), *rates.items()]:
        found = {name in decays for name in parameters if pattern is None or re.search(pattern, name)}
        if not found and pattern is not None:
            raise InputError(f"learning_rate_mapping: no trained parameter has {pattern!r} in its name; "
                             f"there are {', '.join(list(parameters)[:5])}, …")  # fmt: skip
        for decay in (True, False):
            if pattern is None or decay in found:
                group = {"params": [], "weight_decay": weight_decay if decay else 0.0}
                groups[pattern, decay] = group if rate is None else group | {"lr": rate}
    for name, parameter in parameters.items():
        pattern = next((pattern for pattern in reversed(rates) if re.search(pattern, name)), None)
        groups[pattern, name in decays]["params"].append(parameter)
    return list(groups.values())


def forget_gradients(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Mean of the gradients over all processes, for parameters that no wrapper takes care of."""
    if not is_dist_initialized() or dist.get_world_size() == 1:
        return
    for parameter in parameters:
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        dist.all_reduce(gradient)
        parameter.grad = gradient / dist.get_world_size()


def why_untrainable(model: nn.Module) -> str:
    """Why a model has no parameters to train."""
    backend = getattr(model, "backend", "torch")
    if backend != "torch":
        return f"The model was loaded with backend={backend!r}, a finished graph: load it with backend='torch'."
    return "Call requires_grad_(True) on the parts to train."


def prepare_for_training(model: nn.Module) -> None:
    """Bring the transformers models into trainable form and prove how they compute, before anything wraps them."""
    for module in model.modules():
        if hasattr(module, "packs") and hasattr(module, "auto_model"):
            _ = module.auto_model
            _ = getattr(module, "packs_in_transformers", module.packs) or module.pads_safely


def is_encoder(module: nn.Module) -> bool:
    """Whether a part of a loss is the model, or what wraps it."""
    while not isinstance(module, BaseModel) and isinstance(inner := getattr(module, "module", None), nn.Module):
        module = inner
    return isinstance(module, BaseModel)
