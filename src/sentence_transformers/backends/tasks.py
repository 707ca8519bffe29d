"""What a transformer is loaded for, and where its positions begin: the two tables that all backends share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple


class Task(NamedTuple):
    """What transformers computes it with, and what of its outputs is used.

    Attributes:
        auto_class: in transformers.
        output: the name of the output there, and in graphs.
        feature: its name among the features.
    """

    auto_class: str
    output: str
    feature: str


TASKS = {
    "feature-extraction": Task("AutoModel", "last_hidden_state", "token_embeddings"),
    "fill-mask": Task("AutoModelForMaskedLM", "logits", "token_embeddings"),
    "sequence-classification": Task("AutoModelForSequenceClassification", "logits", "scores"),
    "text-generation": Task("AutoModelForCausalLM", "logits", "causal_logits"),
}

BERT = ("bert",)
ROBERTA = ("roberta", "xlm-roberta", "camembert")
OFFSET_FAMILY = {
    *ROBERTA, "data2vec-text", "esm", "ibert", "lilt", "longformer", "luke", "mpnet", "roberta-prelayernorm",
    "xlm-roberta-xl", "xmod",
}  # fmt: skip


def position_offset(config: Any) -> int:
    """Position of a text's first token: padding_idx + 1 in the RoBERTa family, 0 elsewhere.

    Args:
        config: of a model, as transformers has it or as its file does.
    """
    get = config.get if isinstance(config, Mapping) else partial(getattr, config)
    return after_padding(get("pad_token_id", 1)) if get("model_type", None) in OFFSET_FAMILY else 0


def after_padding(padding_idx: int | None) -> int:
    """The first position behind that of padding."""
    return (padding_idx or 0) + 1
