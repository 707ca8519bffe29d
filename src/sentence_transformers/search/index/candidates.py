"""The best documents of each query by one kind of vectors, over all segments.

Documents are numbered through the segments: the first document of a segment follows the last one of the segment before
it, deleted ones included. Equal scores are ordered by that number, that is by the time of adding.

Of a segment few of whose rows are allowed, only these are read; otherwise all rows are scored and the others dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.search.blocks import BLOCK_SCORES, best_of_blocks, blocks_of
from sentence_transformers.search.index import dense, sparse
from sentence_transformers.search.index.segments import Segment
from sentence_transformers.search.index.settings import Settings
from sentence_transformers.search.inverted import Postings, SparseRows

Ranking = list[tuple[int, float]]
"""(number of a document, score), best first."""

FEW = 4
"""Rows are picked one by one if at most one in so many is allowed."""
ROWS = 2**16
"""Documents of one block."""
QUERIES = 256
"""Queries of one block."""


@dataclass(frozen=True)
class Pool:
    """The documents that a search may find.

    Args:
        segments: all of them.
        allowed: for each the rows, bool (N,); None for all of them.
    """

    segments: Sequence[Segment]
    allowed: Sequence[np.ndarray | None]

    @property
    def starts(self) -> np.ndarray:
        """The number of each segment's first document, and the number of all documents."""
        return np.cumsum([0, *(segment.count for segment in self.segments)])

    def place(self, number: int) -> tuple[Segment, int]:
        """Segment and row of a document."""
        starts = self.starts
        segment = int(np.searchsorted(starts, number, "right")) - 1
        return self.segments[segment], number - int(starts[segment])

    def rows(self) -> Iterator[tuple[Segment, np.ndarray | None, np.ndarray | None]]:
        """Segments, each with the rows to pick (None: all) and the mask of those that count (None: all)."""
        for segment, mask in zip(self.segments, self.allowed, strict=True):
            if mask is not None and int(mask.sum()) * FEW <= segment.count:
                yield segment, np.flatnonzero(mask), None
            else:
                yield segment, None, mask


@dataclass(frozen=True)
class Block:
    """Documents of one segment that are scored together."""

    segment: Segment
    rows: np.ndarray | slice
    mask: Tensor | None


def dense_blocks(pool: Pool) -> Iterator[tuple[int, np.ndarray | None, Block]]:
    """The documents of a pool in blocks: number of the first one, numbers of all if they are picked, the block."""
    for start, (segment, picked, mask) in zip(pool.starts.tolist(), pool.rows(), strict=False):
        for first in range(0, segment.count if picked is None else len(picked), ROWS):
            if picked is not None:
                rows = picked[first : first + ROWS]
                yield start, rows, Block(segment, rows, None)
            else:
                run = slice(first, min(first + ROWS, segment.count))
                yield start + first, None, Block(segment, run, None if mask is None else torch.from_numpy(~mask[run]))


def best_dense(pool: Pool, queries: np.ndarray, settings: Settings, top_k: int) -> list[Ranking]:
    """The best documents of each query (Q, H), in the form of the settings' precision."""
    ready = torch.from_numpy(queries)
    numbers: list[np.ndarray] = []

    def blocks() -> Iterator[tuple[int, Block]]:
        seen = 0
        for start, picked, block in dense_blocks(pool):
            count = len(picked) if picked is not None else block.rows.stop - block.rows.start  # type: ignore[union-attr]
            numbers.append(start + (np.arange(count) if picked is None else picked))
            yield seen, block
            seen += count

    def score(some: Tensor, block: Block) -> Tensor:
        scores = dense.scores(block.segment.arrays, some, block.rows, settings)
        return scores if block.mask is None else scores.masked_fill_(block.mask, -torch.inf)

    values, places = best_of_blocks(lambda: blocks_of(ready, QUERIES), blocks(), top_k, score)
    return rankings(values, places, np.concatenate(numbers)) if numbers else [[] for _ in queries]


def best_sparse(pool: Pool, queries: SparseRows, top_k: int) -> list[Ranking]:
    """The best documents of each query (Q, V); those that share no term with it are left out."""
    terms = np.flatnonzero(queries.used_terms)
    largest = max((segment.count for segment in pool.segments), default=1)
    step = max(1, min(QUERIES, BLOCK_SCORES // largest))

    def blocks() -> Iterator[tuple[int, tuple[Postings, np.ndarray | None]]]:
        for start, segment, mask in zip(pool.starts.tolist(), pool.segments, pool.allowed, strict=False):
            yield start, (sparse.read_terms(segment.arrays, segment.count, terms), mask)

    def score(some: SparseRows, block: tuple[Postings, np.ndarray | None]) -> Tensor:
        scores = block[0].scores(some)
        scores.masked_fill_(scores == 0, -torch.inf)
        return scores if block[1] is None else scores.masked_fill_(torch.from_numpy(~block[1]), -torch.inf)

    values, places = best_of_blocks(lambda: blocks_of(queries, step), blocks(), top_k, score)
    return rankings(values, places, None) if values.numel() else [[] for _ in range(len(queries))]


def rankings(values: Tensor, places: Tensor, numbers: np.ndarray | None) -> list[Ranking]:
    """Scores and places (Q, top_k) as lists, without documents that are not allowed."""
    found = places.numpy() if numbers is None else numbers[places.numpy()]
    return [
        [(number, score) for number, score in zip(row.tolist(), scores, strict=True) if score > -np.inf]
        for row, scores in zip(found, values.tolist(), strict=True)
    ]


def rescore(pool: Pool, queries: np.ndarray, found: list[Ranking], settings: Settings, top_k: int) -> list[Ranking]:
    """The best of the documents that were found, scored again by the form that is kept for that."""
    assert settings.rescore is not None
    starts, result = pool.starts, []
    for query, ranking in zip(queries, found, strict=True):
        numbers = np.sort(np.array([number for number, _ in ranking], dtype=np.int64))
        scores = []
        for segment, first, last in zip(pool.segments, starts[:-1], starts[1:], strict=True):
            rows = numbers[(numbers >= first) & (numbers < last)] - first
            if len(rows):
                vectors = dense.take(segment.arrays, rows, settings.rescore)
                scores += dense.exact(segment.arrays, vectors, query, rows, settings).tolist()
        order = np.argsort(-np.array(scores), kind="stable")[:top_k]
        result.append([(int(numbers[place]), scores[place]) for place in order.tolist()])
    return result
