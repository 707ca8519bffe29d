"""WeightedLayerPooling: a learned weighted mean over the layers of a transformer, token by token.

    y = Σ_i w_i x_i / Σ_i w_i        i = layer_start … num_hidden_layers

x_i is the output of layer i, entry i of `all_layer_embeddings`; x_0 is the embedding layer. Each is padded (B, L, H)
or packed (T, H), and y, of the same shape, becomes `token_embeddings`. There are num_hidden_layers + 1 − layer_start
weights w; they begin as ones, which is the plain mean, and may take any sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sentence_transformers._deprecation import legacy
from sentence_transformers.errors import InputError
from sentence_transformers.modules.base import Module


class WeightedLayerPooling(Module):
    """Weighted mean over the last layers.

    Args:
        embedding_dimension: H.
        num_hidden_layers: layers of the transformer, not counting the embedding layer.
        layer_start: first layer that counts; 0 is the embedding layer.
        layer_weights: first value of w; ones if None.
    """

    config_keys: ClassVar[list[str]] = ["embedding_dimension", "layer_start", "num_hidden_layers"]
    config_key_renames: ClassVar[dict[str, str]] = {"word_embedding_dimension": "embedding_dimension"}
    takes_packed = True

    @legacy(word_embedding_dimension="embedding_dimension")
    def __init__(
        self,
        embedding_dimension: int,
        num_hidden_layers: int = 12,
        layer_start: int = 4,
        layer_weights: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.embedding_dimension = embedding_dimension
        self.num_hidden_layers = num_hidden_layers
        self.layer_start = layer_start
        if layer_weights is None:
            layer_weights = torch.ones(num_hidden_layers + 1 - layer_start)
        self.layer_weights = nn.Parameter(torch.as_tensor(layer_weights, dtype=torch.float32))

    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        layers = features["all_layer_embeddings"][self.layer_start :]
        if len(layers) != len(self.layer_weights):
            raise InputError(
                f"WeightedLayerPooling has {len(self.layer_weights)} weights, but all_layer_embeddings holds "
                f"{len(layers)} layers from layer_start={self.layer_start} on. "
                f"Set num_hidden_layers={len(layers) + self.layer_start - 1}."
            )
        total = sum(weight * layer for weight, layer in zip(self.layer_weights, layers, strict=True))
        features["token_embeddings"] = total / self.layer_weights.sum()
        return features

    def get_embedding_dimension(self) -> int:
        return self.embedding_dimension
