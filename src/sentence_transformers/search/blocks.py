"""The engine of exact search: the best documents of each query, block by block.

Queries (Q, H) and documents (D, H) are walked in blocks; of each block of scores only the best `top_k` survive, merged
with the best so far. Memory is Q × top_k plus one block of scores, whatever D is. Equal scores are ordered by document
number, so the answer does not depend on the sizes of the blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.similarity import cos_sim, dot_score
from sentence_transformers.util.tensor import ArrayLike, describe, normalize_embeddings, take_rows, to_float

ScoreFunction: TypeAlias = Callable[[Any, Any], Tensor]

BLOCK_SCORES = 2**25
"""Scores held at once, at most (unless one row of a block has more)."""


@torch.no_grad()
def best_documents(
    queries: Tensor | np.ndarray | list,
    documents: Tensor | np.ndarray | list,
    top_k: int,
    score_function: ScoreFunction,
    query_block: int,
    document_block: int,
    first_query: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Scores and ids of the best documents of every query, both of shape (Q, min(top_k, D)), best first.

    Args:
        queries, documents: non-empty sources (see `as_source`).
        first_query: if given, query n is document `first_query + n` itself, which is then left out (score -inf).
    """
    prepare, score = split_score_function(score_function)
    device = common_device(queries, documents)
    document_block = min(document_block, len(documents), BLOCK_SCORES)
    query_block = min(query_block, max(1, BLOCK_SCORES // document_block))
    merged: list[tuple[Tensor, Tensor] | None] = [None] * -(-len(queries) // query_block)
    for start in range(0, len(documents), document_block):
        block = prepare(take_block(documents, start, start + document_block, device))
        for number, query_start in enumerate(range(0, len(queries), query_block)):
            query = prepare(take_block(queries, query_start, query_start + query_block, device))
            scores = score(query, block)
            if first_query is not None:
                mask_self(scores, first_query + query_start - start)
            values, ids = top_stable(scores, top_k)
            merged[number] = merge(merged[number], (values, ids + start), top_k)
    blocks = [best for best in merged if best is not None]
    if not blocks:
        return torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.int64)
    return torch.cat([values for values, _ in blocks]), torch.cat([ids for _, ids in blocks])


def top_stable(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Like `scores.topk(k)` of (Q, D), clipped to D columns, with equal values ordered by column.

    `topk` picks any of the columns that tie for the last place. One place more shows whether there is such a tie; only
    those rows are sorted in full.
    """
    k = min(k, scores.shape[1])
    values, ids = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    tied = (values[:, k - 1] == values[:, k]).nonzero()[:, 0].tolist() if values.shape[1] > k else []
    values, ids = order(values[:, :k], ids[:, :k])
    for row in tied:
        candidates = (scores[row] >= values[row, -1]).nonzero()[:, 0]
        best = scores[row, candidates].sort(descending=True, stable=True).indices[:k]
        ids[row] = candidates[best]
        values[row] = scores[row, ids[row]]
    return values, ids


def order(values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each row by falling value, equal values by rising id."""
    by_id = ids.argsort(dim=1)
    ids, values = ids.gather(1, by_id), values.gather(1, by_id)
    values, by_value = values.sort(dim=1, descending=True, stable=True)
    return values, ids.gather(1, by_value)


def merge(best: tuple[Tensor, Tensor] | None, new: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The best k of two sorted results; all ids in `best` are lower than those in `new`."""
    if best is None:
        return new
    values = torch.cat([best[0], new[0]], dim=1)
    ids = torch.cat([best[1], new[1]], dim=1)
    values, places = values.sort(dim=1, descending=True, stable=True)
    return values[:, :k], ids.gather(1, places)[:, :k]


def mask_self(scores: Tensor, offset: int) -> None:
    """Set scores[n, n + offset] to -inf where that lies inside, in place."""
    if -scores.shape[0] < offset < scores.shape[1]:
        scores.diagonal(offset).fill_(-torch.inf)


def split_score_function(score_function: ScoreFunction) -> tuple[Callable[[Any], Any], ScoreFunction]:
    """A score function as a preparation of one side and a score of two prepared sides.

    Cosine is the dot product of normalised rows; so each block is normalised once instead of once a pair of blocks.
    """
    if score_function is cos_sim:
        return normalize_embeddings, dot_score
    return (lambda rows: rows), score_function


def as_source(embeddings: ArrayLike) -> Tensor | np.ndarray | list:
    """What blocks can be taken from: an array as it is, a list of vectors as one tensor, a list of token embeddings.

    A single vector becomes one row.
    """
    if isinstance(embeddings, (list, tuple)):
        ragged = len(embeddings) > 0 and getattr(embeddings[0], "ndim", 0) == 2
        return list(embeddings) if ragged else as_source(to_float(embeddings))
    if isinstance(embeddings, (np.ndarray, Tensor)) and embeddings.ndim > 0:
        return embeddings[None] if embeddings.ndim == 1 and len(embeddings) else embeddings
    raise InputError(f"Embeddings must be a tensor, a numpy array or a list of them, got {describe(embeddings)}.")


def take_block(source: Tensor | np.ndarray | list, start: int, stop: int, device: torch.device) -> Any:
    """Rows `start:stop` as float on `device`."""
    if isinstance(source, list):
        return [to_float(item).to(device) for item in source[start:stop]]
    rows = take_rows(source, start, stop) if isinstance(source, Tensor) else source[start:stop]
    return to_float(rows).to(device)


def common_device(queries: Any, documents: Any) -> torch.device:
    """The accelerator that either side lies on (documents first), else the CPU."""
    devices = [torch.device(getattr(side, "device", "cpu")) for side in (documents, queries)]
    return next((device for device in devices if device.type != "cpu"), devices[0])


def check_dimensions(queries: Any, documents: Any) -> None:
    """`InputError` unless both sides have rows of one dimension, or one side is empty."""
    if not len(queries) or not len(documents):
        return
    shapes = [side[0].shape if isinstance(side, list) else side.shape for side in (queries, documents)]
    if shapes[0][-1] != shapes[1][-1]:
        raise InputError(
            "Queries and documents must have the same dimension, got "
            f"query embeddings of shape {tuple(shapes[0])} and corpus embeddings of shape {tuple(shapes[1])}. "
            "Were both made by the same model, with the same `truncate_dim`?"
        )


def check_sizes(top_k: int, **chunk_sizes: int) -> None:
    """`InputError` for a negative `top_k` or a chunk size below 1."""
    if top_k < 0:
        raise InputError(f"`top_k` must not be negative, got {top_k}.")
    for name, size in chunk_sizes.items():
        if size < 1:
            raise InputError(f"`{name}` must be at least 1, got {size}.")
