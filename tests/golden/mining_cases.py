"""Hard negatives over made-up vectors: what is recorded from version 6.2.0 and compared here. Runs under both.

The model is a table of static vectors with one word per text, so the same in both libraries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

N = 24


def model() -> Any:
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    from sentence_transformers import SentenceTransformer

    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(3 * N)} | {"[UNK]": 3 * N}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    table = np.random.default_rng(5).normal(size=(3 * N + 1, 8)).astype(np.float32)
    table[N : 2 * N] = table[:N] + 0.9 * table[N : 2 * N]
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table)], device="cpu")


def pairs() -> dict[str, list[str]]:
    """Anchors with one positive each; two anchors have several."""
    anchors, positives = [f"w{i}" for i in range(N)], [f"w{N + i}" for i in range(N)]
    return {"query": [*anchors, "w0", "w0", "w3"], "answer": [*positives, "w30", "w31", "w25"]}


CORPUS = [f"w{i}" for i in range(2 * N, 3 * N)] + ["w25", "w26"]
PLAIN = {"verbose": False}
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "five": {"num_negatives": 5, "range_min": 2},
    "range": {"range_min": 3, "range_max": 9, "num_negatives": 2},
    "scores": {"num_negatives": 2, "output_scores": True},
    "max-score": {"max_score": 0.3, "num_negatives": 3},
    "min-score": {"min_score": 0.2, "num_negatives": 4},
    "absolute": {"absolute_margin": 0.1, "num_negatives": 3},
    "relative": {"relative_margin": 0.4, "num_negatives": 3, "range_max": 12},
    "corpus": {"corpus": CORPUS, "num_negatives": 3},
    "tuple": {"output_format": "n-tuple", "num_negatives": 3},
    "tuple-margin": {"output_format": "n-tuple", "num_negatives": 3, "absolute_margin": 0.2, "range_max": 6},
    "tuple-scores": {"output_format": "n-tuple", "num_negatives": 2, "output_scores": True},
    "pair": {"output_format": "labeled-pair", "num_negatives": 2},
    "pair-scores": {"output_format": "labeled-pair", "num_negatives": 2, "output_scores": True},
    "list": {"output_format": "labeled-list", "num_negatives": 2},
    "list-margin": {"output_format": "labeled-list", "num_negatives": 4, "max_score": 0.3, "range_max": 8},
    "list-scores": {"output_format": "labeled-list", "num_negatives": 2, "output_scores": True},
    "positives": {"include_positives": True, "num_negatives": 5, "output_format": "n-tuple"},
    "positives-list": {"include_positives": True, "num_negatives": 5, "output_format": "labeled-list"},
    "positives-list-scores": {
        "include_positives": True,
        "num_negatives": 5,
        "output_format": "labeled-list",
        "output_scores": True,
    },
    "named": {"anchor_column_name": "answer", "positive_column_name": "query", "num_negatives": 2},
    "all": {"range_max": 100, "num_negatives": 50},
}


def run(mine: Any, name: str) -> dict[str, Any]:
    """The mined columns; scores with five decimals."""
    from datasets import Dataset

    found = mine(Dataset.from_dict(pairs()), model(), **PLAIN, **CASES[name])
    return {column: rounded(list(found[column])) for column in found.column_names}


def rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value
