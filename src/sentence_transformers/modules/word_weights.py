"""WordWeights: each token's vector is scaled by a weight of its word, e.g. the inverse document frequency.

    y_t = w(token_t) · x_t        token_weights_sum = Σ_t w(token_t), over the tokens of one text

`token_embeddings` padded (B, L, H) or packed (T, H) are scaled; `token_weights_sum` (B,) is what a mean pooling
divides by. The weights (V, 1) are trained with the model. Padding weighs 0. Words are looked up by `input_ids`, so
`vocab` must be in the order of the tokenizer's ids.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sentence_transformers.modules.base import Module
from sentence_transformers.util.tensor import repad_flattened_features

logger = logging.getLogger(__name__)


class WordWeights(Module):
    """Weigh tokens by word.

    Args:
        vocab: V words; the place of a word is its token id.
        word_weights: weight of each word; those in lower case count for other spellings too.
        unknown_word_weight: weight of the words of `vocab` that `word_weights` leaves out.
    """

    config_keys: ClassVar[list[str]] = ["vocab", "word_weights", "unknown_word_weight"]
    takes_packed = True

    def __init__(self, vocab: Sequence[str], word_weights: Mapping[str, float], unknown_word_weight: float = 1) -> None:
        super().__init__()
        self.vocab = vocab
        self.word_weights = word_weights
        self.unknown_word_weight = unknown_word_weight
        weights = torch.tensor(weights_of(vocab, word_weights, unknown_word_weight), dtype=torch.float32)
        self.emb_layer = nn.Embedding.from_pretrained(weights[:, None], freeze=False)

    def forward(self, features: dict[str, Tensor | Any], **kwargs) -> dict[str, Tensor | Any]:
        features = repad_flattened_features(features)
        weights = self.emb_layer(features["input_ids"]).squeeze(-1)  # (T,) or (B, L)
        if (packing := features.get("packing")) is not None:
            total = weights.new_zeros(len(packing)).index_add(0, packing.sequence_ids, weights)
        else:
            weights = weights * features["attention_mask"]
            total = weights.sum(1)
        tokens = features["token_embeddings"]
        features["token_embeddings"] = tokens * weights.to(tokens.dtype).unsqueeze(-1)
        features["token_weights_sum"] = total
        return features


def weights_of(vocab: Sequence[str], word_weights: Mapping[str, float], unknown: float) -> list[float]:
    """(V,) weight of each word, under its own spelling or in lower case; `unknown` for the others."""
    found = [word_weights.get(word, word_weights.get(word.lower())) for word in vocab]
    if missing := found.count(None):
        logger.info("%d of %d words have no weight and get %s.", missing, len(found), unknown)
    return [unknown if weight is None else weight for weight in found]
