"""Sparse vectors of a segment: an inverted index of its own (see `search.inverted_index`).

    sparse.starts      int64 (V + 1,)
    sparse.documents   int32 (P,)
    sparse.values      float32 (P,)

A search reads the lists of its terms only.
"""

from __future__ import annotations

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.index.arrays import Arrays, Column
from sentence_transformers.index.blobs import Parts
from sentence_transformers.index.settings import Settings
from sentence_transformers.search.inverted_index import Postings
from sentence_transformers.util.csr import SparseRows, sparse_rows, starts_of
from sentence_transformers.util.tensor import ArrayLike, describe, to_rows

PARTS = ("starts", "documents", "values")


def check_rows(embeddings: ArrayLike, settings: Settings, name: str = "sparse_embeddings") -> SparseRows:
    """Sparse vectors as rows of float32, at length 1 for cosine.

    Raises:
        InputError: if they are of another dimension, or hold NaN or infinity.
    """
    rows = sparse_rows(embeddings.cpu() if hasattr(embeddings, "cpu") else embeddings)
    if rows is None:
        rows = sparse_rows(to_rows(embeddings, name).detach().cpu().to_sparse())
    if rows is None:
        raise InputError(f"`{name}` must have shape (N, V) or (V,), got {describe(embeddings)}.")
    if len(rows) and settings.sparse_dimension not in (None, rows.dimension):
        raise InputError(
            f"`{name}` have dimension {rows.dimension}, the index has {settings.sparse_dimension}. Were they made by "
            "the model that the index was built with?"
        )
    if not np.isfinite(rows.values).all():
        wrong = rows.row_numbers()[~np.isfinite(rows.values)]
        raise InputError(f"`{name}` hold NaN or infinity, first in row {wrong[0]}.")
    rows = rows.normalized() if settings.sparse_similarity == "cosine" else rows
    return SparseRows(rows.starts, rows.terms, rows.values.astype(np.float32, copy=False), rows.dimension)


def build(rows: SparseRows) -> dict[str, Column]:
    """The arrays of a segment's vectors, checked before."""
    return columns_of(Postings.of(rows))


def columns_of(postings: Postings) -> dict[str, Column]:
    return {f"sparse.{part}": Column.of(getattr(postings, part)) for part in PARTS}


def read(arrays: Arrays, count: int) -> Postings:
    """The inverted index of a segment of `count` documents, all of it."""
    starts, documents, values = (arrays.all(f"sparse.{part}") for part in PARTS)
    return Postings(starts, documents, values, count)


def read_terms(arrays: Arrays, count: int, terms: np.ndarray) -> Postings:
    """The inverted index of a segment, of which only the lists of some terms may be used."""
    starts = arrays.all("sparse.starts")
    for term in terms.tolist():
        for part in PARTS[1:]:
            arrays.part(f"sparse.{part}", int(starts[term]), int(starts[term + 1]))
    return Postings(starts, arrays.view("sparse.documents"), arrays.view("sparse.values"), count)


def take(postings: Postings, rows: np.ndarray) -> Postings:
    """The documents that are kept (rising), renumbered."""
    new = np.full(len(postings), -1, dtype=np.int32)
    new[rows] = np.arange(len(rows), dtype=np.int32)
    documents = new[postings.documents]
    kept = documents >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    return Postings(before[postings.starts].astype(np.int64), documents[kept], postings.values[kept], len(rows))


def join(parts: Parts) -> dict[str, Column]:
    """The vectors of the rows that are kept, numbered on from part to part."""
    taken = [take(read(arrays, arrays.length("id.hashes")), rows) for arrays, rows in parts]
    return columns_of(taken[0] if len(taken) == 1 else Postings.join(taken))


def rows_of(postings: Postings) -> SparseRows:
    """The documents of an inverted index as rows."""
    order = np.argsort(postings.documents, kind="stable")
    terms = np.repeat(np.arange(postings.dimension), np.diff(postings.starts))
    return SparseRows(
        starts_of(postings.documents, len(postings)), terms[order], postings.values[order], postings.dimension
    )
