"""Similarities of pairs of texts by several functions, for the evaluators that need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.similarity import SimilarityFunction

DISTANCES = ("manhattan", "euclidean")  # similarities are negative distances; distances are reported


def names_of(names: Sequence[str] | None, model: Any) -> list[str]:
    """The similarities to report: those asked for, else the model's own."""
    return list(names) if names else [model.similarity_fn_name]


def check_names(names: Sequence[Any] | None) -> list[str]:
    """Names of similarities as plain text; `ValueError` for unknown ones."""
    return [SimilarityFunction(name).value for name in names or []]


def pair_scores(first: Any, second: Any, name: str) -> np.ndarray:
    """(B, H), (B, H) -> (B,), greater is more alike."""
    return SimilarityFunction.to_similarity_pairwise_fn(name)(first, second).cpu().numpy()


def rows_at(embeddings: Any, numbers: Sequence[int]) -> Any:
    """Rows of an array, or of a dense or sparse tensor."""
    if isinstance(embeddings, Tensor):
        return embeddings.index_select(0, torch.tensor(numbers, device=embeddings.device))
    return embeddings[list(numbers)]
