"""The inverted index of sparse embeddings: by term to search them, where `util.csr` has them by row.

    Postings (CSC)     starts (V + 1,), documents, values   term t is in documents[starts[t]:starts[t + 1]], rising

    score(q, d) = Σₜ qₜ dₜ      over the terms t of the query

A SPLADE query has some tens of the V terms, so this form answers it by adding up a few lists of documents; the
other postings are not read, not even from disk if the arrays are memory-mapped. Values are float32, or float64 where
that came in; sums are taken in float64. Torch tensors and SciPy matrices are understood; only numpy is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.util.csr import SparseRows, starts_of

WORD = 16
"""Bits of the keys that numpy sorts in linear time."""


@dataclass(frozen=True, eq=False)
class Postings:
    """The inverted index of N documents.

    Args:
        starts: (V + 1,), where the list of each term begins and the last one ends.
        documents: int32, the documents of each term, rising.
        values: the value of the term in each of these documents.
        count: N.
    """

    starts: np.ndarray
    documents: np.ndarray
    values: np.ndarray
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def dimension(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, rows: SparseRows, wanted: np.ndarray | None = None) -> Postings:
        """The index of sparse rows; with `wanted`, bool of shape (V,), only the lists of these terms."""
        terms, documents, values = rows.terms, rows.row_numbers(), rows.values
        if wanted is not None:
            kept = np.flatnonzero(wanted[terms])
            terms, documents, values = terms[kept], documents[kept], values[kept]
        return cls.collect(terms, documents, values, *rows.shape)

    @classmethod
    def join(cls, parts: Sequence[Postings]) -> Postings:
        """One index of all documents, numbered on from part to part. All parts have one dimension."""
        dimension = parts[0].dimension
        offsets = np.cumsum([0, *map(len, parts)]).astype(np.int32)
        terms = [np.repeat(np.arange(dimension, dtype=np.int32), np.diff(part.starts)) for part in parts]
        documents = [part.documents + offset for part, offset in zip(parts, offsets[:-1], strict=True)]
        values = np.concatenate([part.values for part in parts])
        return cls.collect(np.concatenate(terms), np.concatenate(documents), values, int(offsets[-1]), dimension)

    @classmethod
    def collect(
        cls, terms: np.ndarray, documents: np.ndarray, values: np.ndarray, count: int, dimension: int
    ) -> Postings:
        """The index of triples (term, document, value) that are sorted by document within each term."""
        order = stable_order(terms, dimension)
        return cls(starts_of(terms, dimension), documents[order], values[order], count)

    def scores(self, queries: SparseRows) -> Tensor:
        """The dot product of every query with every document, (Q, N)."""
        dtype = np.promote_types(queries.values.dtype, self.values.dtype)
        scores = np.zeros((len(queries), self.count), dtype=dtype)
        for row, (terms, weights) in zip(scores, queries, strict=True):
            begins, ends = self.starts[terms], self.starts[terms + 1]
            if (begins == ends).all():
                continue
            lists = [slice(begin, end) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
            products = np.concatenate([self.values[one] for one in lists])
            products = products * np.repeat(weights, ends - begins)
            row[:] = np.bincount(np.concatenate([self.documents[one] for one in lists]), products, self.count)
        return torch.from_numpy(scores)


def stable_order(keys: np.ndarray, count: int) -> np.ndarray:
    """The positions of `keys`, whole numbers below `count`, sorted by key and equal keys by position.

    Sorts by 16 bits at a time, lowest first: numpy has a radix sort for those, ten times faster than for wider keys.
    """
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    for shift in range(WORD, max(1, count - 1).bit_length(), WORD):
        order = order[np.argsort((keys >> shift).astype(np.uint16)[order], kind="stable")]
    return order
