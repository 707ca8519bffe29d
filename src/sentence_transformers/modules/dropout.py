"""Dropout: while training, each number of `sentence_embedding` (B, H) is set to 0 with probability p.

    y = x · m / (1 − p)        m (B, H), independent, 1 with probability 1 − p, else 0

so that the expected value stays x. In evaluation mode y = x. Tokens are not touched, so a batch may be packed.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from sentence_transformers.modules.base import Module


class Dropout(Module):
    """Drop numbers of the embedding at random while training.

    Args:
        dropout: p.
    """

    config_keys: ClassVar[list[str]] = ["dropout"]
    takes_packed = True

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout_layer = nn.Dropout(dropout)

    @property
    def dropout(self) -> float:
        """p. May be set."""
        return self.dropout_layer.p

    @dropout.setter
    def dropout(self, value: float) -> None:
        self.dropout_layer.p = value

    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        features["sentence_embedding"] = self.dropout_layer(features["sentence_embedding"])
        return features
