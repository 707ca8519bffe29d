"""LSTM: a recurrent network reads the tokens of a text in order, and from the end as well if bidirectional.

    y_t = [forward state after x_1 … x_t ; backward state after x_l … x_t]

`token_embeddings` padded (B, L, H) or packed (T, H) become (B, L, H') or (T, H') with H' = hidden_dim, twice that if
bidirectional. The backward state starts at the text's last token, never in the padding; padding positions become 0.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from sentence_transformers._deprecation import legacy
from sentence_transformers.modules.base import Module
from sentence_transformers.modules.by_length import map_texts


class LSTM(Module):
    """A recurrent network over tokens.

    Args:
        embedding_dimension: H.
        hidden_dim: size of the state in each direction.
        num_layers: layers on top of each other.
        dropout: probability with which numbers between layers are dropped while training.
        bidirectional: read from the end as well.
    """

    config_keys: ClassVar[list[str]] = ["embedding_dimension", "hidden_dim", "num_layers", "dropout", "bidirectional"]
    config_file_name = "lstm_config.json"
    config_key_renames: ClassVar[dict[str, str]] = {"word_embedding_dimension": "embedding_dimension"}
    takes_packed = True

    @legacy(word_embedding_dimension="embedding_dimension")
    def __init__(
        self,
        embedding_dimension: int,
        hidden_dim: int,
        num_layers: int = 1,
        dropout: float = 0,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        self.embedding_dimension = embedding_dimension
        self.hidden_dim = hidden_dim
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.embeddings_dimension = 2 * hidden_dim if bidirectional else hidden_dim
        self.encoder = nn.LSTM(
            embedding_dimension, hidden_dim, num_layers, dropout=dropout, bidirectional=bidirectional, batch_first=True
        )

    @property
    def dropout(self) -> float:
        """Probability of dropout between layers. May be set."""
        return self.encoder.dropout

    @dropout.setter
    def dropout(self, value: float) -> None:
        self.encoder.dropout = value

    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        return map_texts(features, lambda texts: self.encoder(texts)[0], self.embeddings_dimension)

    def get_embedding_dimension(self) -> int:
        return self.embeddings_dimension
