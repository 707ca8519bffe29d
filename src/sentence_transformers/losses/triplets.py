"""Triplets: the anchor nearer to its positive than to its negative, by a margin.

    loss = mean max(d(a, p) − d(a, n) + margin, 0)                                          Schroff et al. 2015

Or triplets found in the batch: texts with a class label, every one an anchor. With D the (B, B) distances, P_i the
other texts of anchor i's class and N_i those of other classes:

    all          mean of the positive ones of D_ip − D_in + margin over all p ∈ P_i, n ∈ N_i
    hard         mean over i of  max(max_p D_ip − min_n D_in + margin, 0)
    soft margin  mean over i of  log(1 + exp(max_p D_ip − min_n D_in))
    semi-hard    for each (i, p) the nearest n that is farther than p, or the farthest n if there is none:
                 mean over (i, p) of  max(D_ip − D_in + margin, 0)

Hermans et al. 2017; Schroff et al. 2015. Batches need two texts of a class at least: use the sampler GROUP_BY_LABEL.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.losses.base import Accepts, Loss, check_columns, check_labels
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.pairs import name_of_distance
from sentence_transformers.similarity import cos_sim, pairwise_cos_sim, pairwise_euclidean_sim, pairwise_manhattan_sim

Distance = Callable[[Tensor], Tensor]
TINY = 1e-16


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


class BatchHardTripletLossDistanceFunction:
    """Distances of all pairs: (B, H) -> (B, B)."""

    @staticmethod
    def cosine_distance(embeddings: Tensor) -> Tensor:
        """1 − cosine."""
        return 1 - cos_sim(embeddings, embeddings)

    @staticmethod
    def euclidean_distance(embeddings: Tensor, squared: bool = False) -> Tensor:
        """Length of the difference; its gradient is 0 where two vectors are equal."""
        products = embeddings @ embeddings.T
        squares = products.diag()
        distances = (squares[None, :] - 2 * products + squares[:, None]).clamp(min=0)
        if squared:
            return distances
        equal = (distances == 0).to(distances.dtype)
        return (1 - equal) * (distances + equal * TINY).sqrt()

    eucledian_distance = euclidean_distance


def same_class(labels: Tensor) -> Tensor:
    """(B, B) bool."""
    return labels.view(-1)[:, None] == labels.view(-1)[None, :]


def hardest(distances: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, B) -> (B,) distance of the farthest text of the own class, (B,) of the nearest of another."""
    others = ~torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    same = same_class(labels)
    farthest = (distances * (same & others)).amax(1)
    nearest = (distances + distances.amax(1, keepdim=True) * same).amin(1)
    return farthest, nearest


class _BatchTriplets(Loss):
    """What the losses of this module share: one column, a class per text, distances of all pairs."""

    citation = cites("hermans2017defense")
    accepts = (Accepts(("text",), "class"),)
    other_names: ClassVar[dict[str, str]] = {"sentence_embedder": "model"}

    def __init__(self, model: nn.Module, distance_metric: Distance, margin: float | None = None) -> None:
        super().__init__(model)
        self.distance_metric = distance_metric
        self.triplet_margin: Any = margin

    def of_distances(self, distances: Tensor, labels: Tensor) -> Tensor:
        """(B, B), (B,) -> scalar."""
        raise TypeError(f"{type(self).__name__} must define of_distances(distances, labels).")

    def _of(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        return self.of_distances(self.distance_metric(embeddings), labels.view(-1))

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        check_columns(embeddings, 1, 1, type(self).__name__)
        return self._of(
            check_labels(labels, len(embeddings[0]), type(self).__name__, "a class per text"), embeddings[0]
        )

    def get_config_dict(self) -> dict[str, Any]:
        margin = {} if self.triplet_margin is None else {"margin": self.triplet_margin}
        return {"distance_metric": getattr(self.distance_metric, "__name__", repr(self.distance_metric))} | margin


class BatchAllTripletLoss(_BatchTriplets):
    """All triplets of the batch that cost anything (formula above).

    Args:
        model: the model that is trained.
        distance_metric: (B, H) -> (B, B).
        margin: how much nearer positives should be.
    """

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Distance = BatchHardTripletLossDistanceFunction.euclidean_distance,
        margin: float = 5,
    ) -> None:
        super().__init__(model, distance_metric, margin)

    def of_distances(self, distances: Tensor, labels: Tensor) -> Tensor:
        mask = BatchHardTripletLoss.get_triplet_mask(labels)
        losses = F.relu((distances[:, :, None] - distances[:, None, :] + self.triplet_margin) * mask)
        return losses.sum() / ((losses > TINY).sum() + TINY)

    def batch_all_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        """The loss of (B, H) vectors with (B,) classes."""
        return self._of(labels, embeddings)


class BatchHardTripletLoss(_BatchTriplets):
    """The hardest triplet of each anchor (formula above).

    Args:
        model: the model that is trained.
        distance_metric: (B, H) -> (B, B).
        margin: how much nearer positives should be.
    """

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Distance = BatchHardTripletLossDistanceFunction.euclidean_distance,
        margin: float | None = 5,
    ) -> None:
        super().__init__(model, distance_metric, margin)

    def of_distances(self, distances: Tensor, labels: Tensor) -> Tensor:
        farthest, nearest = hardest(distances, labels)
        return F.relu(farthest - nearest + self.triplet_margin).mean()

    def batch_hard_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        """The loss of (B, H) vectors with (B,) classes."""
        return self._of(labels, embeddings)

    @staticmethod
    def get_triplet_mask(labels: Tensor) -> Tensor:
        """(B, B, B) bool: whether i, p, n are an anchor, another text of its class, and one of another class."""
        positive = BatchHardTripletLoss.get_anchor_positive_triplet_mask(labels)
        return positive[:, :, None] & ~same_class(labels)[:, None, :]

    @staticmethod
    def get_anchor_positive_triplet_mask(labels: Tensor) -> Tensor:
        """(B, B) bool: different texts of one class."""
        return same_class(labels) & ~torch.eye(labels.numel(), dtype=torch.bool, device=labels.device)

    @staticmethod
    def get_anchor_negative_triplet_mask(labels: Tensor) -> Tensor:
        """(B, B) bool: texts of different classes."""
        return ~same_class(labels)


class BatchHardSoftMarginTripletLoss(BatchHardTripletLoss):
    """The hardest triplet of each anchor, without a margin to set (formula above).

    Args:
        model: the model that is trained.
        distance_metric: (B, H) -> (B, B).
    """

    def __init__(
        self, model: nn.Module, distance_metric: Distance = BatchHardTripletLossDistanceFunction.euclidean_distance
    ) -> None:
        super().__init__(model, distance_metric, None)

    def of_distances(self, distances: Tensor, labels: Tensor) -> Tensor:
        farthest, nearest = hardest(distances, labels)
        return F.softplus(farthest - nearest).mean()

    def batch_hard_triplet_soft_margin_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        """The loss of (B, H) vectors with (B,) classes."""
        return self._of(labels, embeddings)


class BatchSemiHardTripletLoss(_BatchTriplets):
    """Semi-hard triplets: for each anchor and positive one negative (formula above).

    Args:
        model: the model that is trained.
        distance_metric: (B, H) -> (B, B).
        margin: how much nearer positives should be.
    """

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Distance = BatchHardTripletLossDistanceFunction.euclidean_distance,
        margin: float = 5,
    ) -> None:
        super().__init__(model, distance_metric, margin)
        self.margin = margin

    def of_distances(self, distances: Tensor, labels: Tensor) -> Tensor:
        negative = ~same_class(labels)
        inside = (distances * negative).amax(1, keepdim=True)  # farthest negative of each anchor
        farther = negative[:, None, :] & (distances[:, None, :] > distances[:, :, None])  # (anchor, positive, negative)
        nearest = distances[:, None, :].masked_fill(~farther, torch.inf).amin(2)
        chosen = torch.where(farther.any(2), nearest, inside)
        positive = BatchHardTripletLoss.get_anchor_positive_triplet_mask(labels)
        return (F.relu(distances - chosen + self.margin) * positive).sum() / positive.sum().clamp(min=TINY)

    def batch_semi_hard_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        """The loss of (B, H) vectors with (B,) classes."""
        return self._of(labels, embeddings)
