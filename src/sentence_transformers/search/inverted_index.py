"""Sparse embeddings as plain arrays: by row to read them, by term to search them.

    SparseRows (CSR)   starts (N + 1,), terms, values       row n holds terms[starts[n]:starts[n + 1]]
    Postings (CSC)     starts (V + 1,), documents, values   term t is in documents[starts[t]:starts[t + 1]], rising

    score(q, d) = Σₜ qₜ dₜ      over the terms t of the query

A SPLADE query has some tens of the V terms, so the second form answers it by adding up a few lists of documents; the
other postings are not read, not even from disk if the arrays are memory-mapped. Values are float32, or float64 where
that came in; sums are taken in float64. Torch tensors and SciPy matrices are understood; only numpy is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.util.tensor import describe, is_sparse, to_coo, to_float

if TYPE_CHECKING:
    import scipy.sparse

WORD = 16
"""Bits of the keys that numpy sorts in linear time."""


@dataclass(frozen=True, eq=False)
class SparseRows:
    """N sparse rows of dimension V; no row has a term twice.

    Args:
        starts: (N + 1,), where each row begins and the last one ends.
        terms, values: one of each for every value that is stored.
        dimension: V.
    """

    starts: np.ndarray
    terms: np.ndarray
    values: np.ndarray
    dimension: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Terms and values, row by row."""
        for begin, end in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            yield self.terms[begin:end], self.values[begin:end]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.dimension

    @property
    def used_terms(self) -> np.ndarray:
        """Which terms occur at all: bool of shape (V,)."""
        used = np.zeros(self.dimension, dtype=bool)
        used[self.terms] = True
        return used

    def take(self, start: int, stop: int) -> SparseRows:
        """Rows `start:stop`, as views; `stop` may lie behind the end."""
        starts = self.starts[start : stop + 1]
        inside = slice(int(starts[0]), int(starts[-1]))
        return replace(self, starts=starts - starts[0], terms=self.terms[inside], values=self.values[inside])

    def row_numbers(self) -> np.ndarray:
        """For each stored value the number of its row, int32."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.starts))

    def normalized(self) -> SparseRows:
        """x / max(‖x‖₂, 1e-12), row by row."""
        rows = self.row_numbers()
        squares = np.bincount(rows, np.square(self.values, dtype=np.float64), minlength=len(self))
        scales = 1 / np.maximum(np.sqrt(squares), 1e-12)
        return replace(self, values=self.values * scales.astype(self.values.dtype)[rows])

    def to_tensor(self) -> Tensor:
        """The same rows as a coalesced COO tensor."""
        indices = torch.from_numpy(np.stack([self.row_numbers(), self.terms]).astype(np.int64))
        values = torch.from_numpy(np.array(self.values))
        return torch.sparse_coo_tensor(indices, values, self.shape, is_coalesced=True, check_invariants=False)


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


def starts_of(keys: np.ndarray, count: int) -> np.ndarray:
    """Where the group of each key begins once `keys`, below `count`, are sorted; the end as well, (count + 1,)."""
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))]).astype(np.int64)


def stable_order(keys: np.ndarray, count: int) -> np.ndarray:
    """The positions of `keys`, whole numbers below `count`, sorted by key and equal keys by position.

    Sorts by 16 bits at a time, lowest first: numpy has a radix sort for those, ten times faster than for wider keys.
    """
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    for shift in range(WORD, max(1, count - 1).bit_length(), WORD):
        order = order[np.argsort((keys >> shift).astype(np.uint16)[order], kind="stable")]
    return order


def sparse_rows(embeddings: object) -> SparseRows | None:
    """Sparse embeddings in the memory of the CPU as `SparseRows`; None for anything else.

    Args:
        embeddings: (N, V) or (V,): a torch tensor of sparse layout, or a SciPy matrix or array of any format.

    Raises:
        InputError: if a SciPy matrix does not hold real numbers.
    """
    if hasattr(embeddings, "tocsr"):
        return _from_scipy(embeddings)
    if not isinstance(embeddings, Tensor) or not is_sparse(embeddings) or embeddings.device.type != "cpu":
        return None
    if embeddings.layout == torch.sparse_csr and embeddings.ndim == 2 and embeddings.dense_dim() == 0:
        tensor = to_float(embeddings.detach())
        return SparseRows(
            tensor.crow_indices().numpy(), tensor.col_indices().numpy(), tensor.values().numpy(), tensor.shape[1]
        )
    tensor = to_float(embeddings.detach())
    coo = tensor if tensor.layout == torch.sparse_coo else to_coo(tensor)
    if coo.dense_dim() or coo.ndim > 2:
        return None
    return _from_coo(coo if coo.ndim == 2 else coo.unsqueeze(0))


def _from_coo(coo: Tensor) -> SparseRows:
    """A COO tensor (N, V). Joined tensors are in order but not called coalesced; looking is quicker than sorting."""
    rows, terms = coo._indices().numpy()
    if not coo.is_coalesced() and not (np.diff(rows * coo.shape[1] + terms) > 0).all():
        return _from_coo(coo.coalesce())
    return SparseRows(starts_of(rows, coo.shape[0]), terms, coo._values().numpy(), coo.shape[1])


def _from_scipy(matrix: scipy.sparse.spmatrix) -> SparseRows:
    """A SciPy matrix or array of any sparse format; it is not changed."""
    if matrix.dtype.kind not in "fiub":
        raise InputError(f"Sparse embeddings must be real numbers, got {describe(matrix)} and type {matrix.dtype}.")
    csr = (matrix.reshape(1, -1) if matrix.ndim == 1 else matrix).tocsr()
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    dtype = np.float64 if csr.dtype == np.float64 else np.float32
    return SparseRows(csr.indptr, csr.indices, csr.data.astype(dtype, copy=False), csr.shape[1])
