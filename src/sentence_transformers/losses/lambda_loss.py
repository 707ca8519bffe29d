"""LambdaLoss: pairs of documents in the wrong order cost what they cost a ranking metric.

    loss = − mean over pairs with y_i > y_j of log max(σ(sigma (s_i − s_j))^{w_ij}, eps)          Wang et al. 2018

Documents are in the order of their scores, i and j are their places. With gains G = (2^y − 1) / (best possible DCG) and
discounts D_i = log2(1 + i) the weights w are

    none           1, which is RankNet                                                              Burges et al. 2005
    NDCGLoss1      G_i / D_i, over all pairs of documents, i itself included
    NDCGLoss2      |1 / D_{|i−j|} − 1 / D_{|i−j|+1}| · |G_i − G_j|
    LambdaRank     |1 / D_i − 1 / D_j| · |G_i − G_j|                                                 Burges et al. 2006
    NDCGLoss2++    mu · NDCGLoss2 + LambdaRank

With `k` only pairs with a document in the first k places count. The logarithm is to the base 2 unless told otherwise.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.listwise import ListwiseLoss, sort_rows


class BaseWeightingScheme(nn.Module):
    """Weights of pairs of places.

    Attributes:
        all_pairs: whether the weights are for all pairs, and not for those in the wrong order alone.
    """

    all_pairs: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """Weights that broadcast to (Q, D, D).

        Args:
            gain: (Q, D) gains of the documents, in the order of the scores.
            discount: (1, D) discounts of the places.
            true_sorted: (Q, D) labels, in the order of the scores.
        """
        raise TypeError(f"{type(self).__name__} must define forward(gain, discount, true_sorted).")


class NoWeightingScheme(BaseWeightingScheme):
    """All pairs weigh the same."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        return gain.new_ones(())


class NDCGLoss1Scheme(BaseWeightingScheme):
    """A bound on NDCG in which each place counts for itself."""

    all_pairs = True

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        return (gain / discount)[:, :, None]


class NDCGLoss2Scheme(BaseWeightingScheme):
    """A tighter bound on NDCG, by the distance of the places."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        places = torch.arange(gain.shape[1], device=gain.device)
        distance = (places[:, None] - places[None, :]).abs()
        inverse = 1 / discount[0]
        step = (inverse[(distance - 1).clamp(min=0)] - inverse[distance]).abs().masked_fill(distance == 0, 0)
        return step[None] * gain_differences(gain)


class LambdaRankScheme(BaseWeightingScheme):
    """The change of NDCG if two documents changed places."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        inverse = 1 / discount
        return (inverse[:, :, None] - inverse[:, None, :]).abs() * gain_differences(gain)


class NDCGLoss2PPScheme(BaseWeightingScheme):
    """NDCGLoss2 and LambdaRank together.

    Args:
        mu: weight of NDCGLoss2.
    """

    def __init__(self, mu: float = 10.0) -> None:
        super().__init__()
        self.mu = mu
        self.ndcg_loss2, self.lambda_rank = NDCGLoss2Scheme(), LambdaRankScheme()

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        first, second = self.ndcg_loss2, self.lambda_rank
        return self.mu * first(gain, discount, true_sorted) + second(gain, discount, true_sorted)


def gain_differences(gain: Tensor) -> Tensor:
    """(Q, D) -> |G_i − G_j|, (Q, D, D)."""
    return (gain[:, :, None] - gain[:, None, :]).abs()


class LambdaLoss(ListwiseLoss):
    """Pairs of documents in the wrong order, weighted by what they cost: the formula is at the top of this module.

    Args:
        model: a cross-encoder with one score.
        weighting_scheme: the weights; None for equal ones.
        k: only the first k places of the ranking count; None for all.
        sigma: how sharply two scores decide which document is before the other.
        eps: least value of a probability.
        reduction_log: "binary" or "natural".
        activation_fn: applied to the scores before the loss.
        mini_batch_size: pairs per forward pass on average; None for as many as there are queries, 0 or less for all.
    """

    citation = cites("wang2018lambdaloss")
    config_keys: ClassVar[tuple[str, ...]] = (
        "weighting_scheme",
        "k",
        "sigma",
        "eps",
        "reduction_log",
        "mini_batch_size",
    )

    def __init__(
        self,
        model: nn.Module,
        weighting_scheme: BaseWeightingScheme | None = NDCGLoss2PPScheme(),  # noqa: B008  # the contract; no state
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Literal["natural", "binary"] = "binary",
        activation_fn: nn.Module | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, activation_fn, mini_batch_size)
        if reduction_log not in ("natural", "binary"):
            raise InputError(f"reduction_log must be 'natural' or 'binary', got {reduction_log!r}.")
        if k is not None and k < 1:
            raise InputError(f"k must be at least 1, or None for all places, got {k}.")
        self.weighting_scheme = NoWeightingScheme() if weighting_scheme is None else weighting_scheme
        self.k, self.sigma, self.eps, self.reduction_log = k, sigma, eps, reduction_log

    def loss_of(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        labels_best_first, there = sort_rows(labels, mask, labels, mask)
        ideal = self._gains(labels_best_first) / self._discounts(labels) * there
        best = ideal[:, : self.k].sum(1, keepdim=True).clamp(min=self.eps)
        scores, labels, there = sort_rows(scores.detach(), mask, scores, labels, mask)
        weights = self.weighting_scheme(self._gains(labels) * there / best, self._discounts(labels), labels)
        pairs = there[:, :, None] & there[:, None, :]
        if not getattr(self.weighting_scheme, "all_pairs", False):
            pairs = pairs & (labels[:, :, None] > labels[:, None, :])
        if self.k is not None:
            first = torch.arange(scores.shape[1], device=scores.device) < self.k
            pairs = pairs & (first[:, None] | first[None, :])
        least = math.log(self.eps)
        logs = F.logsigmoid(self.sigma * (scores[:, :, None] - scores[:, None, :])).clamp(min=least)
        terms = (weights * logs).clamp(min=least).masked_fill(~pairs, 0)
        base = math.log(2) if self.reduction_log == "binary" else 1.0
        return -terms.sum() / pairs.sum().clamp(min=1) / base

    @staticmethod
    def _gains(labels: Tensor) -> Tensor:
        return 2 ** labels.clamp(min=0) - 1

    @staticmethod
    def _discounts(labels: Tensor) -> Tensor:
        """(1, D) discounts of the places."""
        return torch.log2(torch.arange(2, labels.shape[1] + 2, device=labels.device, dtype=labels.dtype))[None]


class RankNetLoss(LambdaLoss):
    """Each pair of documents should be in the right order; all pairs weigh the same.

    Args:
        model: a cross-encoder with one score.
        k: only the first k places of the ranking count; None for all.
        sigma: how sharply two scores decide which document is before the other.
        eps: least value of a probability.
        reduction_log: "binary" or "natural".
        activation_fn: applied to the scores before the loss.
        mini_batch_size: pairs per forward pass on average; None for as many as there are queries, 0 or less for all.
    """

    citation = cites("burges2005learning")
    config_keys = ("k", "sigma", "eps", "reduction_log", "mini_batch_size")

    def __init__(
        self,
        model: nn.Module,
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Literal["natural", "binary"] = "binary",
        activation_fn: nn.Module | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, None, k, sigma, eps, reduction_log, activation_fn, mini_batch_size)
