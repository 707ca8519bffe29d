"""Triplets: the anchor nearer to its positive than to its negative, by a margin.

loss = mean max(d(a, p) − d(a, n) + margin, 0)                               Schroff et al. 2015
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.losses.base import Accepts, Loss, check_columns
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.pairs import name_of_distance
from sentence_transformers.similarity import pairwise_cos_sim, pairwise_euclidean_sim, pairwise_manhattan_sim


class TripletDistanceMetric(Enum):
    """Distances of pairs: (B, H), (B, H) -> (B,)."""

    COSINE = lambda x, y: 1 - pairwise_cos_sim(x, y)  # noqa: E731
    EUCLIDEAN = lambda x, y: -pairwise_euclidean_sim(x, y)  # noqa: E731
    MANHATTAN = lambda x, y: -pairwise_manhattan_sim(x, y)  # noqa: E731


class TripletLoss(Loss):
    """Triplets (formula above).

    Args:
        model: the model that is trained.
        distance_metric: a `TripletDistanceMetric`, or a function (B, H), (B, H) -> (B,).
        triplet_margin: how much nearer the positive should be.
    """

    citation = cites("hermans2017defense")
    accepts = (Accepts(("anchor", "positive", "negative")),)

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Callable[[Tensor, Tensor], Tensor] = TripletDistanceMetric.EUCLIDEAN,
        triplet_margin: float = 5,
    ) -> None:
        super().__init__(model)
        self.distance_metric, self.triplet_margin = distance_metric, triplet_margin

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        check_columns(embeddings, 3, 3, type(self).__name__)
        anchor, positive, negative = embeddings
        distances = self.distance_metric(anchor, positive) - self.distance_metric(anchor, negative)
        return F.relu(distances + self.triplet_margin).mean()

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "distance_metric": name_of_distance(self.distance_metric, TripletDistanceMetric),
            "triplet_margin": self.triplet_margin,
        }
