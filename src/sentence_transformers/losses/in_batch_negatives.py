"""In-batch negatives: each query's own document against all others of the batch.

    loss_i = log Σ_j exp(s(q_i, d_j)) − s(q_i, d_i),      s = scale · similarity

averaged over the B queries of a batch; the d_j are all positives of the batch and all further columns of negatives
(van den Oord et al. 2018; Henderson et al. 2017; with more directions Günther et al. 2023). `directions` add candidates
to the sum of row i, each of them with the positive s(q_i, d_i) as the one to win:

    query_to_doc      s(q_i, d_j)      all documents
    query_to_query    s(q_i, q_j)      all queries but the own
    doc_to_query      s(d_i, q_j)      all queries
    doc_to_doc        s(d_i, d_j)      all documents but those of the own query

"joint" takes one logarithm over all of them; "per_direction" the mean of one per direction. Hardness adds a multiple of
the similarity, without gradient, to the negatives of query_to_doc, so that hard ones weigh more (Lan et al. 2025).

The loss is computed in blocks of rows, so that a batch of thousands never holds its square.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.base import Accepts, Loss, check_columns, with_twin
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.gradient_cache import CachedLossMixin
from sentence_transformers.losses.gradient_cache import RandContext as RandContext
from sentence_transformers.similarity import cos_sim
from sentence_transformers.util.distributed import all_gather_with_grad, get_rank

Similarity = Callable[[Tensor, Tensor], Tensor]
Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
Hardness = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
HARDNESS = ("in_batch_negatives", "hard_negatives", "all_negatives")
PAIRS = Accepts(("anchor", "positive"))
TUPLES = Accepts(("anchor", "positive", "negative_1"), least=3, most=None)
PER_DIRECTION: tuple[Direction, ...] = ("query_to_doc", "doc_to_query")
BLOCK_ROWS = 256


@dataclass(frozen=True)
class ContrastiveConfig:
    """How in-batch negatives are compared; the settings of the losses of this module."""

    scale: float
    similarity_fct: Similarity
    directions: tuple[str, ...]
    partition_mode: str
    hardness_mode: str | None
    hardness_strength: float

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError(f"scale must be a number above 0, got {self.scale}.")
        if not self.directions or len(set(self.directions)) != len(self.directions):
            raise InputError(f"directions must name at least one direction, each once; got {self.directions}.")
        if unknown := [name for name in self.directions if name not in DIRECTIONS]:
            raise InputError(f"Unknown directions {unknown}; known are {', '.join(DIRECTIONS)}.")
        if "query_to_doc" not in self.directions:
            raise InputError(f"directions must include 'query_to_doc', got {self.directions}.")
        if self.partition_mode not in ("joint", "per_direction"):
            raise InputError(f"partition_mode must be 'joint' or 'per_direction', got {self.partition_mode!r}.")
        if self.partition_mode == "per_direction" and not set(self.directions) <= set(PER_DIRECTION):
            raise InputError(
                f"partition_mode='per_direction' works with the directions {PER_DIRECTION}, got {self.directions}."
            )
        if self.hardness_mode is not None and self.hardness_mode not in HARDNESS:
            raise InputError(f"Unknown hardness_mode {self.hardness_mode!r}; known are {', '.join(HARDNESS)} and None.")
        if self.hardness_strength < 0:
            raise InputError(f"hardness_strength must be at least 0, got {self.hardness_strength}.")


@dataclass(frozen=True)
class Candidates:
    """What the rows of a batch are compared with.

    Attributes:
        queries: (N, H) of all processes.
        documents: one (N, H) per column: positives, then columns of negatives; of all processes.
        offset: place of the first local row among the N.
    """

    queries: Tensor
    documents: Sequence[Tensor]
    offset: int


def contrast_rows(
    queries: Tensor, positives: Tensor, rows: Tensor, others: Candidates, how: ContrastiveConfig
) -> Tensor:
    """Loss of some rows of the batch, summed.

    Args:
        queries, positives: (b, H).
        rows: (b,) int64, their places among the N candidates.
    """
    count, place = len(others.queries), torch.arange(len(queries), device=queries.device)
    documents = torch.cat(list(others.documents))
    similarity = how.similarity_fct(queries, documents)
    scores = similarity * how.scale
    positive = scores[place, rows]
    if how.hardness_mode is not None and how.hardness_strength:
        scores = scores + how.hardness_strength * hardness_bonus(similarity.detach(), rows, count, how.hardness_mode)
    blocks = [scores]
    if "query_to_query" in how.directions:
        same = how.similarity_fct(queries, others.queries) * how.scale
        blocks.append(same.masked_fill(own_candidates(rows, count, 1), -torch.inf))
    if "doc_to_query" in how.directions:
        blocks.append(how.similarity_fct(positives, others.queries) * how.scale)
    if "doc_to_doc" in how.directions:
        same = how.similarity_fct(positives, documents) * how.scale
        blocks.append(same.masked_fill(own_candidates(rows, count, len(others.documents)), -torch.inf))
    if how.partition_mode == "joint":
        return (torch.cat(blocks, dim=1).logsumexp(1) - positive).sum()
    return sum(((block.logsumexp(1) - positive).sum() for block in blocks), positive.new_zeros(())) / len(blocks)


def own_candidates(rows: Tensor, count: int, columns: int) -> Tensor:
    """(b, columns · N) bool: the candidates that belong to each row itself."""
    places = torch.arange(count * columns, device=rows.device) % count
    return places[None, :] == rows[:, None]


def hardness_bonus(similarity: Tensor, rows: Tensor, count: int, mode: str) -> Tensor:
    """(b, columns · N) similarities of the negatives that weigh more, 0 elsewhere."""
    columns = similarity.shape[1] // count
    places = torch.arange(count * columns, device=rows.device)
    mine, further = own_candidates(rows, count, columns), (places >= count)[None, :]
    chosen = {
        "in_batch_negatives": ~mine,
        "hard_negatives": mine & further,
        "all_negatives": ~mine | further,
    }[mode]
    return torch.where(chosen, similarity, torch.zeros_like(similarity))


def in_batch_negatives(
    embeddings: Sequence[Tensor],
    how: ContrastiveConfig,
    gather: bool = False,
    block_rows: int | None = None,
    backward: bool = False,
) -> Tensor:
    """Mean loss over the queries of a batch.

    Args:
        embeddings: (B, H) of each column: anchors, positives, columns of negatives.
        gather: take candidates from all processes, with gradients to them.
        block_rows: rows computed at a time; None for all at once.
        backward: call `backward` on each block and return a detached value.
    """
    queries, documents = embeddings[0], list(embeddings[1:])
    size = len(queries)
    others = Candidates(queries, documents, 0)
    if gather:
        everywhere = [all_gather_with_grad(column) for column in embeddings]
        others = Candidates(everywhere[0], everywhere[1:], get_rank() * size)
    total = queries.new_zeros(()).float()
    for start in range(0, size, block_rows or size):
        part = slice(start, min(start + (block_rows or size), size))
        rows = torch.arange(part.start, part.stop, device=queries.device) + others.offset
        share = contrast_rows(queries[part], documents[0][part], rows, others, how) / size
        if backward:
            share.backward(retain_graph=gather)
            share = share.detach()
        total = total + share
    return total


@with_twin("sentence_transformers.losses.cross_negatives")
class MultipleNegativesRankingLoss(Loss):
    """In-batch negatives: the formula is at the top of this module.

    Given a `CrossEncoder`, this is its loss of that name.

    Args:
        model: the model that is trained.
        scale: factor of the similarities; 1 / temperature.
        similarity_fct: (q, H), (d, H) -> (q, d).
        gather_across_devices: take the documents of all processes as candidates.
        directions: which similarities count; "query_to_doc" always.
        partition_mode: "joint" or "per_direction".
        hardness_mode: which negatives weigh more: "in_batch_negatives" (documents of other queries), "hard_negatives"
            (the query's own further columns), "all_negatives"; None for none.
        hardness_strength: how much more.

    Raises:
        InputError: for unknown settings.
    """

    citation = cites("oord2019representationlearningcontrastivepredictive")
    accepts = (PAIRS, TUPLES)
    config_keys: ClassVar[tuple[str, ...]] = (
        "scale",
        "similarity_fct",
        "gather_across_devices",
        "directions",
        "partition_mode",
        "hardness_mode",
        "hardness_strength",
    )

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        gather_across_devices: bool = False,
        directions: tuple[Direction, ...] = ("query_to_doc",),
        partition_mode: Literal["joint", "per_direction"] = "joint",
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__(model)
        self.scale, self.similarity_fct, self.gather_across_devices = scale, similarity_fct, gather_across_devices
        self.directions, self.partition_mode = tuple(directions), partition_mode
        self.hardness_mode, self.hardness_strength = hardness_mode, hardness_strength
        _ = self.how

    @property
    def how(self) -> ContrastiveConfig:
        """The settings of the formula."""
        return ContrastiveConfig(
            self.scale,
            self.similarity_fct,
            self.directions,
            self.partition_mode,
            self.hardness_mode,
            self.hardness_strength,
        )

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        check_columns(embeddings, 2, None, type(self).__name__)
        return in_batch_negatives(embeddings, self.how, self.gather_across_devices)

    @property
    def temperature(self) -> float:
        """1 / scale."""
        return 1 / self.scale


@with_twin("sentence_transformers.losses.cross_negatives")
class CachedMultipleNegativesRankingLoss(CachedLossMixin, MultipleNegativesRankingLoss):
    """In-batch negatives with batches of any size in the memory of a small one (`losses.gradient_cache`).

    Args:
        mini_batch_size: texts embedded together on the average; mini-batches have about equally many tokens.
        mini_batch_num_tokens: most tokens embedded together, in the place of a number of texts.
        show_progress_bar: show a bar over the mini-batches.
        others: see `MultipleNegativesRankingLoss`.
    """

    citation = cites("gao2021scaling")
    config_keys = (
        "scale",
        "similarity_fct",
        "mini_batch_size",
        "mini_batch_num_tokens",
        "gather_across_devices",
        "directions",
        "partition_mode",
        "hardness_mode",
        "hardness_strength",
    )

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: tuple[Direction, ...] = ("query_to_doc",),
        partition_mode: Literal["joint", "per_direction"] = "joint",
        show_progress_bar: bool = False,
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        MultipleNegativesRankingLoss.__init__(
            self,
            model,
            scale,
            similarity_fct,
            gather_across_devices,
            directions,
            partition_mode,
            hardness_mode,
            hardness_strength,
        )
        self._set_mini_batches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)

    def calculate_loss(self, reps: list[Any], labels: Tensor | None = None, *, with_backward: bool = False) -> Tensor:
        """Loss of the vectors of each column, as lists of (b, H)."""
        columns = [part if isinstance(part, Tensor) else torch.cat(list(part)) for part in reps]
        check_columns(columns, 2, None, type(self).__name__)
        block = max(self.mini_batch_size, BLOCK_ROWS)
        return in_batch_negatives(columns, self.how, self.gather_across_devices, block, with_backward)


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss):
    """Older name of `MultipleNegativesRankingLoss` in both directions, one softmax each."""

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        gather_across_devices: bool = False,
    ) -> None:
        warn_symmetric(type(self).__name__)
        super().__init__(model, scale, similarity_fct, gather_across_devices, PER_DIRECTION, "per_direction")


class CachedMultipleNegativesSymmetricRankingLoss(CachedMultipleNegativesRankingLoss):
    """Older name of `CachedMultipleNegativesRankingLoss` in both directions, one softmax each."""

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,
    ) -> None:
        warn_symmetric(type(self).__name__)
        super().__init__(
            model,
            scale,
            similarity_fct,
            mini_batch_size,
            mini_batch_num_tokens,
            gather_across_devices,
            PER_DIRECTION,
            "per_direction",
            show_progress_bar,
        )


def warn_symmetric(name: str) -> None:
    """Say what the older name stands for."""
    newer = name.replace("Symmetric", "")
    text = f"{name} is now {newer} with directions={PER_DIRECTION} and partition_mode='per_direction'."
    warnings.warn(text, DeprecationWarning, stacklevel=3)
