"""Losses of pairs of texts with a label: how alike they are, or whether they belong together.

CoSENT        log(1 + Σ exp(s_j − s_i))  over rows with label_i > label_j,  s = scale · sim(a, b)       Su 2022
AnglE         the same, with the similarity of angles in complex space                        Li & Li 2023
cosine        loss(transform(cos(a, b)), label)                                  Reimers & Gurevych 2019
contrastive   ½ (y d² + (1 − y) max(m − d, 0)²),  d a distance                      Hadsell et al. 2006
online        the same, over hard pairs alone: positives farther apart than the nearest negatives, and the reverse
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.base import Accepts, Loss, check_columns, check_labels
from sentence_transformers.losses.citations import cites
from sentence_transformers.similarity import pairwise_angle_sim, pairwise_cos_sim
from sentence_transformers.util.misc import fullname

SCORED_PAIRS: tuple[Accepts, ...] = (Accepts(("sentence_A", "sentence_B"), "score"),)
BINARY_PAIRS = (Accepts(("anchor", "positive/negative"), "class"), Accepts(("anchor", "positive/negative"), "score"))


def cosent(scores: Tensor, labels: Tensor) -> Tensor:
    """log(1 + Σ exp(s_j − s_i)) over all i, j with label_i > label_j, in O(B log B).

    Args:
        scores: float of shape (B,).
        labels: (B,).

    With rows in the order of rising labels, Σ_j exp(s_j) over smaller labels is a running sum; rows of equal labels
    share the sum at the beginning of their run.
    """
    scores, labels = scores.float(), labels.reshape(-1)
    order = torch.argsort(labels, stable=True)
    scores, labels = scores[order], labels[order]
    # the pairs are (i, j): a text pair j with a smaller label should have the smaller score
    running = torch.logcumsumexp(scores, 0)
    smaller = torch.searchsorted(labels.contiguous(), labels.contiguous(), side="left")
    has = smaller > 0
    below = running[(smaller - 1).clamp(min=0)]
    terms = torch.cat([scores.new_zeros(1), (below - scores)[has]])
    return terms.logsumexp(0)


class CoSENTLoss(Loss):
    """The order of similarities should be that of the labels (formula above).

    Args:
        model: the model that is trained.
        scale: factor of the similarities; 1 / temperature.
        similarity_fct: (B, H), (B, H) -> (B,).
    """

    citation = cites("10531646")
    accepts: tuple[Accepts, ...] = SCORED_PAIRS
    config_keys: ClassVar[tuple[str, ...]] = ("scale", "similarity_fct")

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = pairwise_cos_sim,
    ) -> None:
        super().__init__(model)
        self.scale, self.similarity_fct = scale, similarity_fct

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        name = type(self).__name__
        check_columns(embeddings, 2, 2, name)
        labels = check_labels(labels, len(embeddings[0]), name)
        return cosent(self.similarity_fct(embeddings[0], embeddings[1]) * self.scale, labels)


class AnglELoss(CoSENTLoss):
    """CoSENT with the similarity of angles; also for (anchor, positive, negative, …) without labels.

    Args:
        model: the model that is trained.
        scale: factor of the similarities.
    """

    citation = cites("li2023angleoptimized")
    accepts = (
        *SCORED_PAIRS,
        Accepts(("anchor", "positive", "negative_1"), least=3, most=None),
    )
    config_keys: ClassVar[tuple[str, ...]] = ("scale", "similarity_fct")

    def __init__(self, model: nn.Module, scale: float = 20.0) -> None:
        super().__init__(model, scale, pairwise_angle_sim)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        if len(embeddings) > 2:
            anchors, others = embeddings[0], embeddings[1:]
            count = len(anchors)
            firsts = torch.ones(count, device=anchors.device) if labels is None else labels.to(anchors.dtype)
            labels = torch.cat([firsts, *[1 - firsts] * (len(others) - 1)])
            embeddings = [anchors.repeat(len(others), 1), torch.cat(others)]
        return super().compute_loss_from_embeddings(embeddings, labels)


class CosineSimilarityLoss(Loss):
    """The cosine of a pair should be its label.

    Args:
        model: the model that is trained.
        loss_fct: compares cosine and label, by default their squared difference.
        cos_score_transformation: applied to the cosine before.
    """

    accepts = SCORED_PAIRS

    def __init__(
        self, model: nn.Module, loss_fct: nn.Module | None = None, cos_score_transformation: nn.Module | None = None
    ) -> None:
        super().__init__(model)
        self.loss_fct = nn.MSELoss() if loss_fct is None else loss_fct
        self.cos_score_transformation = nn.Identity() if cos_score_transformation is None else cos_score_transformation

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        check_columns(embeddings, 2, 2, type(self).__name__)
        labels = check_labels(labels, len(embeddings[0]), type(self).__name__)
        cosines = self.cos_score_transformation(F.cosine_similarity(embeddings[0], embeddings[1]))
        return self.loss_fct(cosines, labels.to(cosines.dtype))

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "loss_fct": fullname(self.loss_fct),
            "cos_score_transformation": fullname(self.cos_score_transformation),
        }


class SiameseDistanceMetric(Enum):
    """Distances of pairs: (B, H), (B, H) -> (B,)."""

    EUCLIDEAN = lambda x, y: F.pairwise_distance(x, y, p=2)  # noqa: E731
    MANHATTAN = lambda x, y: F.pairwise_distance(x, y, p=1)  # noqa: E731
    COSINE_DISTANCE = lambda x, y: 1 - F.cosine_similarity(x, y)  # noqa: E731


def name_of_distance(metric: object, names: type[Enum]) -> str:
    """Name of a distance as its enumeration calls it, or the function's own."""
    for name, value in vars(names).items():
        if value is metric:
            return f"{names.__name__}.{name}"
    return getattr(metric, "__name__", repr(metric))


class BinaryLabels(Loss):
    """A loss of labels 0 and 1: one warning, at the first batch with others."""

    other_labels: ClassVar[str]  # what becomes of them
    _warned: bool = False

    def binary_labels(self, labels: Tensor | None, count: int) -> Tensor:
        """The labels (B,), or `InputError` if they are missing or not one per row."""
        labels = check_labels(labels, count, type(self).__name__)
        if labels.dim() != 1:
            raise InputError(
                f"{type(self).__name__} expects one label per row, got labels of shape {tuple(labels.shape)}."
            )
        if not self._warned and bool(((labels != 0) & (labels != 1)).any()):
            self._warned = True
            text = f"{type(self).__name__} expects the labels 0 and 1, but this batch has others: {self.other_labels}."
            warnings.warn(text, UserWarning, stacklevel=2)
        return labels


class ContrastiveLoss(BinaryLabels):
    """Pairs that belong together close, others at least `margin` apart (formula above).

    Args:
        model: the model that is trained.
        distance_metric: a `SiameseDistanceMetric`, or a function (B, H), (B, H) -> (B,).
        margin: negatives farther apart than this cost nothing.
        size_average: mean over the pairs, or their sum.
    """

    citation = cites("hadsell2006dimensionality")
    accepts = BINARY_PAIRS
    other_labels = "they weigh the positive term, and 1 - label the negative one"

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Callable[[Tensor, Tensor], Tensor] = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
        size_average: bool = True,
    ) -> None:
        super().__init__(model)
        self.distance_metric, self.margin, self.size_average = distance_metric, margin, size_average

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        check_columns(embeddings, 2, 2, type(self).__name__)
        labels = self.binary_labels(labels, len(embeddings[0]))
        distances = self.distance_metric(embeddings[0], embeddings[1])
        positive = labels.to(distances.dtype)
        losses = 0.5 * (positive * distances**2 + (1 - positive) * F.relu(self.margin - distances) ** 2)
        return losses.mean() if self.size_average else losses.sum()

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "distance_metric": name_of_distance(self.distance_metric, SiameseDistanceMetric),
            "margin": self.margin,
            "size_average": self.size_average,
        }


class OnlineContrastiveLoss(BinaryLabels):
    """Contrastive loss summed over the hard pairs of a batch alone.

    Args:
        model: the model that is trained.
        distance_metric: a `SiameseDistanceMetric`, or a function (B, H), (B, H) -> (B,).
        margin: negatives farther apart than this cost nothing.
    """

    accepts = BINARY_PAIRS
    other_labels = "such pairs are ignored"

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Callable[[Tensor, Tensor], Tensor] = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
    ) -> None:
        super().__init__(model)
        self.distance_metric, self.margin = distance_metric, margin

    def forward(
        self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None, size_average: bool = False
    ) -> Tensor:
        return self.compute_loss_from_embeddings(self.embed(sentence_features), labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        check_columns(embeddings, 2, 2, type(self).__name__)
        labels = self.binary_labels(labels, len(embeddings[0]))
        distances = self.distance_metric(embeddings[0], embeddings[1])
        negatives, positives = distances[labels == 0], distances[labels == 1]
        # without pairs of the other kind, those beyond the mean are the hard ones
        farthest = positives.max() if len(positives) else negatives.mean()
        nearest = negatives.min() if len(negatives) else positives.mean()
        hard_negatives, hard_positives = negatives[negatives < farthest], positives[positives > nearest]
        return hard_positives.pow(2).sum() + F.relu(self.margin - hard_negatives).pow(2).sum()

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "distance_metric": name_of_distance(self.distance_metric, SiameseDistanceMetric),
            "margin": self.margin,
        }
