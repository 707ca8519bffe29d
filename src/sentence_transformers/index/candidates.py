"""The best documents of each query by one kind of vectors, over all segments.

Documents are numbered through the segments: the first document of a segment follows the last one of the segment before
it, deleted ones included. Equal scores are ordered by that number, that is by the time of adding.

Of a segment few of whose rows are allowed, only these are read; otherwise all rows are scored and the others dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.index import metadata, sparse
from sentence_transformers.index.scoring import QUERIES, rescore, scorer, signed
from sentence_transformers.index.segments import Segment
from sentence_transformers.index.settings import Settings
from sentence_transformers.search import filters
from sentence_transformers.search.blocks import BLOCK_SCORES, CPU, best_of_blocks, blocks_of
from sentence_transformers.search.inverted_index import Postings
from sentence_transformers.search.quantized_search import BLOCK, LEAST_DOCUMENTS, MOST_DOCUMENTS, SIEVE
from sentence_transformers.util.csr import SparseRows

Ranking = list[tuple[int, float]]
"""(number of a document, score), best first."""

FEW = 4
"""Rows are picked one by one if at most one in so many is allowed."""


@dataclass(frozen=True)
class Pool:
    """The documents that a search may find.

    Args:
        segments: all of them.
        allowed: for each the rows, bool (N,); None for all of them.
    """

    segments: Sequence[Segment]
    allowed: Sequence[np.ndarray | None]

    @classmethod
    def of(cls, segments: Sequence[Segment], one: filters.Filter | None) -> Pool:
        """The documents that a filter lets through, all by None.

        Raises:
            InputError: if the filter names a field that no document has.
        """
        known = fields_of(segments)
        unknown = sorted(filters.fields_of(one) - known) if one is not None and segments else []
        if unknown:
            raise InputError(
                f"No document has the field {unknown[0]!r} that the filter names; "
                f"{'fields are ' + ', '.join(sorted(known)) if known else 'none has metadata'}."
            )
        return cls(segments, [segment.allowed(one) for segment in segments])

    @cached_property
    def starts(self) -> np.ndarray:
        """The number of each segment's first document, and the number of all documents."""
        return np.cumsum([0, *(segment.count for segment in self.segments)])

    def places(self, numbers: np.ndarray) -> Iterator[tuple[Segment, np.ndarray, np.ndarray]]:
        """Documents by segment: segment, rows, and which of the `numbers` (rising) they are."""
        for segment, first, last in zip(self.segments, self.starts[:-1], self.starts[1:], strict=True):
            which = np.flatnonzero((numbers >= first) & (numbers < last))
            if len(which):
                yield segment, numbers[which] - first, which

    def rows(self) -> Iterator[tuple[Segment, np.ndarray | None, np.ndarray | None]]:
        """Segments, each with the rows to pick (None: all) and the mask of those that count (None: all)."""
        for segment, mask in zip(self.segments, self.allowed, strict=True):
            if mask is not None and int(mask.sum()) * FEW <= segment.count:
                yield segment, np.flatnonzero(mask), None
            else:
                yield segment, None, mask


def fields_of(segments: Sequence[Segment]) -> set[str]:
    """The fields of metadata that documents have."""
    return {name for segment in segments for name in metadata.fields_of(segment.arrays)}


@dataclass(frozen=True)
class Block:
    """Documents of one segment that are scored together."""

    segment: Segment
    rows: np.ndarray | slice
    mask: Tensor | None


def dense_blocks(pool: Pool, size: int) -> Iterator[tuple[np.ndarray, Block]]:
    """The documents of a pool in blocks of at most `size`: their numbers, and the block."""
    for start, (segment, picked, mask) in zip(pool.starts.tolist(), pool.rows(), strict=False):
        for first in range(0, segment.count if picked is None else len(picked), size):
            if picked is not None:
                rows = picked[first : first + size]
                yield start + rows, Block(segment, rows, None)
            else:
                run = slice(first, min(first + size, segment.count))
                hidden = None if mask is None else torch.from_numpy(~mask[run])
                yield np.arange(start + run.start, start + run.stop), Block(segment, run, hidden)


def scan(pool: Pool, queries: np.ndarray, settings: Settings, top_k: int) -> list[Ranking]:
    """The best documents of each query (Q, H) by the form of the settings' precision: all are scored."""
    score = scorer(queries, settings)
    size = max(LEAST_DOCUMENTS, min(MOST_DOCUMENTS, BLOCK // max(1, min(QUERIES, len(queries)))))
    numbers: list[np.ndarray] = []

    def blocks() -> Iterator[tuple[int, Block]]:
        seen = 0
        for some, block in dense_blocks(pool, size):
            numbers.append(some)
            yield seen, block
            seen += len(some)

    def score_block(some: slice, block: Block) -> Tensor:
        scores = score(some, block.segment.arrays, block.rows)
        return scores if block.mask is None else scores.masked_fill_(block.mask, -torch.inf)

    values, places = best_of_blocks(score.blocks, blocks(), top_k, score_block)
    return rankings(values, places, np.concatenate(numbers)) if numbers else [[] for _ in queries]


def best_dense(
    pool: Pool, queries: np.ndarray, settings: Settings, top_k: int, rescore_multiplier: int, exact: bool
) -> list[Ranking]:
    """The best documents of each query (Q, H): candidates, from graphs or from all documents, are scored again.

    Candidates by Hamming distance among all documents are sieved first (see `search.quantized_search`).

    Args:
        rescore_multiplier: candidates per document that is wanted.
        exact: make no use of graphs.
    """
    wanted = top_k * rescore_multiplier
    walked = [not exact and can_walk(*pair, wanted) for pair in zip(pool.segments, pool.allowed, strict=True)]
    if not any(walked) and settings.forms in (("float32",), ("binary",)):
        return scan(pool, queries, settings, top_k)
    sieved = settings.precision == "binary" and len(settings.forms) > 1
    found = scan(without(pool, walked), queries, settings, wanted * SIEVE if sieved else wanted)
    if sieved:
        found = [rescored(pool, *pair, wanted, signed) for pair in zip(queries, found, strict=True)]
    for start, segment, mask in itertools.compress(
        zip(pool.starts.tolist(), pool.segments, pool.allowed, strict=False), walked
    ):
        for ranking, rows in zip(found, walk(segment, mask, queries, wanted), strict=True):
            ranking += [(start + row, 0.0) for row in rows.tolist()]
    score = partial(rescore, settings=settings)
    return [rescored(pool, *pair, top_k, score) for pair in zip(queries, found, strict=True)]


def can_walk(segment: Segment, mask: np.ndarray | None, wanted: int) -> bool:
    """Whether a segment has a graph, enough of its documents are allowed, and few of those are wanted.

    Where much of a segment is wanted, a graph is slower than a look at everything, and leaves some documents out.
    """
    allowed = segment.count if mask is None else int(mask.sum())
    return segment.graph is not None and allowed * FEW > segment.count and wanted * FEW <= allowed


def without(pool: Pool, which: Sequence[bool]) -> Pool:
    """A pool with nothing allowed in some of the segments."""
    nothing = (
        np.zeros(segment.count, dtype=bool) if skip else mask
        for segment, mask, skip in zip(pool.segments, pool.allowed, which, strict=True)
    )
    return Pool(pool.segments, list(nothing))


def walk(segment: Segment, mask: np.ndarray | None, queries: np.ndarray, count: int) -> list[np.ndarray]:
    """About the nearest `count` allowed rows of a segment for each query, by its graph."""
    assert segment.graph is not None
    if mask is None:
        return segment.graph.find(queries, min(count, segment.count))
    wanted = min(segment.count, -(-count * segment.count // int(mask.sum())))
    return [rows[mask[rows]] for rows in segment.graph.find(queries, wanted)]


def rescored(pool: Pool, query: np.ndarray, found: Ranking, top_k: int, score: Callable[..., np.ndarray]) -> Ranking:
    """The best of the documents that were found for a query (H,), by `score(query, arrays, rows)`."""
    numbers = np.sort(np.array([number for number, _ in found], dtype=np.int64))
    values = np.empty(len(numbers), np.float32)
    for segment, rows, which in pool.places(numbers):
        values[which] = score(query, segment.arrays, rows)
    order = np.argsort(-values, kind="stable")[:top_k]
    return list(zip(numbers[order].tolist(), values[order].tolist(), strict=True))


def best_sparse(pool: Pool, queries: SparseRows, top_k: int) -> list[Ranking]:
    """The best documents of each query (Q, V); those that share no term with it are left out."""
    terms = np.flatnonzero(queries.used_terms)
    largest = max((segment.count for segment in pool.segments), default=1)
    step = max(1, BLOCK_SCORES // largest)

    def blocks() -> Iterator[tuple[int, tuple[Postings, np.ndarray | None]]]:
        for start, segment, mask in zip(pool.starts.tolist(), pool.segments, pool.allowed, strict=False):
            yield start, (sparse.read_terms(segment.arrays, segment.count, terms), mask)

    def score(some: SparseRows, block: tuple[Postings, np.ndarray | None]) -> Tensor:
        scores = block[0].scores(some)
        scores.masked_fill_(scores == 0, -torch.inf)
        return scores if block[1] is None else scores.masked_fill_(torch.from_numpy(~block[1]), -torch.inf)

    values, places = best_of_blocks(lambda: blocks_of(queries, step, CPU), blocks(), top_k, score)
    return rankings(values, places, None) if values.numel() else [[] for _ in range(len(queries))]


def rankings(values: Tensor, places: Tensor, numbers: np.ndarray | None) -> list[Ranking]:
    """Scores and places (Q, top_k) as lists, without documents that are not allowed."""
    found = places.numpy() if numbers is None else numbers[places.numpy()]
    return [
        [(number, score) for number, score in zip(row.tolist(), scores, strict=True) if score > -np.inf]
        for row, scores in zip(found, values.tolist(), strict=True)
    ]
