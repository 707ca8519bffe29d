"""A segment: a run of documents that never changes, and the marks of those that have been deleted since.

The arrays of all parts lie in one `Arrays`; what depends on the rows alone is made once and kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sentence_transformers.index import blobs, dense, keys, metadata, records, sparse
from sentence_transformers.index.arrays import Arrays, Column
from sentence_transformers.index.graph import Graph, StoredGraph
from sentence_transformers.index.settings import Settings
from sentence_transformers.search import filters
from sentence_transformers.util.csr import SparseRows


@dataclass(frozen=True)
class Documents:
    """Documents on their way into an index, checked: one entry of each list a document.

    Args:
        dense: their dense vectors, in all their forms (see `dense.forms_of`).
    """

    ids: list[bytes]
    texts: Sequence[str | None]
    metadata: list[records.Metadata]
    dense: Mapping[str, np.ndarray] | None
    sparse: SparseRows | None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Segment:
    """N documents.

    Args:
        arrays: what is stored.
        count: N.
        deleted: bool (N,), or None if none was deleted.
        entry: what the manifest says about it, if it is on disk.
        marked: whether `deleted` is on disk as well.
        graph: of its dense vectors, for approximate search.
    """

    arrays: Arrays
    count: int
    deleted: np.ndarray | None = None
    entry: dict[str, Any] | None = None
    marked: bool = False
    graph: Graph | StoredGraph | None = None

    @property
    def live(self) -> int:
        """Documents that have not been deleted."""
        return self.count - (0 if self.deleted is None else int(self.deleted.sum()))

    @property
    def rows(self) -> np.ndarray:
        """The rows of those, rising."""
        return np.arange(self.count) if self.deleted is None else np.flatnonzero(~self.deleted)

    def keys(self) -> list[bytes]:
        """The ids of those."""
        content = blobs.read_all(self.arrays, "id")
        return content if self.deleted is None else [content[row] for row in self.rows.tolist()]

    def key(self, rows: np.ndarray) -> list[bytes]:
        """The ids of some rows."""
        return blobs.read(self.arrays, "id", rows)

    def find(self, content: Sequence[bytes], hashes: np.ndarray) -> np.ndarray:
        """The row of each id, -1 where it is not there or deleted."""
        rows = keys.find(self.arrays, content, hashes)
        if self.deleted is not None:
            rows[(rows >= 0) & self.deleted[rows]] = -1
        return rows

    def without(self, rows: np.ndarray) -> Segment:
        """The segment with some more rows deleted."""
        deleted = np.zeros(self.count, dtype=bool) if self.deleted is None else self.deleted.copy()
        deleted[rows] = True
        return replace(self, deleted=deleted, marked=False)

    def check(self) -> None:
        """Compare every byte with its checksum."""
        self.arrays.check()
        if isinstance(self.graph, StoredGraph):
            self.graph.check()

    def allowed(self, one: filters.Filter | None) -> np.ndarray | None:
        """Which rows a search may find: bool (N,), None for all."""
        if one is None:
            return None if self.deleted is None else ~self.deleted
        mask = metadata.mask(one, self.arrays, self.count)
        return mask if self.deleted is None else mask & ~self.deleted


def build(documents: Documents) -> dict[str, Column]:
    """The arrays of new documents."""
    columns = keys.build(documents.ids) | records.build(documents.texts, documents.metadata)
    columns |= metadata.build(documents.metadata)
    if documents.dense is not None:
        columns |= {name: Column.of(array) for name, array in documents.dense.items()}
    if documents.sparse is not None:
        columns |= sparse.build(documents.sparse)
    return columns


def join(segments: Sequence[Segment], settings: Settings) -> dict[str, Column]:
    """The arrays of all documents of some segments that have not been deleted, in order."""
    parts = [(segment.arrays, segment.rows) for segment in segments]
    columns = keys.join(parts) | records.join(parts) | metadata.join(parts)
    if settings.dimension is not None:
        columns |= dense.join(parts, settings)
    if settings.sparse_dimension is not None:
        columns |= sparse.join(parts)
    return columns
