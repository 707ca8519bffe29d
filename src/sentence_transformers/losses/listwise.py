"""Listwise losses of cross-encoders: all documents of a query are judged together.

    ListNet    −Σ_i softmax(y)_i log softmax(s)_i                                                  Cao et al. 2007
    ListMLE    −Σ_i log softmax(s_i, s_{i+1}, …)_i, documents from the best to the worst           Xia et al. 2008
    PListMLE   the same with weights that fall with the place: 2^(n − i) − 1, divided by their sum Lan et al. 2014
    ADR-MSE    mean of (r_i − r̂_i)² / log2(1 + r_i), r̂_i = 1 + Σ_{j ≠ i} σ(α (s_j − s_i))      Schlatt et al. 2025

s are scores, y labels, r the ranks of the labels, of a query with n documents; the mean is taken over the queries, that
of ADR-MSE over all documents. Queries may have different numbers of documents. Scores are computed as one run of pairs
and laid out as (Q, D) with a mask: a function of that table is all that a loss adds (`loss_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.base import Accepts, list_problem
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.cross import CrossLoss, scores_of

LISTS = Accepts(("query", "documents"), "scores", lists=True)


class ListwiseLoss(CrossLoss):
    """What the listwise losses share.

    Args:
        model: a cross-encoder with one score.
        activation_fn: applied to the scores before the loss.
        mini_batch_size: pairs per forward pass on average; None for as many as there are queries, 0 or less for all.

    Columns: queries, and a list of documents for each. Labels: as many scores for each query as it has documents.
    """

    accepts = (LISTS,)
    config_keys: ClassVar[tuple[str, ...]] = ("mini_batch_size",)

    def __init__(
        self, model: nn.Module, activation_fn: nn.Module | None = None, mini_batch_size: int | None = None
    ) -> None:
        super().__init__(model, activation_fn)
        self.mini_batch_size = mini_batch_size

    def forward(
        self,
        inputs: list[Any],
        labels: Sequence[Tensor] | Tensor,
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Loss of a batch: queries, their lists of documents, and a list of labels for each."""
        name = type(self).__name__
        if len(inputs) != 2:
            raise InputError(f"{name} expects 2 columns, queries and lists of documents, got {len(inputs)}.")
        queries, documents = inputs
        if labels is None or len(labels) != len(queries):
            raise InputError(f"{name} expects a list of labels for each of {len(queries)} queries.")
        for i, (texts, scores) in enumerate(zip(documents, labels, strict=True)):
            if problem := list_problem(texts, scores):
                raise InputError(f"{name}: row {i} of the batch {problem}.")
        pairs = [(query, text) for query, texts in zip(queries, documents, strict=True) for text in texts]
        size = len(queries) if self.mini_batch_size is None else self.mini_batch_size
        flat = scores_of(self.model, pairs, prompt, task, size if size > 0 else None).squeeze(-1).float()
        mask = mask_of([len(texts) for texts in documents], flat.device)
        targets = torch.cat([torch.as_tensor(row).to(flat) for row in labels])
        return self.loss_of(in_rows(self.activation_fn(flat), mask), in_rows(targets, mask), mask)

    def loss_of(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Loss of a table.

        Args:
            scores, labels: (Q, D), 0 where there is no document.
            mask: (Q, D) bool, where there is one.
        """
        raise TypeError(f"{type(self).__name__} must define loss_of(scores, labels, mask).")


def mask_of(sizes: Sequence[int], device: torch.device) -> Tensor:
    """(Q, D) bool, true in the first `sizes` places of each row."""
    return torch.arange(max(sizes), device=device)[None, :] < torch.tensor(sizes, device=device)[:, None]


def in_rows(values: Tensor, mask: Tensor) -> Tensor:
    """(N,) values in the true places of a (Q, D) mask, row by row; 0 elsewhere."""
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def sort_rows(by: Tensor, mask: Tensor, *tables: Tensor) -> list[Tensor]:
    """Tables (Q, D) with each row in the order of falling `by`, places without a document last."""
    order = by.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return [table.gather(1, order) for table in tables]


class ListNetLoss(ListwiseLoss):
    """Cross entropy between the distributions over the documents that labels and scores make.

    Args:
        model: a cross-encoder with one score.
        activation_fn: applied to the scores before the loss.
        mini_batch_size: pairs per forward pass on average; None for as many as there are queries, 0 or less for all.
    """

    citation = cites("cao2007learning")

    def __init__(
        self, model: nn.Module, activation_fn: nn.Module | None = None, mini_batch_size: int | None = None
    ) -> None:
        super().__init__(model, activation_fn, mini_batch_size)
        self.cross_entropy_loss = nn.CrossEntropyLoss()

    def loss_of(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        targets = labels.masked_fill(~mask, -torch.inf).softmax(1)
        nowhere = torch.finfo(scores.dtype).min / 2  # times a target of 0 it is 0, as infinity is not
        return self.cross_entropy_loss(scores.masked_fill(~mask, nowhere), targets)


class PListMLELambdaWeight(nn.Module):
    """Weights of the places of a list: 2^(n − i) − 1, or others.

    Args:
        rank_discount_fn: (Q, D) bool, where documents are, best first -> (Q, D) weights. The ranks are
            `mask.cumsum(1)`.
    """

    def __init__(self, rank_discount_fn: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.rank_discount_fn = rank_discount_fn

    def forward(self, mask: Tensor) -> Tensor:
        """(Q, D) bool, where documents are -> (Q, D) weights, not yet divided by their sum."""
        if self.rank_discount_fn is not None:
            return self.rank_discount_fn(mask).masked_fill(~mask, 0)
        return (2.0 ** (mask.sum(1, keepdim=True) - mask.cumsum(1)) - 1) * mask


class PListMLELoss(ListwiseLoss):
    """Likelihood of the right order of the documents, in which the first places weigh more.

    Args:
        model: a cross-encoder with one score.
        lambda_weight: the weights of the places; None for equal ones.
        activation_fn: applied to the scores before the loss.
        mini_batch_size: pairs per forward pass on average; None for as many as there are queries, 0 or less for all.
        respect_input_order: whether documents come in the right order already, best first; else they are sorted by
            their labels.
    """

    citation = cites("lan2014position")
    config_keys: ClassVar[tuple[str, ...]] = ("lambda_weight", "mini_batch_size", "respect_input_order")

    def __init__(
        self,
        model: nn.Module,
        lambda_weight: PListMLELambdaWeight | None = PListMLELambdaWeight(),  # noqa: B008  # the contract; no state
        activation_fn: nn.Module | None = None,
        mini_batch_size: int | None = None,
        respect_input_order: bool = True,
    ) -> None:
        super().__init__(model, activation_fn, mini_batch_size)
        self.lambda_weight, self.respect_input_order = lambda_weight, respect_input_order

    def loss_of(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        if not self.respect_input_order:
            (scores,) = sort_rows(labels, mask, scores)
        low = torch.finfo(scores.dtype).min
        rest = scores.masked_fill(~mask, low).flip(1).logcumsumexp(1).flip(1)
        terms = (rest - scores).masked_fill(~mask, 0)
        if self.lambda_weight is not None:
            weights = self.lambda_weight(mask).to(terms)
            terms = terms * weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        return terms.sum(1).mean()


class ListMLELoss(PListMLELoss):
    """Likelihood of the right order of the documents, all places alike.

    Args:
        model: a cross-encoder with one score.
        activation_fn: applied to the scores before the loss.
        mini_batch_size: pairs per forward pass on average; None for as many as there are queries, 0 or less for all.
        respect_input_order: whether documents come in the right order already, best first; else they are sorted by
            their labels.
    """

    citation = cites("10.1145/1390156.1390306")
    config_keys = ("mini_batch_size", "respect_input_order")

    def __init__(
        self,
        model: nn.Module,
        activation_fn: nn.Module | None = None,
        mini_batch_size: int | None = None,
        respect_input_order: bool = True,
    ) -> None:
        super().__init__(model, None, activation_fn, mini_batch_size, respect_input_order)


class ADRMSELoss(ListwiseLoss):
    """Squared distance of approximate ranks from the right ones; the first ranks weigh more.

    Args:
        model: a cross-encoder with one score.
        alpha: how sharply two scores decide which document is before the other.
        activation_fn: applied to the scores before the loss.
        mini_batch_size: pairs per forward pass on average; None for as many as there are queries, 0 or less for all.

    Documents with equal labels share the mean of their ranks.
    """

    citation = cites("schlatt2025rankdistillm")
    config_keys = ("alpha", "mini_batch_size")

    def __init__(
        self,
        model: nn.Module,
        alpha: float = 1.0,
        activation_fn: nn.Module | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        super().__init__(model, activation_fn, mini_batch_size)
        self.alpha = alpha

    def approximate_ranks(self, scores: Tensor, mask: Tensor) -> Tensor:
        """(Q, D) scores -> (Q, D) ranks, smooth functions of the scores."""
        before = torch.sigmoid(self.alpha * (scores[:, None, :] - scores[:, :, None]))
        others = mask[:, None, :] & ~torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
        return 1 + (before * others).sum(2)

    def loss_of(self, scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        higher = (labels[:, None, :] > labels[:, :, None]) & mask[:, None, :]
        equal = (labels[:, None, :] == labels[:, :, None]) & mask[:, None, :]
        ranks = higher.sum(2) + (equal.sum(2) + 1) / 2
        errors = (ranks - self.approximate_ranks(scores, mask)).square() / torch.log2(1 + ranks)
        return (errors * mask).sum() / mask.sum()
