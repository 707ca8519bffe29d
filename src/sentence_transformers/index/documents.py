"""What people hand to an index, checked and put into the form that it is stored in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.index import dense, keys, records, sparse
from sentence_transformers.index.collection import State
from sentence_transformers.index.models import DENSE, SPARSE, Encoders
from sentence_transformers.index.segments import Documents, Segment
from sentence_transformers.util.csr import SparseRows

VECTORS = {DENSE: "embeddings", SPARSE: "sparse_embeddings"}
"""The argument with the vectors of each kind of model."""


@dataclass(frozen=True)
class Given:
    """Arguments of `Index.add`; see there. Texts, ids and metadata may be one or several."""

    texts: Any = None
    embeddings: Any = None
    sparse_embeddings: Any = None
    ids: Any = None
    metadata: Any = None

    @property
    def vectors(self) -> dict[str, Any]:
        """The vectors that were given, by the kind of model that makes such."""
        found = {kind: getattr(self, name) for kind, name in VECTORS.items()}
        return {kind: vectors for kind, vectors in found.items() if vectors is not None}


def check(given: Given, state: State, encoders: Encoders, progress: bool | None) -> tuple[Documents, dict[str, Any]]:
    """Documents ready to be added, and what the index learns from them.

    Raises:
        InputError: see `Index.add`.
    """
    texts = None if given.texts is None else as_list(given.texts)
    check_texts(texts or [])
    forms, rows, learned = ready(all_vectors(given, texts, state, encoders, progress), state, encoders)
    count = len(rows) if forms is None else len(next(iter(forms.values())))  # type: ignore[arg-type]
    names = range(state.next_id, state.next_id + count) if given.ids is None else as_list(given.ids)
    metadata = [None] * count if given.metadata is None else as_list(given.metadata)
    check_counts(count, {"texts": texts, "ids": names, "metadata": metadata, "sparse vectors": rows})
    content = keys.encode(names)
    keys.check_distinct(content)
    new = Documents(content, texts or [None] * count, records.check_metadata(metadata), forms, rows)
    return new, learned | {"next_id": next_id(state.next_id, content)}


def ready(
    vectors: Mapping[str, Any], state: State, encoders: Encoders
) -> tuple[dict[str, np.ndarray] | None, SparseRows | None, dict[str, Any]]:
    """Vectors checked and in the forms that are stored, and what the index learns from them."""
    settings, learned, forms, rows = state.settings, dict[str, Any](), None, None
    if DENSE in vectors:
        found = dense.check_vectors(vectors[DENSE], settings)
        forms = dense.forms_of(found, settings)
        settings = dataclasses.replace(settings, dimension=found.shape[1] if len(found) else settings.dimension)
    if SPARSE in vectors:
        rows = sparse.check_rows(vectors[SPARSE], settings)
        known = rows.dimension if len(rows) else settings.sparse_dimension
        settings = dataclasses.replace(settings, sparse_dimension=known)
    if encoders.models and vectors:
        learned["models"] = encoders.learned(state.models)
    return forms, rows, learned | {"settings": settings}


def check_counts(count: int, lists: Mapping[str, Any]) -> None:
    """`InputError` unless each list that is there has one entry a document."""
    for name, one in lists.items():
        if one is not None and len(one) != count:
            raise InputError(f"There are {count:,} documents, but {len(one):,} {name}. Give one for each document.")


def all_vectors(
    given: Given, texts: list[Any] | None, state: State, encoders: Encoders, progress: bool | None
) -> dict[str, Any]:
    """Vectors of each kind that the index has: those given, else of the texts."""
    vectors, wanted = given.vectors, wanted_kinds(state, encoders)
    if len(state) and set(vectors) - wanted:
        raise InputError(f"The index has no `{VECTORS[(set(vectors) - wanted).pop()]}`; its documents came without.")
    if not vectors and texts is None:
        raise InputError("Give `add` texts, `embeddings`, or both.")
    for kind in sorted(wanted - set(vectors)):
        if kind not in encoders.models:
            raise InputError(no_model(kind))
        if texts is None:
            raise InputError(
                f"Give `add` the `{VECTORS[kind]}` as well, or texts: each document of this index has both."
            )
        vectors[kind] = encoders.encode(kind, texts, "document", state.models, progress)
    if not vectors:
        raise InputError(no_model(DENSE))
    return vectors


def no_model(kind: str) -> str:
    """What to do where texts cannot be encoded."""
    return (
        f"This index has no model for texts (a {kind} is needed): give `{VECTORS[kind]}`, or the model when the index "
        "is made or opened."
    )


def wanted_kinds(state: State, encoders: Encoders) -> set[str]:
    """The kinds of vectors that every document of an index has."""
    known = {kind for kind, dimension in state.settings.dimensions.items() if dimension is not None}
    return known if len(state) else known | set(encoders.models)


def next_id(last: int, content: Sequence[bytes]) -> int:
    """The first number above all that were ids."""
    numbers = [one for one in map(keys.decode, content) if isinstance(one, int)]
    return max([last, *(number + 1 for number in numbers)])


def as_list(given: str | int | Mapping[str, Any] | Iterable[Any]) -> list[Any]:
    """One text, id or dictionary, or several, as a list."""
    return [given] if isinstance(given, (str, int, Mapping)) else list(given)


def check_texts(texts: Sequence[Any], none: bool = True) -> None:
    """`InputError` naming the first that is no text; None may stand for a text if `none`."""
    for place, text in enumerate(texts):
        if not (none and text is None) and not isinstance(text, str):
            raise InputError(f"Text number {place} is {text!r:.80} of type {type(text).__name__}; expected a string.")


# ---- documents that are there already


def changed(
    given: Given,
    content: list[bytes],
    found: Sequence[np.ndarray],
    state: State,
    encoders: Encoders,
    progress: bool | None,
) -> tuple[Documents, dict[str, Any]]:
    """Documents of an index with what was given for them, and what the index learns from that.

    Args:
        content, found: their ids, and for each segment the row of each, -1 where it is not there.

    Raises:
        InputError: see `Index.update`.
    """
    texts = None if given.texts is None else as_list(given.texts)
    check_texts(texts or [])
    metadata = None if given.metadata is None else records.check_metadata(as_list(given.metadata))
    check_counts(len(content), {"texts": texts, "metadata": metadata})
    vectors = given.vectors if texts is None else all_vectors(given, texts, state, encoders, progress)
    forms, rows, learned = ready(vectors, state, encoders)
    lists = {"vectors": forms and next(iter(forms.values())), "sparse vectors": rows}
    check_counts(len(content), lists)
    old = stored(state, found, content)
    new = Documents(
        content,
        old.texts if texts is None else texts,
        old.metadata if metadata is None else metadata,
        old.dense if forms is None else forms,
        old.sparse if rows is None else rows,
    )
    return new, learned


def stored(state: State, found: Sequence[np.ndarray], content: list[bytes]) -> Documents:
    """Documents as they are stored, in the order of their ids.

    Args:
        found: for each segment the row of each id, -1 where it is not there.
    """
    parts = [
        (segment, np.flatnonzero(rows >= 0), rows[rows >= 0])
        for segment, rows in zip(state.segments, found, strict=True)
        if (rows >= 0).any()
    ]
    back = np.argsort(np.concatenate([places for _, places, _ in parts]))
    read = [pair for segment, _, rows in parts for pair in records.read(segment.arrays, rows)]
    pairs = [read[place] for place in back.tolist()]
    forms = None
    if state.settings.dimension is not None:
        raw = [dense.raw(segment.arrays, rows, state.settings) for segment, _, rows in parts]
        forms = {name: np.concatenate([one[name] for one in raw])[back] for name in raw[0]}
    rows = None
    if state.settings.sparse_dimension is not None:
        rows = sparse_rows([(segment, rows) for segment, _, rows in parts], back)
    return Documents(content, [text for text, _ in pairs], [metadata for _, metadata in pairs], forms, rows)


def sparse_rows(parts: Sequence[tuple[Segment, np.ndarray]], back: np.ndarray) -> SparseRows:
    """The sparse vectors of some rows of segments, put into another order."""
    taken = []
    for segment, rows in parts:
        order = np.argsort(rows)
        kept = sparse.rows_of(sparse.take(sparse.read(segment.arrays, segment.count), rows[order]))
        taken.append(kept.reordered(np.argsort(order)))
    return SparseRows.join(taken).reordered(back)
