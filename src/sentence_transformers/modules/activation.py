"""Activation functions in settings files: saved as the dotted name of their class, loaded only from torch.

A settings file comes from outside, and importing a name runs code. Names that begin with `torch.` and lead to an
`nn.Module` class are built; anything else needs `trust_remote_code=True`, else the default takes its place, with a
warning in the log. The class alone is saved: `nn.LeakyReLU(0.3)` comes back as `nn.LeakyReLU()`.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from sentence_transformers import _names
from sentence_transformers.errors import ModelFormatError

logger = logging.getLogger(__name__)

Activation = Callable[[Tensor], Tensor]


def activation_name(activation: Activation) -> str:
    """Dotted name of an activation's class, or of the function itself if it is a plain function."""
    thing: Any = type(activation) if isinstance(activation, nn.Module) else activation
    return f"{thing.__module__ or 'torch'}.{thing.__name__}"  # torch's own functions name no module


def activation_from_name(name: str, trust_remote_code: bool, default: Callable[[], Activation]) -> Activation:
    """The activation that a settings file names, or `default()` if the name is not to be trusted.

    Raises:
        ModelFormatError: if the name leads nowhere, or to something other than an `nn.Module` class in torch.
    """
    if known := _names.known_class(name):
        return known()
    if not trust_remote_code and not name.startswith("torch."):
        logger.warning(
            "The activation function %r is not part of torch and was replaced by the default, %s. "
            "Load with trust_remote_code=True if you trust its source.",
            name,
            activation_name(default()),
        )
        return default()
    found: Any = import_name(name)
    if not trust_remote_code and not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise ModelFormatError(
            f"The activation function {name!r} must be an nn.Module class unless trust_remote_code=True."
        )
    return found() if isinstance(found, type) else found


def import_name(name: str) -> Any:
    """The object behind a dotted name. This runs code: check first that the name is trusted."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelFormatError(f"The activation function {name!r} cannot be imported: {error}.") from error
