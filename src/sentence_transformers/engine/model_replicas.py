"""Computing somewhere else than where a model lies, while others go on using it.

A call that names another device gets a copy of the model there, made for the call: the copy's weights are moved ones,
settings and hooks are as the model has them. The model itself is not touched, as another thread may be
computing with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.util.tensor import module_device

M = TypeVar("M", bound=nn.Module)
SHARED = ("tokenizer", "_tokenizer", "processor", "_processor", "_card")
"""Attributes of modules that a copy has in common with them: large, and nothing of them lies on a device."""


def on_device(model: M, device: str | torch.device | None) -> M:
    """The model, if it lies on `device` (None: wherever it is), else a copy there.

    Raises:
        InputError: if the model is spread over several devices.
    """
    if device is None or lies_on(model, place := torch.device(device)):
        return model
    if any(getattr(part, "hf_device_map", None) is not None for part in model.modules()):
        raise InputError(
            f"This model is spread over devices (device_map), so it cannot be computed on {device} alone. "
            "Leave device out, or load the model without device_map."
        )
    return copy_with(model, lambda weight: weight.to(place))


def copy_with(model: M, moved: Callable[[Tensor], Tensor]) -> M:
    """A copy of a model with other weights and buffers: `moved` makes each of the detached one of the model."""
    memo: dict[int, Any] = {}
    for part in model.modules():
        memo |= {id(vars(part)[name]): vars(part)[name] for name in SHARED if vars(part).get(name) is not None}
        for weight in part._parameters.values():
            if weight is not None and id(weight) not in memo:
                memo[id(weight)] = nn.Parameter(moved(weight.detach()), weight.requires_grad)
        for buffer in part._buffers.values():
            if buffer is not None and id(buffer) not in memo:
                memo[id(buffer)] = moved(buffer.detach())
    return copy.deepcopy(model, memo)


def lies_on(model: nn.Module, device: torch.device) -> bool:
    """Whether the model is on `device`; one without weights is everywhere."""
    if next(model.parameters(), next(model.buffers(), None)) is None:
        return True
    here = module_device(model)
    return here.type == device.type and (device.index is None or here.index in (device.index, None))
