"""Global orthogonal regularisation: unrelated texts should lie like random directions.

For the B vectors of a column, with s_ij their similarities and d their dimension,

    mean            w_1 · (mean_{i≠j} s_ij)²
    second moment   w_2 · max(mean_{i≠j} s_ij² − 1/d, 0)

which are 0 for directions drawn at random. Zhang et al. 2017. Meant to be added to another loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.base import Loss
from sentence_transformers.losses.citations import cites
from sentence_transformers.similarity import cos_sim


class GlobalOrthogonalRegularizationLoss(Loss):
    """Spread unrelated texts (formulas above).

    Args:
        model: the model that is trained.
        similarity_fct: (B, H), (B, H) -> (B, B).
        mean_weight: w_1; None or 0 leaves the term out.
        second_moment_weight: w_2; None or 0 leaves the term out.
        aggregation: "mean" or "sum" over the columns.

    Returns:
        {"gor_mean": …, "gor_second_moment": …}, without the terms that are left out.
    """

    citation = cites("zhang2017learningspreadoutlocalfeature")
    config_keys: ClassVar[tuple[str, ...]] = ("similarity_fct", "mean_weight", "second_moment_weight", "aggregation")

    def __init__(
        self,
        model: nn.Module,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        mean_weight: float | None = 1.0,
        second_moment_weight: float | None = 1.0,
        aggregation: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__(model)
        if aggregation not in ("mean", "sum"):
            raise InputError(f"aggregation must be 'mean' or 'sum', got {aggregation!r}.")
        if not mean_weight and not second_moment_weight:
            raise InputError("At least one of mean_weight and second_moment_weight must not be 0 or None.")
        self.similarity_fct, self.aggregation = similarity_fct, aggregation
        self.mean_weight, self.second_moment_weight = mean_weight, second_moment_weight

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> dict[str, Tensor]:
        terms = [torch.stack(part) for part in zip(*(self.compute_gor(column) for column in embeddings), strict=True)]
        mean, moment = (part.mean() if self.aggregation == "mean" else part.sum() for part in terms)
        named = {}
        if self.mean_weight:
            named["gor_mean"] = self.mean_weight * mean
        if self.second_moment_weight:
            named["gor_second_moment"] = self.second_moment_weight * moment
        return named

    def compute_gor(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H) -> both terms, without their weights."""
        count, dimension = embeddings.shape
        if count < 2:
            raise InputError(f"{type(self).__name__} needs at least 2 texts in a batch, got {count}.")
        similarities = self.similarity_fct(embeddings, embeddings)
        others = similarities[~torch.eye(count, dtype=torch.bool, device=similarities.device)]
        return others.mean() ** 2, F.relu((others**2).mean() - 1 / dimension)
