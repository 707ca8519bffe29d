"""What people hand to a search, checked and put into the forms that are searched with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.index import dense, sparse
from sentence_transformers.index.collection import State
from sentence_transformers.index.documents import VECTORS, Given, as_list, check_texts, no_model
from sentence_transformers.index.models import DENSE, SPARSE, Encoders
from sentence_transformers.index.settings import check_choice
from sentence_transformers.util.csr import SparseRows
from sentence_transformers.util.tensor import ArrayLike

Mode = Literal["dense", "sparse", "hybrid"]
KINDS = {"dense": {DENSE}, "sparse": {SPARSE}, "hybrid": {DENSE, SPARSE}}
"""The kinds of vectors that each mode searches."""


@dataclass(frozen=True)
class Queries:
    """Queries as texts, as dense (Q, H) and as sparse vectors (Q, V), as far as they are there.

    Args:
        single: whether one was given rather than several.
    """

    texts: list[str] | None
    dense: np.ndarray | None
    sparse: SparseRows | None
    single: bool

    def __len__(self) -> int:
        return len(self.dense if self.dense is not None else self.sparse)  # type: ignore[arg-type]


def check(given: Given, mode: Mode | None, state: State, encoders: Encoders) -> Queries:
    """Queries ready to be searched with; texts are encoded where no vectors are given.

    Raises:
        InputError: see `Index.search`.
    """
    check_choice("mode", mode, (None, *KINDS))
    vectors = given.vectors
    if given.texts is None and not vectors:
        raise InputError("Give `search` texts, `embeddings` or `sparse_embeddings`.")
    single = isinstance(given.texts, str) if given.texts is not None else all(map(is_one, vectors.values()))
    texts = None if given.texts is None else as_list(given.texts)
    check_texts(texts or [], none=False)
    kinds = searched(texts is not None, vectors, mode, state, encoders)
    for kind in kinds - set(vectors):
        vectors[kind] = encoders.encode(kind, texts or [], "query", state.models, False)
    settings = state.settings
    ready = dense.check_vectors(vectors[DENSE], settings, VECTORS[DENSE]) if DENSE in kinds else None
    rows = sparse.check_rows(vectors[SPARSE], settings, VECTORS[SPARSE]) if SPARSE in kinds else None
    counts = {
        name: len(one)
        for name, one in (("texts", texts), ("embeddings", ready), ("sparse_embeddings", rows))
        if one is not None
    }
    if len(set(counts.values())) > 1:
        raise InputError(f"Each query needs one entry in each list, got {counts}.")
    return Queries(texts, ready, rows, single)


def is_one(vectors: ArrayLike) -> bool:
    """Whether an argument is one vector rather than several."""
    return getattr(vectors, "ndim", None) == 1 or (not hasattr(vectors, "ndim") and np.ndim(vectors[0]) == 0)


def searched(texts: bool, vectors: Mapping[str, Any], mode: Mode | None, state: State, encoders: Encoders) -> set[str]:
    """The kinds of vectors that are searched: those of the mode, else all that both index and queries have."""
    there = {kind for kind, dimension in state.settings.dimensions.items() if dimension is not None}
    there |= set() if len(state) else {*vectors, *encoders.models}
    able = {*vectors, *(encoders.models if texts else ())}
    wanted = KINDS[mode] if mode else there & able
    for kind in sorted({*wanted, *vectors} - there):
        raise InputError(f"The index has no vectors of that kind: `{VECTORS[kind]}` cannot be searched.")
    for kind in sorted(wanted - able) or (sorted(there) or [DENSE])[: not wanted]:
        raise InputError(no_model(kind))
    return wanted
