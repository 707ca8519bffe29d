"""The engine of exact search: the best documents of each query, block by block.

Queries (Q, H) and documents (D, H) are walked in blocks; of each block of scores only the best `top_k` survive, merged
with the best so far (`search.topk`). Memory is Q × top_k plus one block of scores, whatever D is. Equal scores are
ordered by document number, so the answer does not depend on the sizes of the blocks.

Where both sides are sparse and the score is a dot product or cosine, a block of documents becomes an inverted index
(`search.inverted_index`); any other score function sees tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias, TypeGuard, TypeVar

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.search.inverted_index import Postings
from sentence_transformers.search.topk import update
from sentence_transformers.similarity import cos_sim, dot_score
from sentence_transformers.util.csr import SparseRows, sparse_rows
from sentence_transformers.util.tensor import (
    ArrayLike,
    check_finite,
    describe,
    is_sparse,
    normalize_embeddings,
    take_rows,
    to_float,
)

ScoreFunction: TypeAlias = Callable[[Any, Any], Tensor]
Source: TypeAlias = Tensor | np.ndarray | SparseRows | list
Blocks: TypeAlias = Iterable[tuple[int, Any]]
"""Parts of a source in order, each with the number of its first row."""
T = TypeVar("T")

CPU = torch.device("cpu")
BLOCK_SCORES = 2**25
"""Scores held at once, at most (unless one row of a block has more)."""
PRODUCT_SCORES = 2**22
"""The same for dot products of dense rows on a CPU: what its cache holds."""
QUERIES_AT_ONCE = 1024
"""Rows of such a block, at most, if there are as many documents as that."""
LINE = 64
"""Columns of a product come in multiples of this, so that each row begins at a cache line: a quarter faster."""
PRODUCT_QUERIES = 2**15
"""Queries that are prepared at once."""


@torch.no_grad()
def best_documents(
    queries: Source,
    documents: Source,
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

    Raises:
        InputError: if a row of a dense source holds NaN or infinity.
    """
    device = common_device(queries, documents)
    prepare, score = split_score_function(score_function)
    if score is dot_score and is_dense(queries) and is_dense(documents):
        return best_by_product(queries, documents, top_k, prepare, query_block * document_block, first_query, device)
    document_block = min(document_block, len(documents), BLOCK_SCORES)
    query_block = min(query_block, max(1, BLOCK_SCORES // document_block))
    ready_query: Callable[[Any], Any] = partial(as_tensor, device=device)
    ready_documents = ready_query
    if score is dot_score and isinstance(queries, SparseRows) and isinstance(documents, SparseRows):
        ready_query, ready_documents = identity, partial(Postings.of, wanted=queries.used_terms)
        score = inverted_score
    return best_of_blocks(
        lambda: ((n, ready_query(block)) for n, block in prepared(queries, query_block, device, prepare, "query")),
        ((n, ready_documents(block)) for n, block in prepared(documents, document_block, device, prepare, "corpus")),
        top_k,
        score,
        first_query,
    )


def best_by_product(
    queries: Tensor | np.ndarray,
    documents: Tensor | np.ndarray,
    top_k: int,
    prepare: Callable[[Any], Any],
    most_scores: int,
    first_query: int | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """As `best_documents`, of dense rows by dot product, in blocks that suit the cache, not those asked for.

    Queries are prepared once and documents once for each `PRODUCT_QUERIES` queries.

    Args:
        most_scores: scores held at once, at most.
    """
    most_scores = min(most_scores, PRODUCT_SCORES if device.type == "cpu" else BLOCK_SCORES)
    product, best = Product(), []
    for begin, many in prepared(queries, min(PRODUCT_QUERIES, most_scores), device, prepare, "query"):
        size = whole_lines(min(len(documents), most_scores // min(len(many), QUERIES_AT_ONCE)))
        step = min(len(many), max(1, most_scores // size))
        ready = list(blocks_of(many, step, device))
        blocks = prepared(documents, size, device, prepare, "corpus")
        best.append(
            best_of_blocks(
                partial(list, ready), blocks, top_k, product, None if first_query is None else first_query + begin
            )
        )
    if not best:
        return torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.int64)
    return torch.cat([values for values, _ in best]), torch.cat([ids for _, ids in best])


def whole_lines(columns: int) -> int:
    """The number of columns, at least 1, rounded down to a multiple of `LINE` if there are as many."""
    return columns // LINE * LINE or max(1, columns)


class Product:
    """Dot products of rows (q, H) and (n, H), in memory that is used again: each result replaces the one before.

    Float, or int8 with sums in int32.

    Args:
        size: room for so many sums of int8 from the beginning; more is made when it is needed.
    """

    def __init__(self, size: int = 0) -> None:
        self.memory = torch.empty(size, dtype=torch.int32)

    def __call__(self, queries: Tensor, documents: Tensor) -> Tensor:
        whole = queries.dtype == torch.int8
        dtype = torch.int32 if whole else torch.promote_types(queries.dtype, documents.dtype)
        count = len(queries) * len(documents)
        if self.memory.dtype != dtype or self.memory.device != queries.device or len(self.memory) < count:
            self.memory = torch.empty(count, dtype=dtype, device=queries.device)
        out = self.memory[:count].view(len(queries), len(documents))
        if whole:
            return torch._int_mm(queries, documents.T, out=out)
        return torch.mm(queries.to(dtype), documents.to(dtype).T, out=out)


def best_of_blocks(
    query_blocks: Callable[[], Blocks],
    document_blocks: Blocks,
    top_k: int,
    score: ScoreFunction,
    first_query: int | None = None,
) -> tuple[Tensor, Tensor]:
    """As `best_documents`, of blocks that are ready to be scored: the loop over all pairs of blocks.

    Args:
        query_blocks: gives the blocks of the queries, anew for each block of documents.
    """
    best: dict[int, tuple[Tensor, Tensor]] = {}
    for start, block in document_blocks:
        for query_start, query in query_blocks():
            scores = score(query, block)
            if first_query is not None:
                mask_self(scores, first_query + query_start - start)
            best[query_start] = update(best.get(query_start), scores, start, top_k)
    if not best:
        return torch.zeros(0, 0), torch.zeros(0, 0, dtype=torch.int64)
    return torch.cat([values for values, _ in best.values()]), torch.cat([ids for _, ids in best.values()])


def inverted_score(queries: SparseRows, documents: Postings) -> Tensor:
    """Dot products (q, d) by the inverted index of the documents."""
    return documents.scores(queries)


def mask_self(scores: Tensor, offset: int) -> None:
    """Set scores[n, n + offset] to -inf where that lies inside, in place."""
    if -scores.shape[0] < offset < scores.shape[1]:
        scores.diagonal(offset).fill_(-torch.inf)


def split_score_function(score_function: ScoreFunction) -> tuple[Callable[[Any], Any], ScoreFunction]:
    """A score function as a preparation of one side and a score of two prepared sides.

    Cosine is the dot product of normalised rows; so each block is normalised once instead of once a pair of blocks.
    """
    if score_function is cos_sim:
        return unit_rows, dot_score
    return identity, score_function


def is_dense(source: Source) -> TypeGuard[Tensor | np.ndarray]:
    """Whether these are dense rows (N, H)."""
    if isinstance(source, Tensor) and is_sparse(source):
        return False
    return isinstance(source, (np.ndarray, Tensor)) and source.ndim == 2


def identity(rows: T) -> T:
    """Rows that need no preparation."""
    return rows


def unit_rows(rows: Tensor | SparseRows) -> Tensor | SparseRows:
    """Rows of length 1, in the form they came in."""
    return rows.normalized() if isinstance(rows, SparseRows) else normalize_embeddings(rows)


def as_source(embeddings: ArrayLike) -> Source:
    """What blocks can be taken from: an array as it is, a list of vectors as one tensor, a list of token embeddings.

    Sparse tensors and SciPy matrices become `SparseRows`, a single vector becomes one row.
    """
    rows = sparse_rows(embeddings)
    if rows is not None:
        return rows
    if isinstance(embeddings, (list, tuple)):
        ragged = len(embeddings) > 0 and getattr(embeddings[0], "ndim", 0) == 2
        return list(embeddings) if ragged else as_source(to_float(embeddings))
    if isinstance(embeddings, (np.ndarray, Tensor)) and embeddings.ndim > 0:
        return embeddings[None] if embeddings.ndim == 1 and len(embeddings) else embeddings
    raise InputError(f"Embeddings must be a tensor, a numpy array or a list of them, got {describe(embeddings)}.")


def blocks_of(source: Source, size: int, device: torch.device) -> Iterator[tuple[int, Any]]:
    """The blocks of at most `size` rows, each with the number of its first row."""
    for start in range(0, len(source), size):
        yield start, take_block(source, start, start + size, device)


def prepared(
    source: Source, size: int, device: torch.device, prepare: Callable[[Any], Any], side: str
) -> Iterator[tuple[int, Any]]:
    """The same, prepared to be scored; rows of tensors are finite then."""
    for start, block in blocks_of(source, size, device):
        ready = prepare(block)
        if isinstance(ready, Tensor) and not is_sparse(ready):
            check_finite(ready, f"{side}_embeddings", start)
        yield start, ready


def take_block(source: Source, start: int, stop: int, device: torch.device) -> Any:
    """Rows `start:stop` as float on `device`; sparse rows stay what they are."""
    if isinstance(source, SparseRows):
        return source.take(start, stop)
    if isinstance(source, list):
        return [to_float(item, device) for item in source[start:stop]]
    rows = take_rows(source, start, stop) if isinstance(source, Tensor) else source[start:stop]
    return to_float(rows, device)


def as_tensor(rows: Source, device: torch.device) -> Any:
    """Sparse rows as a tensor on `device`; anything else as it is."""
    return rows.to_tensor().to(device) if isinstance(rows, SparseRows) else rows


def as_results(scores: Tensor, ids: Tensor) -> list[list[dict[str, int | float]]]:
    """Scores and ids, both of shape (Q, top_k), as plain Python: for each query its hits."""
    return [
        [{"corpus_id": i, "score": s} for s, i in zip(row_scores, row_ids, strict=True)]
        for row_scores, row_ids in zip(scores.tolist(), ids.tolist(), strict=True)
    ]


def common_device(queries: Source, documents: Source) -> torch.device:
    """The accelerator that either side lies on (documents first), else the CPU; a list lies where its first is."""
    firsts = [side[0] if isinstance(side, list) and side else side for side in (documents, queries)]
    devices = [torch.device(getattr(first, "device", "cpu")) for first in firsts]
    return next((device for device in devices if device.type != "cpu"), devices[0])


def check_dimensions(queries: Source, documents: Source) -> None:
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
