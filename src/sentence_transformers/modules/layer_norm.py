"""LayerNorm: each text's vector is shifted to mean 0 and scaled to variance 1, then given a learned scale and offset.

    y = (x − mean(x)) / √(var(x) + 1e-5) · w + b        mean and variance over the H numbers of one text

x is `sentence_embedding` (B, H), replaced by y; w and b are (H,). Tokens are not touched, so a batch may be packed.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from sentence_transformers.modules.base import Module


class LayerNorm(Module):
    """Normalise over the dimension of the embedding.

    Args:
        dimension: H.
    """

    config_keys: ClassVar[list[str]] = ["dimension"]
    takes_packed = True

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.norm = nn.LayerNorm(dimension)

    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        features["sentence_embedding"] = self.norm(features["sentence_embedding"])
        return features

    def get_embedding_dimension(self) -> int:
        return self.dimension
