"""Losses of late interaction models by their dense twins: the same formula over MaxSim scores.

A text's token vectors are rows (L, H) filled up with zeros, which MaxSim leaves out; so a column is (B, L, H) where a
dense model has (B, H), and everything else is the twin's. Queries and documents are each as long as their longest text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.features import FeatureDict
from sentence_transformers.late_interaction import colbert_kd_scores, colbert_scores, colbert_scores_pairwise
from sentence_transformers.losses.base import Loss, check_columns
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.distillation import DistillKLDivLoss, MarginMSELoss, candidate_scores
from sentence_transformers.losses.gradient_cache import CachedLossMixin, cached_loss
from sentence_transformers.losses.gradient_cache import RandContext as RandContext
from sentence_transformers.losses.in_batch_negatives import (
    Contrast,
    MultipleNegativesRankingLoss,
    in_batch_negatives,
)
from sentence_transformers.losses.merged_forward import over_columns, run
from sentence_transformers.util.distributed import all_gather, get_world_size

Similarity = Callable[..., Tensor]


def token_vectors(model: nn.Module, features: FeatureDict, length: int) -> Tensor:
    """Token vectors of b texts, each filled up with zeros to `length` or more rows: (b, L, H)."""
    out = run(model, features)
    vectors = out["token_embeddings"]
    if (packing := out.get("packing")) is not None:
        vectors = packing.pad(vectors)
    else:
        vectors = vectors * out["attention_mask"][..., None].to(vectors.dtype)
    return of_length(vectors, max(length, vectors.shape[1]))


def longest_text(columns: Sequence[FeatureDict]) -> int:
    """Tokens of the longest text of a batch, padding included where texts are padded."""
    padded = [column["attention_mask"].shape[1] for column in columns if column.get("attention_mask") is not None]
    packed = [max(column["packing"].lengths, default=0) for column in columns if column.get("packing") is not None]
    return max([*padded, *packed], default=0)


def fitted(columns: Sequence[Tensor], everywhere: bool = False) -> list[Tensor]:
    """Columns (B, L, H) of one length for the queries, the first, and one for all documents: no longer than needed.

    Args:
        everywhere: of one length in all processes.
    """
    sides = [list(columns[:1]), list(columns[1:])]
    longest = [max(map(used, side), default=0) for side in sides]
    if everywhere and get_world_size() > 1:
        longest = all_gather(torch.tensor([longest], device=columns[0].device)).amax(0).tolist()
    return [of_length(column, length) for side, length in zip(sides, longest, strict=True) for column in side]


def of_length(column: Tensor, length: int) -> Tensor:
    """(B, L, H) with `length` rows for each text: further ones are cut off, missing ones are zeros."""
    return torch.nn.functional.pad(column[:, :length], (0, 0, 0, max(0, length - column.shape[1])))


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Several (b, L, H) as one, as long as the longest."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([of_length(part, longest) for part in parts])


def used(column: Tensor) -> int:
    """Rows of (B, L, H) up to the last that is a token of some text; at least 1."""
    rows = (column != 0).any(-1).any(0).nonzero()
    return int(rows[-1]) + 1 if len(rows) else 1


def with_masks(similarity: Similarity) -> Similarity:
    """A similarity of padded token vectors that is told which rows are tokens, if it takes masks.

    `contrast_rows` and others call it with two arguments.
    """
    parameters = inspect.signature(similarity).parameters
    if not {"queries_mask", "documents_mask"} <= parameters.keys():
        return similarity

    def masked(queries: Tensor, documents: Tensor) -> Tensor:
        masks = {"queries_mask": (queries != 0).any(-1), "documents_mask": (documents != 0).any(-1)}
        return similarity(queries, documents, **masks)

    return masked


class TokenLoss(Loss):
    """A loss over token vectors: what it adds to its dense twin, which comes second among its bases.

    Attributes:
        mini_batch_size: texts embedded together on the average; None for all.
    """

    other_names: ClassVar[dict[str, str]] = {"loss_function": "loss_fct"}
    mini_batch_size: int | None = None

    def _set_mini_batch(self, size: int | None) -> None:
        if size is not None and size < 1:
            raise InputError(f"mini_batch_size must be at least 1 or None, got {size}.")
        self.mini_batch_size = size

    def embed(self, sentence_features: Iterable[FeatureDict]) -> list[Tensor]:
        """(B, L, H) for each column; L is one number for queries and one for documents."""
        columns = list(sentence_features)
        rows_of = partial(token_vectors, self.model, length=longest_text(columns))
        found = over_columns(self.model, columns, rows_of, self.mini_batch_size)
        return fitted(found)


class MultiVectorMultipleNegativesRankingLoss(TokenLoss, MultipleNegativesRankingLoss):
    """In-batch negatives by MaxSim; see `MultipleNegativesRankingLoss`.

    Args:
        model: the model that is trained.
        scale: factor of the scores.
        similarity_fct: (q, I, H), (d, J, H) -> (q, d), and `queries_mask`, `documents_mask` if it takes them; default:
            `colbert_scores`.
        mini_batch_size: texts embedded together on the average; None for all.
        score_mini_batch_size: queries scored at a time; None for all.
        gather_across_devices: take the documents of all processes as candidates.

    Raises:
        InputError: for a size below 1.
    """

    citation = cites("khattab2020colbert")
    config_keys: ClassVar[tuple[str, ...]] = (
        "scale",
        "similarity_fct",
        "mini_batch_size",
        "score_mini_batch_size",
        "gather_across_devices",
    )

    def __init__(
        self,
        model: nn.Module,
        *,
        scale: float = 1.0,
        similarity_fct: Similarity | None = None,
        mini_batch_size: int | None = None,
        score_mini_batch_size: int | None = None,
        gather_across_devices: bool = False,
    ) -> None:
        similarity = colbert_scores if similarity_fct is None else similarity_fct
        MultipleNegativesRankingLoss.__init__(self, model, scale, similarity, gather_across_devices)
        self._set_mini_batch(mini_batch_size)
        if score_mini_batch_size is not None and score_mini_batch_size < 1:
            raise InputError(f"score_mini_batch_size must be at least 1 or None, got {score_mini_batch_size}.")
        self.score_mini_batch_size = score_mini_batch_size

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        return self.of_vectors(embeddings, False)

    def of_vectors(self, embeddings: list[Tensor], backward: bool) -> Tensor:
        """Loss of the token vectors (B, L, H) of each column."""
        check_columns(embeddings, 2, None, type(self).__name__)
        gather, block = self.gather_across_devices, self.score_mini_batch_size
        if gather:
            embeddings = fitted(embeddings, everywhere=True)
        return in_batch_negatives(embeddings, self.how, gather, block, backward)

    @property
    def how(self) -> Contrast:
        return replace(super().how, similarity_fct=with_masks(self.similarity_fct))


class CachedMultiVectorMultipleNegativesRankingLoss(CachedLossMixin, MultiVectorMultipleNegativesRankingLoss):
    """In-batch negatives by MaxSim with batches of any size in the memory of a small one (`losses.gradient_cache`).

    Args:
        mini_batch_size: texts embedded together on the average; mini-batches have about equally many tokens.
        mini_batch_num_tokens: most tokens embedded together, in the place of a number of texts.
        score_mini_batch_size: queries scored at a time; None for `mini_batch_size`.
        show_progress_bar: show a bar over the mini-batches.
        others: see `MultiVectorMultipleNegativesRankingLoss`.
    """

    citation = cites("gao2021scaling")
    mini_batch_size: int
    config_keys = (
        "scale",
        "similarity_fct",
        "mini_batch_size",
        "mini_batch_num_tokens",
        "score_mini_batch_size",
        "gather_across_devices",
    )

    def __init__(
        self,
        model: nn.Module,
        *,
        scale: float = 1.0,
        similarity_fct: Similarity | None = None,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        score_mini_batch_size: int | None = None,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        MultiVectorMultipleNegativesRankingLoss.__init__(
            self,
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            score_mini_batch_size=mini_batch_size if score_mini_batch_size is None else score_mini_batch_size,
            gather_across_devices=gather_across_devices,
        )
        self._set_mini_batches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)

    def calculate_loss(self, reps: list[Any], labels: Tensor | None = None, *, with_backward: bool = False) -> Tensor:
        """Loss of the token vectors of each column, as lists of (b, L, H)."""
        columns = [part if isinstance(part, Tensor) else joined(part) for part in reps]
        return self.of_vectors(fitted(columns), with_backward)

    def rows_of_minibatch(self, features: FeatureDict, with_grad: bool) -> tuple[Any, ...]:
        vectors = token_vectors(self.model, features, 0)
        return vectors, (vectors != 0).any(-1)

    def forward_joined(self, columns: list[FeatureDict], labels: Tensor | None = None) -> Tensor:
        return cached_loss(
            self.model,
            columns,
            lambda found, with_backward: self.calculate_loss([[part] for part in found], with_backward=with_backward),
            self.mini_batch_size,
            self.mini_batch_num_tokens,
            self.show_progress_bar,
            rows_of=partial(token_vectors, length=longest_text(columns)),
        )


class MultiVectorMarginMSELoss(TokenLoss, MarginMSELoss):
    """The teacher's margins by MaxSim; see `MarginMSELoss`.

    Args:
        similarity_fct: (B, I, H), (B, J, H) -> (B,); default: `colbert_scores_pairwise`.
        mini_batch_size: texts embedded together on the average; None for all.
    """

    citation = cites("hofstätter2021improving")
    config_keys: ClassVar[tuple[str, ...]] = ("similarity_fct", "mini_batch_size")

    def __init__(
        self, model: nn.Module, *, similarity_fct: Similarity | None = None, mini_batch_size: int | None = None
    ) -> None:
        MarginMSELoss.__init__(self, model, colbert_scores_pairwise if similarity_fct is None else similarity_fct)
        self._set_mini_batch(mini_batch_size)

    def candidate_scores(self, embeddings: list[Tensor]) -> Tensor:
        return candidate_scores(embeddings, with_masks(self.similarity_fct))


class MultiVectorDistillKLDivLoss(TokenLoss, DistillKLDivLoss):
    """The teacher's distribution over a query's candidates by MaxSim; see `DistillKLDivLoss`.

    Args:
        similarity_fct: (B, I, H), (B, n, J, H) -> (B, n), and `queries_mask`, `documents_mask` if it takes them;
            default: `colbert_kd_scores`.
        temperature: of both distributions.
        student_temperature, teacher_temperature: of one of them, instead.
        mini_batch_size: texts embedded together on the average; None for all.
    """

    citation = cites("santhanam2022colbertv2")
    config_keys = ("similarity_fct", "temperature", "student_temperature", "teacher_temperature", "mini_batch_size")

    def __init__(
        self,
        model: nn.Module,
        *,
        similarity_fct: Similarity | None = None,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        similarity = colbert_kd_scores if similarity_fct is None else similarity_fct
        DistillKLDivLoss.__init__(self, model, similarity, temperature, student_temperature, teacher_temperature)
        self._set_mini_batch(mini_batch_size)

    def candidate_scores(self, embeddings: list[Tensor]) -> Tensor:
        return with_masks(self.similarity_fct)(embeddings[0], torch.stack(embeddings[1:], 1))


def embed_columns_padded(
    model: nn.Module,
    features_list: Iterable[FeatureDict],
    mini_batch_size: int | None = None,
    task_default: str | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Token vectors of all columns.

    Args:
        model: the encoder, or what wraps it.
        features_list: features of each column, packed or padded.
        mini_batch_size: texts embedded together on the average; None for all.
        task_default: "query" or "document", for features that have no "task".

    Returns:
        (B, L, H) for each column, zeros where there is no token, L one number for all; and which rows are tokens, bool
        of shape (B, L).
    """
    default = {} if task_default is None else {"task": task_default}
    columns = [default | features for features in features_list]
    rows_of = partial(token_vectors, model, length=longest_text(columns))
    found = over_columns(model, columns, rows_of, mini_batch_size)
    most = max((column.shape[1] for column in found), default=0)
    found = [torch.nn.functional.pad(column, (0, 0, 0, most - column.shape[1])) for column in found]
    return found, [(column != 0).any(-1) for column in found]
