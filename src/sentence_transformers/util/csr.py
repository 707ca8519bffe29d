"""Sparse embeddings as plain arrays (compressed sparse rows), made of torch tensors and SciPy matrices.

    SparseRows   starts (N + 1,), terms, values       row n holds terms[starts[n]:starts[n + 1]]

Values are float32, or float64 where that came in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.util.tensor import describe, is_sparse, to_coo, to_float

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix


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

    def reordered(self, order: np.ndarray) -> SparseRows:
        """The rows of these numbers, in this order."""
        lengths = np.diff(self.starts)[order]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(self.starts[order] - starts[:-1], lengths) + np.arange(starts[-1])
        return replace(self, starts=starts, terms=self.terms[places], values=self.values[places])

    @classmethod
    def join(cls, parts: Sequence[SparseRows]) -> SparseRows:
        """The rows of all parts, one after the other."""
        lengths = np.concatenate([np.diff(part.starts) for part in parts])
        terms, values = (np.concatenate([getattr(part, name) for part in parts]) for name in ("terms", "values"))
        return cls(np.concatenate([[0], np.cumsum(lengths)]), terms, values, parts[0].dimension)

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
        return coo(indices, values, self.shape)


def starts_of(keys: np.ndarray, count: int) -> np.ndarray:
    """Where the group of each key begins once `keys`, below `count`, are sorted; the end as well, (count + 1,)."""
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))]).astype(np.int64)


def coo(indices: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A COO tensor of entries that are known to be in order and distinct."""
    return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=True, check_invariants=False)


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


def _from_scipy(matrix: spmatrix | sparray) -> SparseRows:
    """A SciPy matrix or array of any sparse format; it is not changed."""
    if matrix.dtype.kind not in "fiub":
        raise InputError(f"Sparse embeddings must be real numbers, got {describe(matrix)} and type {matrix.dtype}.")
    csr = (matrix.reshape(1, -1) if matrix.ndim == 1 else matrix).tocsr()
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    dtype = np.float64 if csr.dtype == np.float64 else np.float32
    return SparseRows(csr.indptr, csr.indices, csr.data.astype(dtype, copy=False), csr.shape[1])


def arrow_table(columns: Mapping[str, Sequence[Any]], vectors: np.ndarray | SparseRows) -> Any:
    """Columns of ids and texts, and vectors as they are, as an Arrow table.

    Args:
        vectors: (N, H) gives "embedding", lists of fixed length; (N,) "score", float32; `SparseRows` "indices" and
            "values", lists, the latter of float32.
    """
    import pyarrow as pa

    made = {name: pa.array(values) for name, values in columns.items()}
    if isinstance(vectors, SparseRows):
        starts = pa.array(vectors.starts.astype(np.int32))
        for name, part in (("indices", vectors.terms), ("values", vectors.values.astype(np.float32, copy=False))):
            made[name] = pa.ListArray.from_arrays(starts, pa.array(part))
    elif vectors.ndim == 1:
        made["score"] = pa.array(vectors.astype(np.float32))
    else:
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        made["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.table(made)
