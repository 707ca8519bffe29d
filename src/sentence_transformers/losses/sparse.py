"""Losses of sparse encoders by their dense twins: the same formula, with another similarity or other defaults.

Alone, most of them would make no model sparse: nothing in them asks for few active dimensions. So they are given to
`SpladeLoss`, `CachedSpladeLoss` or `CSRLoss`, which add what does. `SparseMSELoss` has its sparsity from the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.base import Loss
from sentence_transformers.losses.distillation import DistillKLDivLoss, MarginMSELoss, MSELoss
from sentence_transformers.losses.in_batch_negatives import Direction, Hardness, MultipleNegativesRankingLoss
from sentence_transformers.losses.pairs import AnglELoss, CoSENTLoss, CosineSimilarityLoss
from sentence_transformers.losses.triplets import TripletDistanceMetric, TripletLoss
from sentence_transformers.similarity import dot_score, pairwise_cos_sim, pairwise_dot_score

if TYPE_CHECKING:
    from sentence_transformers.encoders.sparse_encoder import SparseEncoder

Similarity = Callable[[Tensor, Tensor], Tensor]


class Inner(Loss):
    """A loss that works inside `SpladeLoss`, `CachedSpladeLoss` or `CSRLoss`."""

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Raise `InputError`: alone it makes no model sparse."""
        name = type(self).__name__
        raise InputError(
            f"{name} should not be used alone, for nothing in it makes vectors sparse. Use it within SpladeLoss or "
            f"CSRLoss: SpladeLoss(model, {name}(model), document_regularizer_weight=3e-5)."
        )


class SparseMultipleNegativesRankingLoss(Inner, MultipleNegativesRankingLoss):
    """In-batch negatives by dot products, inside another loss.

    Args:
        scale: factor of the similarities.
        similarity_fct: (q, V), (d, V) -> (q, d).
        others: see `MultipleNegativesRankingLoss`.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 1.0,
        similarity_fct: Similarity = dot_score,
        gather_across_devices: bool = False,
        directions: tuple[Direction, ...] = ("query_to_doc",),
        partition_mode: Literal["joint", "per_direction"] = "joint",
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__(
            model,
            scale,
            similarity_fct,
            gather_across_devices,
            directions,
            partition_mode,
            hardness_mode,
            hardness_strength,
        )


class SparseTripletLoss(Inner, TripletLoss):
    """Triplets, inside another loss; see `TripletLoss`."""

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Callable[[Tensor, Tensor], Tensor] = TripletDistanceMetric.EUCLIDEAN,
        triplet_margin: float = 5,
    ) -> None:
        super().__init__(model, distance_metric, triplet_margin)


class SparseCoSENTLoss(Inner, CoSENTLoss):
    """The order of similarities as that of the labels, inside another loss; see `CoSENTLoss`."""

    def __init__(self, model: nn.Module, scale: float = 20.0, similarity_fct: Similarity = pairwise_cos_sim) -> None:
        super().__init__(model, scale, similarity_fct)


class SparseAnglELoss(SparseCoSENTLoss, AnglELoss):
    """CoSENT with the similarity of angles, inside another loss; see `AnglELoss`."""

    def __init__(self, model: nn.Module, scale: float = 20.0) -> None:
        AnglELoss.__init__(self, model, scale)


class SparseCosineSimilarityLoss(Inner, CosineSimilarityLoss):
    """The cosine of a pair as its label, inside another loss. The model's similarity becomes the cosine.

    Args:
        others: see `CosineSimilarityLoss`.
    """

    def __init__(
        self, model: SparseEncoder, loss_fct: nn.Module | None = None, cos_score_transformation: nn.Module | None = None
    ) -> None:
        super().__init__(model, loss_fct, cos_score_transformation)
        model.similarity_fn_name = "cosine"


class SparseMarginMSELoss(Inner, MarginMSELoss):
    """The teacher's margins, inside another loss; see `MarginMSELoss`."""

    def __init__(self, model: nn.Module, similarity_fct: Similarity = pairwise_dot_score) -> None:
        super().__init__(model, similarity_fct)


class SparseDistillKLDivLoss(Inner, DistillKLDivLoss):
    """The teacher's distribution over the candidates, inside another loss; see `DistillKLDivLoss`.

    Args:
        temperature: of both distributions.
        others: see `DistillKLDivLoss`.
    """

    def __init__(
        self,
        model: nn.Module,
        similarity_fct: Similarity = pairwise_dot_score,
        temperature: float = 2.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        super().__init__(model, similarity_fct, temperature, student_temperature, teacher_temperature)


class SparseMSELoss(MSELoss):
    """Each text's vector as the teacher's, a sparse one; see `MSELoss`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
