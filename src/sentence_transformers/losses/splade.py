"""SPLADE: another loss, and a price for every active dimension.

    loss = base(q, d, …) + λ_d · R(d) + λ_q · R(q)          q: first column, d: all others

R is by default FLOPS, the square of each dimension's mean weight over the batch, summed over the dimensions:

    FLOPS(w) = Σ_j (1/B Σ_i w_ij)²                           Paria et al. 2020, https://arxiv.org/abs/2004.05665

It falls when a dimension is rare rather than when weights are small, so that an inverted index gets short lists.
With a threshold, texts that have few active dimensions already are left alone. λ rises from 0 in the beginning of a run
(`training.callbacks.SpladeRegularizerWeightSchedulerCallback`), or the model would learn to be empty.
Formal et al. 2022, https://arxiv.org/abs/2205.04733.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.features import FeatureDict
from sentence_transformers.losses.base import Accepts, Loss
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.gradient_cache import CachedLossMixin
from sentence_transformers.losses.gradient_cache import RandContext as RandContext

if TYPE_CHECKING:
    from sentence_transformers.protocols import EmbeddingLoss

logger = logging.getLogger(__name__)


def flops(embeddings: Tensor, threshold: float | None = None) -> Tensor:
    """Σ_j (mean_i w_ij)²: (B, V) -> scalar.

    Args:
        threshold: rows with at most so many entries other than 0 count as empty.
    """
    if threshold is None:
        return embeddings.mean(0).square().sum()
    active = (embeddings.detach() != 0).sum(1) > threshold
    return (embeddings[active].sum(0) / len(embeddings)).square().sum()


class Regularizer(Loss):
    """A price for active dimensions, inside `SpladeLoss`: `compute_loss_from_embeddings` of (B, V)."""

    def forward(self, sentence_features: Iterable[FeatureDict], labels: Tensor | None = None) -> Tensor:
        """Raise `InputError`: alone it would empty every vector."""
        name = type(self).__name__
        raise InputError(f"{name} is not a loss of its own, it would empty every vector. Use it within SpladeLoss.")


class FlopsLoss(Regularizer):
    """FLOPS of a batch (formula above), as a part of `SpladeLoss`.

    Args:
        model: the model that is trained.
        threshold: texts with at most so many active dimensions cost nothing.
    """

    citation = cites("paria2020minimizing")
    config_keys = ("threshold",)

    def __init__(self, model: nn.Module, threshold: float | None = None) -> None:
        super().__init__(model)
        check_least("threshold", threshold)
        self.threshold = threshold

    def compute_loss_from_embeddings(self, embeddings: Tensor, labels: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return flops(embeddings, self.threshold)


class SpladeLoss(Loss):
    """A loss of sparse vectors, and the price of their active dimensions (formula above).

    Args:
        model: the model that is trained.
        loss: the loss of the vectors: anything with `compute_loss_from_embeddings(embeddings, labels)`.
        document_regularizer_weight: λ_d, at least 0.
        query_regularizer_weight: λ_q, at least 0; None leaves queries alone, as inference-free models want it.
        document_regularizer, query_regularizer: anything with `compute_loss_from_embeddings`, (B, V) -> scalar;
            default: `FlopsLoss`.
        document_regularizer_threshold, query_regularizer_threshold: that of `FlopsLoss`.
        use_document_regularizer_only: treat all columns as documents, for pairs of equal texts.

    Returns:
        {"base_loss": …, "document_regularizer_loss": …, "query_regularizer_loss": …}; the terms of a loss that has
        several stand in the place of the first.

    Raises:
        InputError: for weights or thresholds below 0, or a loss that cannot work on vectors.
    """

    citation = cites("formal2022distillationhardnegativesampling")

    def __init__(
        self,
        model: nn.Module,
        loss: EmbeddingLoss,
        document_regularizer_weight: float,
        query_regularizer_weight: float | None = None,
        document_regularizer: nn.Module | None = None,
        query_regularizer: nn.Module | None = None,
        document_regularizer_threshold: int | None = None,
        query_regularizer_threshold: int | None = None,
        use_document_regularizer_only: bool = False,
    ) -> None:
        super().__init__(model)
        check_least("document_regularizer_weight", document_regularizer_weight)
        check_least("query_regularizer_weight", query_regularizer_weight)
        check_inner(loss, type(self).__name__)
        if document_regularizer is None:
            check_least("document_regularizer_threshold", document_regularizer_threshold)
            document_regularizer = FlopsLoss(model, document_regularizer_threshold)
        if query_regularizer is None:
            check_least("query_regularizer_threshold", query_regularizer_threshold)
            query_regularizer = FlopsLoss(model, query_regularizer_threshold)
        for part in (document_regularizer, query_regularizer):
            check_inner(part, type(self).__name__)
        if use_document_regularizer_only and query_regularizer_weight is not None:
            logger.warning("query_regularizer_weight has no effect with use_document_regularizer_only=True.")
        self.loss, self.document_regularizer, self.query_regularizer = loss, document_regularizer, query_regularizer
        self.document_regularizer_weight = document_regularizer_weight
        self.query_regularizer_weight = query_regularizer_weight
        self.document_regularizer_threshold = document_regularizer_threshold
        self.query_regularizer_threshold = query_regularizer_threshold
        self.use_document_regularizer_only = use_document_regularizer_only

    @property
    def accepts(self) -> tuple[Accepts, ...]:  # type: ignore[override]
        """What the inner loss takes."""
        return tuple(getattr(self.loss, "accepts", ()))

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> dict[str, Tensor]:
        return terms_of(self.loss, embeddings, labels) | self.regularizer_terms(embeddings)

    def regularizer_terms(self, embeddings: list[Tensor]) -> dict[str, Tensor]:
        """The prices of a batch, weighted, by name."""
        documents = embeddings if self.use_document_regularizer_only else embeddings[1:]
        price: Any = self.document_regularizer.compute_loss_from_embeddings
        terms = {"document_regularizer_loss": price(torch.cat(documents)) * self.document_regularizer_weight}
        if self.query_regularizer_weight is not None and not self.use_document_regularizer_only:
            price = self.query_regularizer.compute_loss_from_embeddings
            terms["query_regularizer_loss"] = price(embeddings[0]) * self.query_regularizer_weight
        return terms

    def get_config_dict(self) -> dict[str, Any]:
        optional = ("query_regularizer_weight", "document_regularizer_threshold", "query_regularizer_threshold")
        settings = {name: getattr(self, name) for name in optional if getattr(self, name) is not None}
        return {
            "loss": type(self.loss).__name__,
            "document_regularizer_weight": self.document_regularizer_weight,
            **settings,
        }


class CachedSpladeLoss(CachedLossMixin, SpladeLoss):
    """`SpladeLoss` with batches of any size in the memory of a small one (`losses.gradient_cache`).

    Args:
        mini_batch_size: texts embedded together on the average; mini-batches have about equally many tokens.
        mini_batch_num_tokens: most tokens embedded together, in the place of a number of texts.
        show_progress_bar: show a bar over the mini-batches.
        others: see `SpladeLoss`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: EmbeddingLoss,
        document_regularizer_weight: float,
        query_regularizer_weight: float | None = None,
        document_regularizer: nn.Module | None = None,
        query_regularizer: nn.Module | None = None,
        document_regularizer_threshold: int | None = None,
        query_regularizer_threshold: int | None = None,
        use_document_regularizer_only: bool = False,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        SpladeLoss.__init__(
            self,
            model,
            loss,
            document_regularizer_weight,
            query_regularizer_weight,
            document_regularizer,
            query_regularizer,
            document_regularizer_threshold,
            query_regularizer_threshold,
            use_document_regularizer_only,
        )
        self._set_mini_batches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)

    def forward(self, sentence_features: Iterable[FeatureDict], labels: Tensor | None = None) -> dict[str, Tensor]:  # type: ignore[override]
        """The named terms of one batch. The gradients of all come with the first, the others are for the log."""
        value = self.forward_cached(sentence_features, labels)
        plain = self._terms
        first = next(iter(plain))
        others = sum((term for name, term in plain.items() if name != first), torch.zeros_like(value))
        return plain | {first: value - others}

    def calculate_loss(self, reps: list[Any], labels: Tensor | None = None, *, with_backward: bool = False) -> Tensor:
        """Loss of the vectors of each column, as lists of (b, V)."""
        columns = [part if isinstance(part, Tensor) else torch.cat(list(part)) for part in reps]
        terms = self.compute_loss_from_embeddings(columns, labels)
        self._terms = {name: term.detach() for name, term in terms.items()}
        value = torch.stack([term.reshape(()) for term in terms.values()]).sum()
        if with_backward:
            value.backward()
            value = value.detach()
        return value

    def get_config_dict(self) -> dict[str, Any]:
        return super().get_config_dict() | {
            "mini_batch_size": self.mini_batch_size,
            "mini_batch_num_tokens": self.mini_batch_num_tokens,
        }


def terms_of(loss: EmbeddingLoss, embeddings: list[Tensor], labels: Tensor | None) -> dict[str, Tensor]:
    """The value of an inner loss as named terms."""
    value = loss.compute_loss_from_embeddings(embeddings, labels)
    return dict(value) if isinstance(value, Mapping) else {"base_loss": value}


def check_inner(loss: object, outer: str) -> None:
    """Raise `InputError` if a loss cannot be part of another one."""
    if not hasattr(loss, "compute_loss_from_embeddings"):
        raise InputError(
            f"{outer} works on vectors, but {type(loss).__name__} has no method "
            "compute_loss_from_embeddings(embeddings, labels=None)."
        )
    if getattr(loss, "uses_gradient_cache", False):
        raise InputError(
            f"{outer} embeds the batch itself, so {type(loss).__name__} cannot cut it into mini-batches; "
            "CachedSpladeLoss does that for any loss inside it."
        )


def check_least(name: str, value: float | None) -> None:
    """Raise `InputError` for a number below 0."""
    if value is not None and not value >= 0:
        raise InputError(f"{name} must be at least 0, got {value}.")
