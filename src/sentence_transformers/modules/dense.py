"""Dense: one linear layer with an activation, applied to each text's or each token's vector.

    y = activation(x Wᵀ + b)                        W (out_features, in_features), b (out_features,)
    y = activation(x Wᵀ + b) + x                    with use_residual, if in_features = out_features
    y = activation(x Wᵀ + b) + x Rᵀ                 with use_residual otherwise; R (out_features, in_features)

x is the entry `module_input_name` of the features: "sentence_embedding" (B, H), or "token_embeddings", padded
(B, L, H) or packed (T, H). y goes to the entry `module_output_name`, by default the same one.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sentence_transformers.errors import ModelFormatError
from sentence_transformers.modules.activation import activation_from_name, activation_name
from sentence_transformers.modules.base import Module
from sentence_transformers.storage import settings, weights
from sentence_transformers.storage.files import Source

logger = logging.getLogger(__name__)


class Dense(Module):
    """A linear layer with an activation.

    Args:
        in_features: H of the input.
        out_features: H of the output.
        bias: whether b is added.
        activation_function: applied after the linear layer; None for none. Its class's dotted name is saved.
        init_weight: first value of W (out_features, in_features).
        init_bias: first value of b (out_features,).
        module_input_name: entry of the features that is read.
        module_output_name: entry of the features that is written; None for the one that is read.
        use_residual: add the input, by way of R if its dimension differs.
    """

    config_keys: ClassVar[list[str]] = [
        "in_features",
        "out_features",
        "bias",
        "activation_function",
        "module_input_name",
        "module_output_name",
        "use_residual",
    ]
    takes_packed = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation_function: Callable[[Tensor], Tensor] | None = nn.Tanh(),  # noqa: B008  (has no state)
        init_weight: Tensor | None = None,
        init_bias: Tensor | None = None,
        module_input_name: str = "sentence_embedding",
        module_output_name: str | None = None,
        use_residual: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.bias = bias
        self.activation_function = nn.Identity() if activation_function is None else activation_function
        self.module_input_name = module_input_name
        self.module_output_name = module_output_name or module_input_name
        self.use_residual = use_residual
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        if use_residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)
        with torch.no_grad():
            if init_weight is not None:
                self.linear.weight.copy_(init_weight)
            if init_bias is not None:
                self.linear.bias.copy_(init_bias)

    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        x = features[self.module_input_name]
        y = self.activation_function(self.linear(x))
        if self.use_residual:
            y = y + (self.residual(x) if self.in_features != self.out_features else x)
        features[self.module_output_name] = y
        return features

    def get_embedding_dimension(self) -> int:
        return self.out_features

    def get_config_dict(self) -> dict[str, Any]:
        config = super().get_config_dict() | {"activation_function": activation_name(self.activation_function)}
        if not self.use_residual:
            del config["use_residual"]
        return config

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs,
    ) -> Self:
        """Like `Module.load`; settings that the constructor does not know are left out with a warning.

        Args:
            trust_remote_code: build the activation function even if it lies outside torch.
        """
        source = Source(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        return cls.from_source(source, init_defaults, trust_remote_code, **kwargs)

    @classmethod
    def from_source(
        cls,
        source: Source,
        init_defaults: dict[str, Any] | None = None,
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> Self:
        """`load` from the place that its arguments name."""
        config = cls.load_config(source.name, source.subfolder, **source.hub_kwargs)
        config = known_settings(cls, config, where=source.name)
        if isinstance(name := config.get("activation_function"), str) and name:
            config["activation_function"] = activation_from_name(name, trust_remote_code, default=nn.Tanh)
        elif name is not None:
            file = source.place(cls.config_file_name)
            raise ModelFormatError(f"{file}: activation_function is {name!r:.80}; expected a dotted class name.")
        module = settings.construct(cls, config, source.place(cls.config_file_name), **init_defaults or {})
        weights.load_into(module, source)
        return module


def known_settings(cls: type, config: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings that are arguments of the constructor of `cls`; others are named in a warning."""
    known = inspect.signature(cls).parameters
    if surplus := sorted(config.keys() - known.keys()):
        logger.warning("Settings of %s in %s that it does not know are ignored: %s.", cls.__name__, where, surplus)
    return {key: value for key, value in config.items() if key in known}
