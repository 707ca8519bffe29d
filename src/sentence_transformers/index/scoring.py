"""How queries are compared with dense vectors in each of their forms.

    float32   qᵀd
    int8      s_q s_d Σ a b      a, b: the codes of query and document, multiplied as whole numbers; s: their scales
    binary    Σ sign(q) sign(d) / H = 1 − 2 · Hamming distance / H

The first two are dot products, of which the similarity is made: cosine and dot are one (vectors of a cosine index have
length 1); euclidean is −‖q − d‖ = −√(‖q‖² + ‖d‖² − 2 qᵀd). Bits stand for the angle alone, whatever the similarity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.index.arrays import Arrays
from sentence_transformers.index.dense import pick, take, to_bytes
from sentence_transformers.index.settings import Settings
from sentence_transformers.search.quantized_search import (
    BLOCK,
    FEW_QUERIES,
    LEAST_DOCUMENTS,
    BitCounts,
    Product,
    pad,
    signs,
)
from sentence_transformers.util import threads

Rows = np.ndarray | slice
QUERIES = BLOCK // LEAST_DOCUMENTS
"""Queries of one block."""


class Scorer(ABC):
    """Scores queries (Q, H) with documents, block by block. Made for one search.

    Args:
        queries: float32, at length 1 for cosine.
    """

    def __init__(self, queries: np.ndarray, settings: Settings) -> None:
        self.queries, self.settings = queries, settings

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """The queries in blocks: number of the first one, which ones."""
        for start in range(0, len(self.queries), QUERIES):
            yield start, slice(start, start + QUERIES)

    @abstractmethod
    def __call__(self, some: slice, arrays: Arrays, rows: Rows) -> Tensor:
        """The scores of a block of queries with some rows: float32 (q, n)."""

    def similar(self, some: slice, arrays: Arrays, rows: Rows, dots: Tensor) -> Tensor:
        """Similarities from dot products (q, n); see the top."""
        if self.settings.similarity != "euclidean":
            return dots
        squares = torch.from_numpy(np.square(self.queries[some]).sum(axis=1, keepdims=True))
        squares = squares + torch.from_numpy(pick(arrays, "dense.squares", rows))
        return -(squares - 2 * dots).clamp_min_(0).sqrt_()


class FloatScorer(Scorer):
    """Exact."""

    def __call__(self, some: slice, arrays: Arrays, rows: Rows) -> Tensor:
        dots = torch.from_numpy(self.queries[some]) @ torch.from_numpy(pick(arrays, "dense.float32", rows)).T
        return self.similar(some, arrays, rows, dots)


class ByteScorer(Scorer):
    """Products of int8 codes."""

    def __init__(self, queries: np.ndarray, settings: Settings) -> None:
        super().__init__(queries, settings)
        self.codes, self.scales = to_bytes(queries)
        self.product = Product(BLOCK)

    def __call__(self, some: slice, arrays: Arrays, rows: Rows) -> Tensor:
        documents = torch.from_numpy(pad(pick(arrays, "dense.int8", rows)))
        dots = self.product(torch.from_numpy(pad(self.codes[some])), documents).float()
        dots *= torch.from_numpy(pick(arrays, "dense.scales", rows))
        dots *= torch.from_numpy(self.scales[some, None])
        return self.similar(some, arrays, rows, dots)


class BitScorer(Scorer):
    """Hamming distances: counted for few queries, multiplied for many."""

    def __init__(self, queries: np.ndarray, settings: Settings) -> None:
        super().__init__(queries, settings)
        self.product = Product(BLOCK)
        self.signs = np.where(queries > 0, 1, -1).astype(np.int8)
        self.bits = np.packbits(queries > 0, axis=1)
        count = threads.thread_count(threads.CPU)
        self.count = BitCounts(threads.pool(count), count)  # of the process: one search is too short for its own

    def __call__(self, some: slice, arrays: Arrays, rows: Rows) -> Tensor:
        dimension, documents = self.queries.shape[1], pick(arrays, "dense.binary", rows)
        if len(self.queries) <= FEW_QUERIES:
            return torch.from_numpy(self.count(self.bits[some], documents)).float().mul_(-2 / dimension).add_(1)
        signs = torch.from_numpy(pad(self.signs[some]))
        ones = self.product(signs, torch.from_numpy(np.unpackbits(documents, axis=1).view(np.int8))).float()
        return ones.mul_(2).sub_(signs.sum(1, keepdim=True)).div_(dimension)


SCORERS: dict[str, type[Scorer]] = {"float32": FloatScorer, "int8": ByteScorer, "binary": BitScorer}


def scorer(queries: np.ndarray, settings: Settings) -> Scorer:
    """The scorer for the precision of an index."""
    return SCORERS[settings.precision](queries, settings)


def rescore(query: np.ndarray, arrays: Arrays, rows: np.ndarray, settings: Settings) -> np.ndarray:
    """The scores of one query (H,) with some documents by their best form, the query being float: float32 (n,)."""
    if settings.forms == ("binary",):
        return BitScorer(query[None], settings)(slice(0, 1), arrays, rows)[0].numpy()
    dots = torch.from_numpy(take(arrays, rows, settings.forms[-1]) @ query)[None]
    return FloatScorer(query[None], settings).similar(slice(0, 1), arrays, rows, dots)[0].numpy()


def signed(query: np.ndarray, arrays: Arrays, rows: np.ndarray) -> np.ndarray:
    """The dot products of one query (H,) with the signs of some documents: float32 (n,)."""
    return signs(arrays.rows("dense.binary", rows), len(query)) @ query
