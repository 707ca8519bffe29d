"""XTR: late interaction by the tokens that a search would have found (Lee et al. 2023, https://arxiv.org/abs/2304.01982).

Each query token finds the `top_k` nearest of all document tokens of a batch; only those count:

    xtr(q, d) = Σᵢ maxⱼ {qᵢᵀdⱼ : j found by i} / Zd          Zd: query tokens that found something in d

A query token that found nothing in a document adds nothing there. So a model is trained to find, not only to compare.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.maxsim import CHUNK_ELEMENTS, token_embeddings
from sentence_transformers.token_scores import flat_documents
from sentence_transformers.util.tensor import ArrayLike

TOP_K = 256


def xtr_scores(
    queries_embeddings: ArrayLike,
    documents_embeddings: ArrayLike,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
    top_k: int = TOP_K,
    chunk_elements: int | None = None,
) -> Tensor:
    """Every query with every document, whose tokens compete with each other.

    Args:
        queries_embeddings: (Q, I, H), or a list of (I, H).
        documents_embeddings: (D, J, H), a list of (J, H), or (D, n, J, H), which count as D · n documents.
        queries_mask, documents_mask: 0 for padding; None: all-zero vectors are padding.
        top_k: document tokens that each query token finds.
        chunk_elements: most token similarities held at once, by blocks of queries; None means 100 million.

    Returns:
        Float of shape (Q, D), where the queries are.

    Raises:
        InputError: if `top_k` is less than 1, or shapes do not fit.
    """
    check_top_k(top_k)
    documents, mask = flat_documents(documents_embeddings, documents_mask)
    q, d = token_embeddings(queries_embeddings, queries_mask, "a"), token_embeddings(documents, mask, "b")
    place = q.vectors.device
    tokens, there = d.vectors.to(place).flatten(0, 1).float(), d.mask.to(place) != 0
    step = max(1, (chunk_elements or CHUNK_ELEMENTS) // max(1, q.mask.shape[1] * len(tokens)))
    scores = [
        of_similarities(vectors.float() @ tokens.T, wanted != 0, there, top_k)
        for vectors, wanted in zip(q.vectors.split(step), q.mask.to(place).split(step), strict=True)
    ]
    return torch.cat(scores) if scores else tokens.new_zeros(0, len(d.mask))


def xtr_scores_pairwise(
    queries_embeddings: ArrayLike,
    documents_embeddings: ArrayLike,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
    top_k: int = TOP_K,
    chunk_elements: int | None = None,
) -> Tensor:
    """Query n with document n, among the tokens of all documents: (N,). Arguments: `xtr_scores`."""
    masks = queries_mask, documents_mask
    return xtr_scores(queries_embeddings, documents_embeddings, *masks, top_k, chunk_elements).diagonal()


def xtr_kd_scores(
    queries_embeddings: ArrayLike,
    documents_embeddings: Any,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
    top_k: int = TOP_K,
    chunk_elements: int | None = None,
) -> Tensor:
    """Each query with its own n candidates, among the tokens of all candidates of the batch: (B, n).

    Args:
        documents_embeddings: (B, n, J, H), or for each query a list of n (J, H).
        documents_mask: (B, n, J).
        others: see `xtr_scores`.
    """
    count = len(queries_embeddings)
    documents: Any = documents_embeddings
    if not isinstance(documents, Tensor):
        documents = [one for candidates in documents for one in candidates]
    scores = xtr_scores(queries_embeddings, documents, queries_mask, documents_mask, top_k, chunk_elements)
    return scores.view(count, count, -1)[torch.arange(count), torch.arange(count)]


def of_similarities(similarities: Tensor, wanted: Tensor, there: Tensor, top_k: int) -> Tensor:
    """Scores (q, D) of token similarities (q, I, D · J), query tokens (q, I) bool and document tokens (D, J) bool."""
    similarities = similarities.masked_fill(~there.flatten(), -torch.inf)
    found = torch.zeros_like(similarities, dtype=torch.bool)
    count = min(top_k, similarities.shape[-1])
    found.scatter_(-1, similarities.detach().topk(count, dim=-1).indices, True)
    best = similarities.masked_fill(~found, -torch.inf).unflatten(-1, there.shape).amax(-1)  # (q, I, D)
    counts = best.isfinite() & wanted[..., None]
    total = best.masked_fill(~counts, 0).sum(1)
    return total / counts.sum(1).clamp_min(1)


class XTRScores:
    """`xtr_scores` with its settings, for a loss: `MultiVectorMultipleNegativesRankingLoss(model, similarity_fct=…)`.

    Args:
        top_k, chunk_elements: see `xtr_scores`.

    Raises:
        InputError: if `top_k` is less than 1.
    """

    def __init__(self, top_k: int = TOP_K, *, chunk_elements: int | None = None) -> None:
        check_top_k(top_k)
        self.top_k, self.chunk_elements = top_k, chunk_elements

    def __call__(
        self,
        queries_embeddings: ArrayLike,
        documents_embeddings: ArrayLike,
        queries_mask: Tensor | None = None,
        documents_mask: Tensor | None = None,
    ) -> Tensor:
        masks = queries_mask, documents_mask
        return xtr_scores(queries_embeddings, documents_embeddings, *masks, self.top_k, self.chunk_elements)

    def get_config_dict(self) -> dict[str, int | None]:
        """The settings."""
        return {"top_k": self.top_k, "chunk_elements": self.chunk_elements}


class XTRKDScores(XTRScores):
    """`xtr_kd_scores` with its settings, for `MultiVectorDistillKLDivLoss`."""

    def __call__(
        self,
        queries_embeddings: ArrayLike,
        documents_embeddings: ArrayLike,
        queries_mask: Tensor | None = None,
        documents_mask: Tensor | None = None,
    ) -> Tensor:
        masks = queries_mask, documents_mask
        return xtr_kd_scores(queries_embeddings, documents_embeddings, *masks, self.top_k, self.chunk_elements)


def check_top_k(top_k: int) -> None:
    """Raise `InputError` unless at least one token is to be found."""
    if top_k < 1:
        raise InputError(f"top_k must be at least 1, got {top_k}.")
