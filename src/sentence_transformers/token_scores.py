"""MaxSim as the losses of late interaction call it: of all pairs, of pairs in a row, of a query's own candidates.

    colbert_scores            (Q, I, H), (D, J, H)      -> (Q, D)        documents (D, n, J, H) count as D · n
    colbert_scores_pairwise   (N, I, H), (N, J, H)      -> (N,)
    colbert_kd_scores         (B, I, H), (B, n, J, H)   -> (B, n)

Those called mean divide by the number of query tokens. Masks and lists of ragged items: as in `maxsim`. The twins of
XTR are in `xtr`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.maxsim import maxsim, maxsim_pairwise
from sentence_transformers.util.tensor import ArrayLike


def colbert_scores(
    queries_embeddings: ArrayLike,
    documents_embeddings: ArrayLike,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Tensor:
    """`maxsim` of every query and every document: float (Q, D)."""
    documents, mask = flat_documents(documents_embeddings, documents_mask)
    return maxsim(queries_embeddings, documents, queries_mask, mask, chunk_elements, length_normalize)


def colbert_scores_pairwise(
    queries_embeddings: ArrayLike,
    documents_embeddings: ArrayLike,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Tensor:
    """`maxsim` of query n and document n: float (N,)."""
    masks = queries_mask, documents_mask
    return maxsim_pairwise(queries_embeddings, documents_embeddings, *masks, chunk_elements, length_normalize)


def colbert_kd_scores(
    queries_embeddings: ArrayLike,
    documents_embeddings: Any,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Tensor:
    """`maxsim` of each query and its own candidates: float (B, n).

    Args:
        queries_embeddings: (B, I, H), or a list of (I, H).
        documents_embeddings: (B, n, J, H), or for each query a list of n (J, H).
        queries_mask: (B, I).
        documents_mask: (B, n, J).
        chunk_elements, length_normalize: see `maxsim`.

    Raises:
        InputError: if queries have different numbers of candidates, or there are not as many lists as queries.
    """
    counts = {len(candidates) for candidates in documents_embeddings}
    if len(counts) > 1 or len(documents_embeddings) != len(queries_embeddings):
        raise InputError(
            f"{len(queries_embeddings)} queries need as many lists of candidates, each of one length; got "
            f"{len(documents_embeddings)} lists of {sorted(counts)} candidates."
        )
    count = counts.pop() if counts else 0
    whole = isinstance(documents_embeddings, Tensor)
    documents = documents_embeddings.flatten(0, 1) if whole else [one for part in documents_embeddings for one in part]
    queries: Any = queries_embeddings
    if isinstance(queries, Tensor):
        queries = queries.repeat_interleave(count, 0)
    else:
        queries = [query for query in queries for _ in range(count)]
    scores = maxsim_pairwise(
        queries,
        documents,
        None if queries_mask is None else torch.as_tensor(queries_mask).repeat_interleave(count, 0),
        None if documents_mask is None else torch.as_tensor(documents_mask).flatten(0, 1),
        chunk_elements,
        length_normalize,
    )
    return scores.view(-1, count)


def flat_documents(documents: Any, mask: Tensor | None) -> tuple[Any, Tensor | None]:
    """Documents (D, n, J, H) and their mask (D, n, J) as D · n of them; anything else as it is."""
    if not (isinstance(documents, Tensor) and documents.ndim == 4):
        return documents, mask
    return documents.flatten(0, 1), None if mask is None else torch.as_tensor(mask).flatten(0, 1)


def mean_colbert_scores(
    queries_embeddings: ArrayLike,
    documents_embeddings: ArrayLike,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
) -> Tensor:
    """`colbert_scores` by the mean over the query's tokens."""
    masks = queries_mask, documents_mask
    return colbert_scores(queries_embeddings, documents_embeddings, *masks, chunk_elements, length_normalize)


def mean_colbert_scores_pairwise(
    queries_embeddings: ArrayLike,
    documents_embeddings: ArrayLike,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
) -> Tensor:
    """`colbert_scores_pairwise` by the mean over the query's tokens."""
    masks = queries_mask, documents_mask
    return colbert_scores_pairwise(queries_embeddings, documents_embeddings, *masks, chunk_elements, length_normalize)


def mean_colbert_kd_scores(
    queries_embeddings: ArrayLike,
    documents_embeddings: Any,
    queries_mask: Tensor | None = None,
    documents_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
) -> Tensor:
    """`colbert_kd_scores` by the mean over the query's tokens."""
    masks = queries_mask, documents_mask
    return colbert_kd_scores(queries_embeddings, documents_embeddings, *masks, chunk_elements, length_normalize)
