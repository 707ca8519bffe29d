"""Similarities of pairs of texts by several functions, and what the evaluators that need them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.evaluation.base import EmbeddingEvaluator
from sentence_transformers.protocols import SearchEncoder
from sentence_transformers.similarity import SimilarityFunction, named_function
from sentence_transformers.util.tensor import ArrayLike, to_tensor

DISTANCES = ("manhattan", "euclidean")  # similarities are negative distances; distances are reported


class SimilaritiesEvaluator(EmbeddingEvaluator):
    """An evaluator that reports one or more similarities of pairs.

    Attributes:
        primary_kind: the primary metric, {} for the name of a similarity.
        csv_headers: the first line of the CSV file, of the similarities of the last call.
    """

    primary_kind: ClassVar[str]
    csv_headers: list[str]
    _asked: list[str]
    _reported: tuple[str, ...] = ()

    @property
    def similarity_fn_names(self) -> list[str]:
        """The similarities that were asked for; if none were, those of the last call."""
        return self._asked or list(self._reported)

    @similarity_fn_names.setter
    def similarity_fn_names(self, names: Sequence[Any] | None) -> None:
        self._asked = check_names(names)

    @property
    def main_name(self) -> str | None:
        """The similarity of the primary metric, if one was asked for."""
        return None

    def headers(self, names: Sequence[str]) -> list[str]:
        """The first line of the CSV file."""
        raise TypeError(f"{type(self).__name__} must define headers(names).")

    def names(self, model: SearchEncoder | None = None) -> list[str]:
        """The similarities to report: those asked for, the main one among them; else the model's own.

        Args:
            model: the model that is measured; before any is, there may be no names.
        """
        names = list(self._asked)
        if self.main_name is not None and self.main_name not in names:
            names.append(self.main_name)
        if not names and model is not None:
            names = [model.similarity_fn_name]
        self._reported, self.csv_headers = tuple(names), self.headers(names)
        if names:
            self.find_primary(self.primary_kind.format(self.main_name or (names[0] if len(names) == 1 else "max")))
        return names

    def pair_scores(self, model: SearchEncoder, first: ArrayLike, second: ArrayLike, name: str) -> np.ndarray:
        """(B, H), (B, H) -> (B,), greater is more alike; by the model's own method if no similarity was asked for."""
        pairwise = SimilarityFunction.to_similarity_pairwise_fn(name)
        if not self._asked and self.main_name is None and hasattr(model, "similarity_pairwise"):
            pairwise = named_function(model.similarity_pairwise)
        return to_tensor(pairwise(first, second)).detach().float().cpu().numpy()


def check_names(names: Sequence[Any] | None) -> list[str]:
    """Names of similarities as plain text; `ValueError` for unknown ones."""
    return [SimilarityFunction(name).value for name in names or []]


def rows_at(embeddings: np.ndarray | Tensor, numbers: Sequence[int]) -> np.ndarray | Tensor:
    """Rows of an array, or of a dense or sparse tensor."""
    if isinstance(embeddings, Tensor):
        return embeddings.index_select(0, torch.tensor(numbers, device=embeddings.device))
    return embeddings[list(numbers)]
