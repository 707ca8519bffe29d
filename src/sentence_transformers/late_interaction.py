"""Late interaction: the similarity of texts that have a vector per token (ColBERT, https://arxiv.org/abs/2004.12832).

Every query token looks for the document token that it likes best, and the likings are added up:

    maxsim(q, d) = Σᵢ maxⱼ qᵢᵀdⱼ            mean_maxsim(q, d) = maxsim(q, d) / |q|

Shapes: Q queries of I tokens, D documents of J tokens, dimension H. Items may be ragged (a list of (tokens, H)
arrays); they are padded with zero rows. A token counts if its mask is not zero, or, without a mask, if its vector is
not all zero. A document without any token scores `EMPTY_DOCUMENT`, below every other one; a query without any token
scores 0.

Of all pairs nothing is computed for padding: the tokens of a block of documents lie end to end, longest document first,
and meet those of a block of queries in one product; documents of equal length are a group whose maxima are taken
together. The token similarities are never held at once: blocks keep them below `chunk_elements` values. Only each
maximum is kept for the backward pass.

Losses call it by names of their own, of all pairs, of pairs in a row, of a query's own candidates:

    colbert_scores            (Q, I, H), (D, J, H)      -> (Q, D)        documents (D, n, J, H) count as D · n
    colbert_scores_pairwise   (N, I, H), (N, J, H)      -> (N,)
    colbert_kd_scores         (B, I, H), (B, n, J, H)   -> (B, n)

XTR counts those tokens alone that a search would have found (Lee et al. 2023, https://arxiv.org/abs/2304.01982). Each
query token finds the `top_k` nearest of all document tokens of a batch, and adds nothing where it found nothing:

    xtr(q, d) = Σᵢ maxⱼ {qᵢᵀdⱼ : j found by i} / Zd          Zd: query tokens that found something in d
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.engine.batching import micro_batches
from sentence_transformers.errors import InputError
from sentence_transformers.features import Packing
from sentence_transformers.util.tensor import ArrayLike, describe, to_float

logger = logging.getLogger(__name__)

EMPTY_DOCUMENT = -1e9
CHUNK_ELEMENTS = 100_000_000
CACHED_ELEMENTS = 1 << 22  # of a block on a CPU without gradients, where nothing but the maxima is kept
QUERY_TOKENS = 1024  # of a block of queries
TOP_K = 256  # document tokens that a query token finds in XTR
ARRAYS = (Tensor, np.ndarray, list, tuple)  # a tuple: TorchDynamo before 2.8 takes no unions in `isinstance`

F = TypeVar("F", bound=Callable[..., Tensor])


@functools.cache
def warn_of_empty_documents() -> None:
    """Log once that there are documents without tokens."""
    logger.warning(
        "A document has no token that counts: its mask is all 0 (a skip list or a list of kept tokens may leave none), "
        "or its vectors are all zero. Such documents score %g, below all others.",
        EMPTY_DOCUMENT,
    )


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
        a_mask: (Q, I), weight of each query token, 0 for padding; or a list of (I,), or (I,) for one query. None:
            all-zero vectors are padding.
        b_mask: (D, J), not 0 for document tokens; likewise.
        chunk_elements: the greatest number of token similarities held at once; None means 100 million.
        length_normalize: divide by the number of query tokens.
        device: where to compute; None means where `a` is.

    Returns:
        Float of shape (Q, D); float64 if an argument is, else float32.

    Raises:
        InputError: if dimensions differ or a mask does not fit.
        TypeError: for a mask that is no array.
    """
    if torch.compiler.is_compiling():
        return _compiled(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)
    queries, documents = Ragged(a, a_mask, "a"), Ragged(b, b_mask, "b")
    _check_dimensions(queries.dimension, documents.dimension)
    like = _like(queries.dtype, documents.dtype, device or queries.device)
    if not len(queries) or not len(documents):
        return like.new_zeros(len(queries), len(documents))
    if not documents.lengths.all():
        warn_of_empty_documents()
    most = _budget(chunk_elements)
    if like.device.type == "cpu" and not (
        torch.is_grad_enabled() and (queries.requires_grad or documents.requires_grad)
    ):
        most = min(most, CACHED_ELEMENTS)
    wanted = min(QUERY_TOKENS, max(1, most // max(1, int(documents.lengths.max()))))
    rows: list[Tensor] = []
    q_order: list[np.ndarray] = []
    d_order: list[np.ndarray] = []
    for q_places in micro_batches(queries.lengths, wanted, None):
        query = queries.block(q_places, like)
        columns, d_order = [], []
        for d_places in micro_batches(documents.lengths, most // max(1, len(query.vectors)), None):
            columns.append(_score_block(query, documents.block(d_places, like)))
            d_order.append(d_places)
        scores = torch.cat(columns, dim=1)
        counts = query.packing.lengths_tensor.clamp_min(1)[:, None]
        rows.append(scores / counts if length_normalize else scores)
        q_order.append(q_places)
    return torch.cat(rows)[_back(q_order)][:, _back(d_order)]


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
    queries, documents = token_embeddings(a, a_mask, "a"), token_embeddings(b, b_mask, "b")
    count = len(queries.mask)
    if count and len(documents.mask):
        _check_dimensions(queries.vectors.shape[2], documents.vectors.shape[2])
    if count != len(documents.mask):
        raise InputError(f"Pairs need as many queries as documents, got {count} and {len(documents.mask)}.")
    like = _like(queries.vectors.dtype, documents.vectors.dtype, device or queries.vectors.device)
    step = max(1, _budget(chunk_elements) // max(1, queries.mask.shape[1] * documents.mask.shape[1]))
    scores = []
    for start in range(0, count, step):
        query, document = (side.block(start, start + step, like) for side in (queries, documents))
        score = _score_pairs(query, document)
        scores.append(score / _token_counts(query.mask) if length_normalize else score)
    return torch.cat(scores) if scores else like.new_zeros(0)


def averaged(function: F) -> F:
    """The same function under the name mean_…, which divides by the number of query tokens unless it is told not to."""
    defaults = tuple(
        True if value is False else value for value in function.__defaults__ or ()
    )  # of `length_normalize`
    mean = FunctionType(function.__code__, function.__globals__, f"mean_{function.__name__}", defaults)
    mean.__qualname__, mean.__annotations__ = mean.__name__, function.__annotations__
    mean.__doc__ = f"`{function.__name__}` by the mean over the query's tokens: short and long ones have one scale."
    return cast("F", mean)


mean_maxsim = averaged(maxsim)
mean_maxsim_pairwise = averaged(maxsim_pairwise)


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
    documents_embeddings: ArrayLike,
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
    documents: ArrayLike
    if isinstance(documents_embeddings, Tensor):
        documents = documents_embeddings.flatten(0, 1)
    else:
        documents = [one for part in documents_embeddings for one in part]
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


def flat_documents(documents: ArrayLike, mask: Tensor | None) -> tuple[ArrayLike, Tensor | None]:
    """Documents (D, n, J, H) and their mask (D, n, J) as D · n of them; anything else as it is."""
    if isinstance(documents, Tensor) and documents.ndim == 4:
        return documents.flatten(0, 1), None if mask is None else torch.as_tensor(mask).flatten(0, 1)
    return documents, mask


mean_colbert_scores = averaged(colbert_scores)
mean_colbert_scores_pairwise = averaged(colbert_scores_pairwise)
mean_colbert_kd_scores = averaged(colbert_kd_scores)


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
    documents_embeddings: ArrayLike,
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
    whole = isinstance(documents_embeddings, Tensor)
    documents = documents_embeddings if whole else [one for part in documents_embeddings for one in part]
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

    scores = staticmethod(xtr_scores)

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
        return self.scores(queries_embeddings, documents_embeddings, *masks, self.top_k, self.chunk_elements)

    def get_config_dict(self) -> dict[str, int | None]:
        """The settings."""
        return {"top_k": self.top_k, "chunk_elements": self.chunk_elements}


class XTRKDScores(XTRScores):
    """`xtr_kd_scores` with its settings, for `MultiVectorDistillKLDivLoss`."""

    scores = staticmethod(xtr_kd_scores)


def check_top_k(top_k: int) -> None:
    """Raise `InputError` unless at least one token is to be found."""
    if top_k < 1:
        raise InputError(f"top_k must be at least 1, got {top_k}.")


def _compiled(
    a: ArrayLike,
    b: ArrayLike,
    a_mask: Tensor | None,
    b_mask: Tensor | None,
    chunk_elements: int | None,
    length_normalize: bool,
    device: str | torch.device | None,
) -> Tensor:
    """`maxsim` without steps that depend on values, so that it is one graph: padding is computed and masked."""
    queries, documents = token_embeddings(a, a_mask, "a"), token_embeddings(b, b_mask, "b")
    _check_dimensions(queries.vectors.shape[2], documents.vectors.shape[2])
    like = _like(queries.vectors.dtype, documents.vectors.dtype, device or queries.vectors.device)
    query = queries.block(0, len(queries.mask), like)
    step = max(1, _budget(chunk_elements) // max(1, query.mask.numel() * documents.mask.shape[1]))
    columns = [like.new_zeros(len(query.mask), 0)]
    for start in range(0, len(documents.mask), step):
        document = documents.block(start, start + step, like)
        similarities = torch.einsum("qih,djh->qdij", query.vectors, document.vectors)
        best = similarities.masked_fill(document.mask[:, None] == 0, EMPTY_DOCUMENT).amax(-1)  # (q, d, I)
        columns.append((best * query.mask[:, None]).sum(-1).masked_fill(_empty(document.mask), EMPTY_DOCUMENT))
    scores = torch.cat(columns, dim=1)
    return scores / _token_counts(query.mask)[:, None] if length_normalize else scores


class Run(NamedTuple):
    """Items whose tokens lie end to end: `vectors` (T, H), `weights` (T,) or None for ones, and their lengths."""

    vectors: Tensor
    weights: Tensor | None
    packing: Packing


class Ragged:
    """N items of different numbers of tokens, given as to `maxsim` by an argument of that name; blocks are taken."""

    def __init__(self, items: ArrayLike, mask: Tensor | None, name: str) -> None:
        self.parts: list[Tensor] | None = None
        self.whole: TokenEmbeddings | None = None
        if isinstance(items, (list, tuple)) and mask is None:
            self.parts = _as_list(items, name)
            self.lengths = np.fromiter(map(len, self.parts), np.int64, len(self.parts))
            first = self.parts[0] if self.parts else torch.zeros(0, 0)
            self.requires_grad = any(part.requires_grad for part in self.parts)
        else:
            self.whole = token_embeddings(items, mask, name)
            self.lengths = (self.whole.mask != 0).sum(1).cpu().numpy()
            first = self.whole.vectors
            self.requires_grad = first.requires_grad
        self.dtype, self.device, self.dimension = first.dtype, first.device, first.shape[-1]

    def __len__(self) -> int:
        return len(self.lengths)

    def block(self, places: np.ndarray, like: Tensor) -> Run:
        """The items at some places, on the device and in the dtype of `like`."""
        if self.parts is not None:
            vectors = torch.cat([self.parts[i] for i in places]).to(like)
            run = Run(vectors, None, Packing(self.lengths[places], like.device))
            kept = (vectors != 0).any(-1)
            return run if bool(kept.all()) else Run(vectors[kept], None, run.packing.keep(kept))
        assert self.whole is not None
        index = torch.from_numpy(places).to(self.whole.mask.device)
        mask = self.whole.mask[index]
        kept, packing = mask != 0, Packing(self.lengths[places], like.device)
        weights = None if mask.dtype == torch.bool else mask[kept].to(like)
        return Run(self.whole.vectors[index.to(self.device)][kept.to(self.device)].to(like), weights, packing)


def _score_block(queries: Run, documents: Run) -> Tensor:
    """Tokens of q queries and d documents -> (q, d)."""
    best = _best_of_groups(documents.vectors @ queries.vectors.T, documents.packing)  # (d, tokens of all queries)
    if queries.weights is not None:
        best = best * queries.weights
    parts = [
        best[:, start:stop].unflatten(1, (count, length)).sum(-1) if length else best.new_zeros(len(best), count)
        for start, stop, count, length in queries.packing.groups
    ]
    scores = torch.cat(parts, dim=1)
    empty = documents.packing.lengths_tensor == 0
    return scores.masked_fill(empty[:, None], EMPTY_DOCUMENT).T


def _best_of_groups(similarities: Tensor, packing: Packing) -> Tensor:
    """The maximum over the tokens of each document: (T, q) -> (d, q); 0 for a document without tokens."""
    parts = []
    for start, stop, count, length in packing.groups:
        if not length:
            parts.append(similarities.new_zeros(count, similarities.shape[1]))
            continue
        group = similarities[start:stop].unflatten(0, (count, length))
        # `amax` is the faster one, but it would keep all similarities for the backward pass; `max` keeps indices only.
        parts.append(group.max(dim=1).values if similarities.requires_grad else group.amax(dim=1))
    return torch.cat(parts)


def _back(order: list[np.ndarray]) -> Tensor:
    """Where each item is found, whose blocks were taken in some order."""
    return torch.from_numpy(np.argsort(np.concatenate(order)))


def _score_pairs(queries: TokenEmbeddings, documents: TokenEmbeddings) -> Tensor:
    """(n, I, H), (n, J, H) -> (n,)."""
    similarities = queries.vectors @ documents.vectors.mT  # (n, I, J)
    best = _best(similarities, documents.mask[:, None])
    empty = _empty(documents.mask)
    if not torch.compiler.is_compiling() and bool(empty.any()):
        warn_of_empty_documents()
    return (best * queries.mask).sum(1).masked_fill(empty, EMPTY_DOCUMENT)


def _best(similarities: Tensor, mask: Tensor) -> Tensor:
    """maxⱼ over the last axis where `mask` (broadcast) is not 0; some finite number where nothing is."""
    if similarities.shape[-1] == 0:
        return similarities.new_zeros(similarities.shape[:-1])
    if torch.compiler.is_compiling() or not mask.all():
        similarities = similarities.masked_fill(mask == 0, EMPTY_DOCUMENT)
    return similarities.max(dim=-1).values if similarities.requires_grad else similarities.amax(dim=-1)


def _empty(mask: Tensor) -> Tensor:
    """(N, L) -> (N,) bool: items without tokens."""
    return (mask == 0).all(dim=1)


def _token_counts(mask: Tensor) -> Tensor:
    """(N, L) -> (N,): number of tokens, at least 1."""
    return (mask != 0).sum(dim=1).clamp_min(1)


def _budget(chunk_elements: int | None) -> int:
    return CHUNK_ELEMENTS if chunk_elements is None else max(1, chunk_elements)


def _like(first: torch.dtype, second: torch.dtype, device: str | torch.device) -> Tensor:
    """An empty tensor with the device and the dtype in which to compute: float64 if a side is, else float32."""
    wide = torch.float64 in (first, second)
    return torch.empty(0, dtype=torch.float64 if wide else torch.float32, device=device)


def _check_dimensions(first: int, second: int) -> None:
    if first and second and first != second:
        raise InputError(
            f"Token embeddings of different dimensions cannot be compared: `a` has dimension {first}, `b` has {second}."
        )


def token_embeddings(items: ArrayLike, mask: Tensor | None, name: str) -> TokenEmbeddings:
    """Any of the accepted forms as padded vectors and a mask."""
    vectors = _pad(items, name) if isinstance(items, (list, tuple)) else _as_vectors(items)
    if vectors.ndim == 2:
        vectors = vectors.unsqueeze(0)
    if vectors.ndim != 3:
        raise InputError(f"`{name}` must have shape (N, tokens, H) or (tokens, H), got {tuple(vectors.shape)}.")
    if mask is None:
        return TokenEmbeddings(vectors, (vectors != 0).any(dim=-1))
    mask = _as_mask(mask, items, vectors.shape[1], name)
    if mask.ndim == 1 and len(vectors) == 1:
        mask = mask[None]
    if mask.shape != vectors.shape[:2]:
        raise InputError(
            f"`{name}_mask` must have the shape {tuple(vectors.shape[:2])} of the padded embeddings, "
            f"got {tuple(mask.shape)}."
        )
    return TokenEmbeddings(vectors, mask)


def _as_mask(mask: ArrayLike, items: ArrayLike, length: int, name: str) -> Tensor:
    """A mask as a tensor; a list of masks, one for each item, as (N, L), 0 behind an item's own tokens."""
    if not isinstance(mask, ARRAYS):
        raise TypeError(f"`{name}_mask` must be a tensor, an array or a list of masks, got {type(mask).__name__}.")
    if not isinstance(mask, (list, tuple)) or not all(isinstance(one, ARRAYS) for one in mask):
        return torch.as_tensor(mask)
    parts = [torch.as_tensor(one) for one in mask]
    if len(parts) != len(items):
        raise InputError(f"`{name}_mask` has {len(parts)} masks for {len(items)} items.")
    longest = max((len(part) for part in parts), default=0)
    if longest > length:
        raise InputError(f"`{name}_mask` has a mask of {longest} tokens, but the longest item has {length}.")
    if isinstance(items, (list, tuple)):
        parts = [part[: len(item)] for part, item in zip(parts, items, strict=True)]
    return torch.stack([torch.nn.functional.pad(part, (0, length - len(part))) for part in parts])


def _as_vectors(item: ArrayLike) -> Tensor:
    """A float tensor, left in half precision: blocks are widened when they are computed."""
    if isinstance(item, Tensor) and item.dtype in (torch.float16, torch.bfloat16):
        return item
    return to_float(item)


def _pad(items: ArrayLike, name: str) -> Tensor:
    """A list of (tokens, H) arrays -> (N, L, H), padded with zeros."""
    tensors = _as_list(items, name)
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True) if tensors else torch.zeros(0, 0, 0)


def _as_list(items: ArrayLike, name: str) -> list[Tensor]:
    """A list of arrays as (tokens, H) tensors of one H."""
    tensors = [_as_vectors(item if isinstance(item, (Tensor, np.ndarray)) else list(item)) for item in items]
    if any(t.ndim != 2 or t.shape[1] != tensors[0].shape[1] for t in tensors):
        shapes = ", ".join(dict.fromkeys(str(tuple(t.shape)) for t in tensors[:10]))
        raise InputError(f"`{name}` must hold arrays of shape (tokens, H) with one H, got {describe(items)}: {shapes}.")
    return tensors
