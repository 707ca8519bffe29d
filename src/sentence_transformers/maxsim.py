"""MaxSim: the similarity of two texts that have one vector per token (ColBERT, https://arxiv.org/abs/2004.12832).

Every query token looks for the document token that it likes best, and the likings are added up:

    maxsim(q, d) = Σᵢ maxⱼ qᵢᵀdⱼ            mean_maxsim(q, d) = maxsim(q, d) / |q|

Shapes: Q queries of I tokens, D documents of J tokens, dimension H. Items may be ragged (a list of (tokens, H)
arrays); they are padded with zero rows. A token counts if its mask is not zero, or, without a mask, if its vector is
not all zero. A document without any token scores `EMPTY_DOCUMENT`, below every other one; a query without any token
scores 0.

The token similarities Q × I × D × J are never held at once: blocks of queries and documents keep them below
`chunk_elements` values. Only each maximum is kept for the backward pass.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.util.tensor import ArrayLike, describe, to_float

EMPTY_DOCUMENT = -1e9
CHUNK_ELEMENTS = 100_000_000


class TokenEmbeddings(NamedTuple):
    """N items of L tokens: `vectors` (N, L, H), `mask` (N, L) float, 0 for padding."""

    vectors: Tensor
    mask: Tensor

    def block(self, start: int, stop: int, like: Tensor) -> TokenEmbeddings:
        """Items `start:stop`, on the device and in the dtype of `like`."""
        return TokenEmbeddings(self.vectors[start:stop].to(like), self.mask[start:stop].to(like))


def maxsim(
    a: ArrayLike,
    b: ArrayLike,
    a_mask: Tensor | None = None,
    b_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
    device: str | torch.device | None = None,
) -> Tensor:
    """Σᵢ maxⱼ aᵢᵀbⱼ for every query in `a` and every document in `b`.

    Args:
        a: queries: (Q, I, H), or a list of (I, H), or (I, H) for one query.
        b: documents, likewise.
        a_mask: (Q, I), weight of each query token, 0 for padding. None: all-zero vectors are padding.
        b_mask: (D, J), not 0 for document tokens. None: all-zero vectors are padding.
        chunk_elements: the greatest number of token similarities held at once; None means 100 million.
        length_normalize: divide by the number of query tokens.
        device: where to compute; None means where `a` is.

    Returns:
        Float of shape (Q, D); float64 if an argument is, else float32.

    Raises:
        InputError: if dimensions differ or a mask does not fit.
    """
    queries, documents = _two_sides(a, b, a_mask, b_mask)
    like = _like(queries, documents, device)
    q_step, d_step = _block_sizes(queries.mask, documents.mask, chunk_elements)
    rows = []
    for start in range(0, len(queries.mask), q_step):
        query = queries.block(start, start + q_step, like)
        columns = [
            _score_block(query, documents.block(j, j + d_step, like)) for j in range(0, len(documents.mask), d_step)
        ]
        scores = torch.cat(columns, dim=1) if columns else like.new_zeros(len(query.mask), 0)
        rows.append(scores / _token_counts(query.mask)[:, None] if length_normalize else scores)
    return torch.cat(rows) if rows else like.new_zeros(0, len(documents.mask))


def maxsim_pairwise(
    a: ArrayLike,
    b: ArrayLike,
    a_mask: Tensor | None = None,
    b_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
    device: str | torch.device | None = None,
) -> Tensor:
    """Σᵢ maxⱼ aᵢᵀbⱼ of query n and document n. Arguments as in `maxsim`.

    Returns:
        Float of shape (N,).

    Raises:
        InputError: also if there are not as many queries as documents.
    """
    queries, documents = _two_sides(a, b, a_mask, b_mask)
    count = len(queries.mask)
    if count != len(documents.mask):
        raise InputError(f"Pairs need as many queries as documents, got {count} and {len(documents.mask)}.")
    like = _like(queries, documents, device)
    step = max(1, _budget(chunk_elements) // max(1, queries.mask.shape[1] * documents.mask.shape[1]))
    scores = []
    for start in range(0, count, step):
        query, document = (side.block(start, start + step, like) for side in (queries, documents))
        score = _score_pairs(query, document)
        scores.append(score / _token_counts(query.mask) if length_normalize else score)
    return torch.cat(scores) if scores else like.new_zeros(0)


def mean_maxsim(
    a: ArrayLike,
    b: ArrayLike,
    a_mask: Tensor | None = None,
    b_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
    device: str | torch.device | None = None,
) -> Tensor:
    """`maxsim` divided by the number of query tokens, so that short and long queries have scores of one scale."""
    return maxsim(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)


def mean_maxsim_pairwise(
    a: ArrayLike,
    b: ArrayLike,
    a_mask: Tensor | None = None,
    b_mask: Tensor | None = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
    device: str | torch.device | None = None,
) -> Tensor:
    """`maxsim_pairwise` divided by the number of query tokens."""
    return maxsim_pairwise(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)


def _score_block(queries: TokenEmbeddings, documents: TokenEmbeddings) -> Tensor:
    """(q, I, H), (d, J, H) -> (q, d)."""
    q, d = queries.mask.shape, documents.mask.shape
    similarities = queries.vectors.flatten(0, 1) @ documents.vectors.flatten(0, 1).T  # (q·I, d·J)
    best = _best(similarities.view(*q, *d), documents.mask)  # (q, I, d)
    scores = torch.einsum("qid,qi->qd", best, queries.mask)
    return scores.masked_fill(_empty(documents.mask), EMPTY_DOCUMENT)


def _score_pairs(queries: TokenEmbeddings, documents: TokenEmbeddings) -> Tensor:
    """(n, I, H), (n, J, H) -> (n,)."""
    similarities = queries.vectors @ documents.vectors.mT  # (n, I, J)
    best = _best(similarities, documents.mask[:, None])
    return (best * queries.mask).sum(1).masked_fill(_empty(documents.mask), EMPTY_DOCUMENT)


def _best(similarities: Tensor, mask: Tensor) -> Tensor:
    """maxⱼ over the last axis where `mask` (broadcast) is not 0; some finite number where nothing is."""
    if similarities.shape[-1] == 0:
        return similarities.new_zeros(similarities.shape[:-1])
    if not mask.all():
        similarities = similarities.masked_fill(mask == 0, EMPTY_DOCUMENT)
    # `amax` is the faster one, but it would keep all similarities for the backward pass; `max` keeps indices only.
    return similarities.max(dim=-1).values if similarities.requires_grad else similarities.amax(dim=-1)


def _empty(mask: Tensor) -> Tensor:
    """(N, L) -> (N,) bool: items without tokens."""
    return (mask == 0).all(dim=1)


def _token_counts(mask: Tensor) -> Tensor:
    """(N, L) -> (N,): number of tokens, at least 1."""
    return (mask != 0).sum(dim=1).clamp_min(1)


def _budget(chunk_elements: int | None) -> int:
    return CHUNK_ELEMENTS if chunk_elements is None else max(1, chunk_elements)


def _block_sizes(query_mask: Tensor, document_mask: Tensor, chunk_elements: int | None) -> tuple[int, int]:
    """How many queries and documents have at most `chunk_elements` token similarities; at least one of each."""
    pairs = max(1, _budget(chunk_elements) // max(1, query_mask.shape[1] * document_mask.shape[1]))
    documents = max(1, min(len(document_mask), pairs))
    return max(1, min(len(query_mask), pairs // documents)), documents


def _like(queries: TokenEmbeddings, documents: TokenEmbeddings, device: str | torch.device | None) -> Tensor:
    """An empty tensor with the device and the dtype in which to compute: float64 if a side is, else float32."""
    wide = torch.float64 in (queries.vectors.dtype, documents.vectors.dtype)
    return torch.empty(0, dtype=torch.float64 if wide else torch.float32, device=device or queries.vectors.device)


def _two_sides(
    a: ArrayLike, b: ArrayLike, a_mask: Tensor | None, b_mask: Tensor | None
) -> tuple[TokenEmbeddings, TokenEmbeddings]:
    queries, documents = _token_embeddings(a, a_mask, "a"), _token_embeddings(b, b_mask, "b")
    if len(queries.mask) and len(documents.mask) and queries.vectors.shape[2] != documents.vectors.shape[2]:
        raise InputError(
            "Token embeddings of different dimensions cannot be compared: "
            f"`a` has dimension {queries.vectors.shape[2]}, `b` has {documents.vectors.shape[2]}."
        )
    return queries, documents


def _token_embeddings(items: ArrayLike, mask: Tensor | None, name: str) -> TokenEmbeddings:
    """Any of the accepted forms as padded vectors and a mask."""
    vectors = _pad(items, name) if isinstance(items, (list, tuple)) else _as_vectors(items)
    if vectors.ndim == 2:
        vectors = vectors.unsqueeze(0)
    if vectors.ndim != 3:
        raise InputError(f"`{name}` must have shape (N, tokens, H) or (tokens, H), got {tuple(vectors.shape)}.")
    if mask is None:
        return TokenEmbeddings(vectors, (vectors != 0).any(dim=-1))
    mask = torch.as_tensor(mask)
    if mask.shape != vectors.shape[:2]:
        raise InputError(
            f"`{name}_mask` must have the shape {tuple(vectors.shape[:2])} of the padded embeddings, "
            f"got {tuple(mask.shape)}."
        )
    return TokenEmbeddings(vectors, mask)


def _as_vectors(item: ArrayLike) -> Tensor:
    """A float tensor, left in half precision: blocks are widened when they are computed."""
    if isinstance(item, Tensor) and item.dtype in (torch.float16, torch.bfloat16):
        return item
    return to_float(item)


def _pad(items: ArrayLike, name: str) -> Tensor:
    """A list of (tokens, H) arrays -> (N, L, H), padded with zeros."""
    tensors = [_as_vectors(item if isinstance(item, (Tensor, np.ndarray)) else list(item)) for item in items]
    if not tensors:
        return torch.zeros(0, 0, 0)
    if any(t.ndim != 2 or t.shape[1] != tensors[0].shape[1] for t in tensors):
        shapes = ", ".join(dict.fromkeys(str(tuple(t.shape)) for t in tensors[:10]))
        raise InputError(f"`{name}` must hold arrays of shape (tokens, H) with one H, got {describe(items)}: {shapes}.")
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
