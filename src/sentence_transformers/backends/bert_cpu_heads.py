"""What may sit on top of a BERT-family encoder, computed without transformers.

    classification   tanh(x₁ · W₁ + b₁) · W₂ + b₂            x₁ the first token of each text      (B, labels)
    vocabulary       LayerNorm(gelu(x · W + b)) · Eᵀ + c      E the word embeddings                (T, V), deferred

The families name the same weights differently: `HEADS` has the names. Devlin et al. 2019.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sentence_transformers.backends.deferred_logits import VocabularyRows
from sentence_transformers.backends.tasks import BERT, ROBERTA, TASKS


class HeadNames(NamedTuple):
    """Names of a head's weights in the order of its formula; `labels` is the matrix with one row per label."""

    names: tuple[str, ...]
    labels: str | None = None


CLASSIFIER_BERT = HeadNames(
    ("pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"), "classifier.weight"
)
CLASSIFIER_ROBERTA = HeadNames(
    ("classifier.dense.weight", "classifier.dense.bias", "classifier.out_proj.weight", "classifier.out_proj.bias"),
    "classifier.out_proj.weight",
)
VOCABULARY_BERT = HeadNames(
    (
        *(f"cls.predictions.transform.{part}" for part in ("dense.weight", "dense.bias")),
        *(f"cls.predictions.transform.LayerNorm.{part}" for part in ("weight", "bias")),
        "cls.predictions.bias",
    )
)
VOCABULARY_ROBERTA = HeadNames(
    (
        *(f"lm_head.dense.{part}" for part in ("weight", "bias")),
        *(f"lm_head.layer_norm.{part}" for part in ("weight", "bias")),
        "lm_head.bias",
    )
)

# Auto class in transformers -> family -> names
HEADS: dict[str, dict[str, HeadNames]] = {
    TASKS["feature-extraction"].auto_class: {family: HeadNames(()) for family in BERT + ROBERTA},
    TASKS["sequence-classification"].auto_class: {
        **dict.fromkeys(BERT, CLASSIFIER_BERT),
        **dict.fromkeys(ROBERTA, CLASSIFIER_ROBERTA),
    },
    TASKS["fill-mask"].auto_class: {
        **dict.fromkeys(BERT, VOCABULARY_BERT),
        **dict.fromkeys(ROBERTA, VOCABULARY_ROBERTA),
    },
}


def classify(first: Tensor, weights: list[Tensor]) -> Tensor:
    """(B, H) first tokens -> (B, labels)."""
    inner, inner_bias, outer, outer_bias = weights
    return F.linear(torch.tanh(F.linear(first, inner, inner_bias)), outer, outer_bias)


def to_vocabulary(rows: Tensor, weights: list[Tensor], words: Tensor, epsilon: float) -> VocabularyRows:
    """(T, H) -> logits (T, V), not computed yet.

    Args:
        words: (V, H) the word embeddings.
    """
    inner, inner_bias, scale, shift, bias = weights
    hidden = F.gelu(F.linear(rows, inner, inner_bias))
    return VocabularyRows(F.layer_norm(hidden, (rows.shape[1],), scale, shift, epsilon), words, bias)
