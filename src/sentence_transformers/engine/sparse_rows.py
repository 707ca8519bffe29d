"""Sparse rows: what a sparse encoder's micro-batch gives, and the forms a caller may ask for.

A text has about a hundred weights out of a vocabulary of tens of thousands, so rows leave the engine as their non-zero
entries. There is one inside form, a list of `SparseRow`; `as_matrix` and `as_list` turn it into tensors at the door.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sentence_transformers.engine.outputs import embedding_of
from sentence_transformers.util.csr import coo
from sentence_transformers.util.tensor import is_sparse, to_coo

if TYPE_CHECKING:
    from sentence_transformers.encoders.base import BaseModel


class SparseRow(NamedTuple):
    """The non-zero entries of one embedding.

    Attributes:
        columns: (nnz,) int64, rising.
        values: (nnz,) float.
    """

    columns: Tensor
    values: Tensor


@dataclass(frozen=True)
class SparseOutput:
    """The output arguments of `SparseEncoder.encode` that concern a micro-batch.

    Attributes:
        max_active_dims: entries kept per row, those of the largest magnitude; None keeps all.
        to_cpu: whether rows leave the device at once.
    """

    max_active_dims: int | None = None
    to_cpu: bool = False

    def rows(self, model: BaseModel, features: dict[str, Any], count: int) -> list[SparseRow]:
        """Rows of one micro-batch."""
        rows = split(embedding_of(model, features).detach())
        if self.max_active_dims is not None:
            rows = [strongest(row, self.max_active_dims) for row in rows]
        return [SparseRow(row.columns.cpu(), row.values.cpu()) for row in rows] if self.to_cpu else rows

    def for_worker(self) -> SparseOutput:
        return replace(self, to_cpu=True)


def split(embeddings: Tensor) -> list[SparseRow]:
    """(B, V), dense or sparse, as rows; entries that are zero are left out."""
    if is_sparse(embeddings):
        coo = to_coo(embeddings)
        rows, columns = coo.indices()
        values = coo.values()
        kept = values != 0
        rows, columns, values = rows[kept], columns[kept], values[kept]
    else:
        rows, columns = embeddings.nonzero(as_tuple=True)
        values = embeddings[rows, columns]
    counts = torch.bincount(rows, minlength=embeddings.shape[0]).tolist()
    return [SparseRow(*parts) for parts in zip(columns.split(counts), values.split(counts), strict=True)]


def strongest(row: SparseRow, most: int) -> SparseRow:
    """The entries of the largest magnitude."""
    if len(row.values) <= most:
        return row
    kept = row.values.abs().topk(most).indices.sort().values
    return SparseRow(row.columns[kept], row.values[kept])


def as_matrix(rows: Sequence[SparseRow], dimension: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Rows as one coalesced COO tensor of shape (N, V)."""
    if not rows:
        empty = torch.empty(2, 0, dtype=torch.int64, device=device)
        return coo(empty, torch.empty(0, dtype=dtype, device=device), (0, dimension))
    counts = torch.tensor([len(row.columns) for row in rows], device="cpu")
    numbers = torch.repeat_interleave(torch.arange(len(rows), device="cpu"), counts).to(device)
    columns = torch.cat([row.columns for row in rows]).to(device)
    values = torch.cat([row.values for row in rows]).to(device)
    return coo(torch.stack([numbers, columns]), values, (len(rows), dimension))


def as_list(rows: Sequence[SparseRow], dimension: int, device: torch.device) -> list[Tensor]:
    """Rows as COO tensors of shape (V,)."""
    return [coo(row.columns[None].to(device), row.values.to(device), (dimension,)) for row in rows]
