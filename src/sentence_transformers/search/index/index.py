"""The index that people use: texts or vectors in, hits out, in memory or in one folder.

    index = Index(model)
    index.add(["A cat sleeps.", "Rates rise."], ids=["cat", "rates"], metadata=[{"year": 2020}, {"year": 2024}])
    index.search("animals", top_k=3, filter={"year": {"<": 2022}})       # [Hit(id='cat', score=0.41, text=…, …)]
    index.save("folder")                                                 # from here on every change is written there

    index = Index.load("folder", model)

A change (`add`, `update`, `delete`, `compact`) is one commit: when it returns it is on disk, and if it fails or the
process dies the index is as before. A search works on the last commit from its beginning to its end, so any number of
threads may search while another adds; other processes see a commit after `refresh`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.search import filters
from sentence_transformers.search.index import candidates, dense, keys, metadata, models, records
from sentence_transformers.search.index.collection import Collection, State
from sentence_transformers.search.index.keys import Id
from sentence_transformers.search.index.segments import Documents
from sentence_transformers.search.index.settings import Settings, Similarity
from sentence_transformers.search.index.store import Store


class Hit(NamedTuple):
    """A document that a search found. `text` is None if it was added without; `metadata` is a dictionary."""

    id: Id
    score: float
    text: str | None
    metadata: dict[str, Any]


class Index:
    """Documents to search: vectors, texts and metadata under ids of your own.

    Args:
        model: encodes texts. None: the index takes vectors.
        dimension: of the vectors; by default the model's, or that of the first vectors added.
        similarity: "cosine", "dot" or "euclidean"; by default the model's, else "cosine".

    Raises:
        InputError: if the model is none that gives one vector a text, or the settings do not fit each other.

    Example:
        >>> index = Index(SentenceTransformer("all-MiniLM-L6-v2"))
        >>> index.add(["A cat sleeps.", "Rates rise."], ids=["cat", "rates"])
        ['cat', 'rates']
        >>> index.search("animals", top_k=1)
        [Hit(id='cat', score=0.39…, text='A cat sleeps.', metadata={})]
    """

    def __init__(
        self, model: Any = None, *, dimension: int | None = None, similarity: Similarity | None = None
    ) -> None:
        self._models: dict[str, Any] = {}
        self._proven: set[str] = set()
        known = {}
        if model is not None:
            kind = models.kind_of(model)
            self._models[kind], known[kind] = model, models.describe(model)
            dimension = dimension or model.get_embedding_dimension()
            similarity = similarity or model.similarity_fn_name
        self._collection = Collection(State(Settings(dimension, similarity=similarity or "cosine"), known))

    # ---- facts

    @property
    def _state(self) -> State:
        return self._collection.state

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._state)

    def __contains__(self, id: Id) -> bool:
        return any(rows[0] >= 0 for rows in self._state.find(keys.encode([id])))

    def __repr__(self) -> str:
        settings = self.settings
        where = "in memory" if self.folder is None else f"in {self.folder}"
        return f"Index({len(self):,} documents, dimension {settings.dimension}, {settings.precision}, {where})"

    @property
    def settings(self) -> Settings:
        """What the index is made of."""
        return self._state.settings

    @property
    def dimension(self) -> int | None:
        """H, the dimension of the vectors; None as long as it is not known."""
        return self.settings.dimension

    @property
    def folder(self) -> Path | None:
        """Where the index lives; None for one in memory."""
        return None if self._collection.store is None else self._collection.store.folder

    @property
    def model_name(self) -> str | None:
        """The name of the model that the index was made with, if it has one."""
        return next((known["name"] for known in self._state.models.values()), None)

    @property
    def ids(self) -> Iterator[Id]:
        """The ids of all documents, oldest first."""
        for segment in self._state.segments:
            yield from map(keys.decode, segment.keys())

    @property
    def fields(self) -> list[str]:
        """The fields of metadata that documents have."""
        return sorted({name for segment in self._state.segments for name in metadata.fields_of(segment.arrays)})

    def get(self, id: Id) -> Hit:
        """A document by its id, as a hit of score nan.

        Raises:
            KeyError: if there is none.
        """
        state = self._state
        for segment, rows in zip(state.segments, state.find(keys.encode([id])), strict=True):
            if rows[0] >= 0:
                return self._hits_of(segment, rows, [float("nan")])[0]
        raise KeyError(id)

    # ---- changes

    def add(
        self,
        texts: Sequence[str | None] | str | None = None,
        *,
        embeddings: Any = None,
        ids: Sequence[Id] | Id | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
        replace: bool = False,
        show_progress_bar: bool | None = None,
    ) -> list[Id]:
        """Add documents, in one commit.

        Args:
            texts: encoded by the model unless `embeddings` are given, and stored.
            embeddings: (N, H), the vectors of the documents, or (H,) for one.
            ids: strings or whole numbers, one a document; by default numbers that were not used before.
            metadata: one dictionary of JSON values a document.
            replace: whether documents whose ids are there already are replaced.
            show_progress_bar: of the encoding; by default as `encode` decides.

        Returns:
            The ids.

        Raises:
            InputError: if an id is there already or given twice (naming it), numbers of entries differ, vectors have
                another dimension or hold NaN or infinity, metadata is no JSON, or there is neither model nor vectors.
                Nothing is added then.
            IndexLockedError: if another writer has the folder open.
        """
        collection = self._collection
        with collection.changing:
            collection.begin()
            given = self._documents(texts, embeddings, ids, metadata, show_progress_bar)
            found = self._state.find(given.ids)
            there = [one for place, one in enumerate(given.ids) if any(rows[place] >= 0 for rows in found)]
            if there and not replace:
                raise InputError(
                    f"{keys.named(there)} in the index already. Use other ids, or `replace=True` to replace documents."
                )
            collection.change([rows[rows >= 0] for rows in found], given, **self._learned(given))
            return [keys.decode(one) for one in given.ids]

    def delete(self, ids: Id | Sequence[Id]) -> None:
        """Delete documents, in one commit.

        Raises:
            InputError: naming ids that are not there; nothing is deleted then.
            IndexLockedError: if another writer has the folder open.
        """
        with self._collection.changing:
            self._collection.begin()
            content = keys.encode(as_list(ids))
            found = self._state.find(content)
            unknown = [one for place, one in enumerate(content) if not any(rows[place] >= 0 for rows in found)]
            if unknown:
                raise InputError(f"{keys.named(unknown)} not in the index. Nothing was deleted.")
            if content:
                self._collection.change([np.unique(rows[rows >= 0]) for rows in found], None)

    def compact(self) -> None:
        """Rewrite the index as one segment, without what was deleted."""
        with self._collection.changing:
            self._collection.begin()
            self._collection.compact()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index into a folder, as one segment; it lives there from now on: every change is written there.

        The folder is made if need be. An index that is there is replaced in one step.

        Raises:
            IndexLockedError: if another writer has the folder open.
        """
        self._collection.save(Path(folder))

    @classmethod
    def load(cls, folder: str | os.PathLike[str], model: Any = None) -> Index:
        """Open the index in a folder, memory-mapped.

        Args:
            model: encodes texts; without one the index takes vectors.

        Raises:
            IndexNotFoundError: if there is none.
            IndexFormatError: if a file is missing, damaged or of a later version.
            InputError: if the model is not of the kind or dimension that the index was made with.
        """
        index = cls.__new__(cls)
        index._models, index._proven = {}, set()
        index._collection = Collection(store=Store(Path(folder)))
        if model is not None:
            index._take(model)
        return index

    def refresh(self) -> bool:
        """See what other processes have committed; whether there was something new."""
        return self._collection.refresh()

    def close(self) -> None:
        """Let others write; the next change of this index takes the lock again."""
        self._collection.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # ---- search

    def search(
        self,
        queries: str | Sequence[str] | None = None,
        top_k: int = 10,
        *,
        embeddings: Any = None,
        filter: Mapping[str, Any] | None = None,
    ) -> Any:
        """The best documents of each query, best first.

        Args:
            queries: a text or a list of texts.
            top_k: hits a query; all documents if there are fewer.
            embeddings: (H,) or (Q, H), vectors of queries, instead of texts.
            filter: which documents may be found, by their metadata; the language is that of `search.filters`.

        Returns:
            For one text or vector a list of `Hit`, else a list of such lists. Equal scores: what was added first.

        Raises:
            InputError: if `top_k` is less than 1, a vector has another dimension or holds NaN or infinity, the filter
                is malformed or names a field that no document has, or there is neither model nor vector.
        """
        if not isinstance(top_k, int) or top_k < 1:
            raise InputError(f"`top_k` must be a whole number of at least 1, got {top_k!r}.")
        vectors, single = self._queries(queries, embeddings)
        pool = self._pool(filter)
        found = candidates.best_dense(pool, vectors, self.settings, top_k)
        hits = [self._hits(pool, ranking) for ranking in found]
        return hits[0] if single else hits

    def _pool(self, given: Mapping[str, Any] | None) -> candidates.Pool:
        """The documents that a filter lets through."""
        parsed, segments = None if given is None else filters.parse(given), self._state.segments
        unknown = sorted(filters.fields_of(parsed) - set(self.fields)) if parsed and len(self) else []
        if unknown:
            raise InputError(
                f"No document has the field {unknown[0]!r} that the filter names; fields are {', '.join(self.fields)}."
            )
        return candidates.Pool(segments, [segment.allowed(parsed) for segment in segments])

    def _hits(self, pool: candidates.Pool, ranking: candidates.Ranking) -> list[Hit]:
        """Documents with what is stored of them."""
        places = [pool.place(number) for number, _ in ranking]
        return [
            self._hits_of(segment, np.array([row]), [score])[0]
            for (segment, row), (_, score) in zip(places, ranking, strict=True)
        ]

    @staticmethod
    def _hits_of(segment: Any, rows: np.ndarray, scores: list[float]) -> list[Hit]:
        stored = zip(segment.key(rows), scores, records.read(segment.arrays, rows), strict=True)
        return [Hit(keys.decode(key), score, *record) for key, score, record in stored]

    # ---- texts and vectors

    def _take(self, model: Any) -> None:
        """Use a model, if it can be the one that the index was made with."""
        kind, known, settings = models.kind_of(model), self._state.models, self.settings
        if known and kind not in known:
            raise InputError(f"The index was made with a {next(iter(known))}, it cannot be opened with a {kind}.")
        dimension = model.get_embedding_dimension()
        if settings.dimension not in (None, dimension):
            raise InputError(
                f"The model gives vectors of dimension {dimension}, the index has {settings.dimension}"
                f"{' and was made with ' + self.model_name if self.model_name else ''}. Open it with that model."
            )
        self._models[kind] = model

    def _encode(self, texts: list[str], side: str, **kwargs: Any) -> Any:
        """Vectors of texts by the model, which is compared with the index's own the first time."""
        if not self._models:
            raise InputError("This index has no model for texts: give `embeddings`, or the model when it is opened.")
        ((kind, model),) = self._models.items()
        known = self._state.models.get(kind)
        if known and known["probe"] and kind not in self._proven:
            models.check(model, known)
            self._proven.add(kind)
        return models.encode(model, texts, side, **kwargs)

    def _queries(self, queries: Any, embeddings: Any) -> tuple[np.ndarray, bool]:
        """Vectors (Q, H) of queries, and whether one was given rather than several."""
        if (queries is None) == (embeddings is None):
            raise InputError("Give `search` either texts or `embeddings`.")
        if queries is not None:
            single = isinstance(queries, str)
            texts = [queries] if single else list(queries)
            embeddings = self._encode(texts, "query", show_progress_bar=False)
        else:
            single = np.ndim(embeddings) == 1
        return dense.check_vectors(embeddings, self.settings, "embeddings"), single

    def _documents(self, texts: Any, embeddings: Any, ids: Any, metadata: Any, progress: bool | None) -> Documents:
        """What is to be added, checked."""
        if texts is None and embeddings is None:
            raise InputError("Give `add` texts, `embeddings`, or both.")
        texts = None if texts is None else as_list(texts)
        check_texts(texts or [])
        if embeddings is None:
            embeddings = self._encode(texts, "document", show_progress_bar=progress)
        vectors = dense.check_vectors(embeddings, self.settings)
        count = len(vectors)
        stored = records.check_metadata([None] * count if metadata is None else as_list(metadata))
        names = range(self._state.next_id, self._state.next_id + count) if ids is None else as_list(ids)
        given = {"texts": texts, "ids": names, "metadata": stored}
        for name, one in given.items():
            if one is not None and len(one) != count:
                raise InputError(f"There are {count:,} vectors, but {len(one):,} {name}. Give one for each document.")
        content = keys.encode(names)
        keys.check_distinct(content)
        return Documents(content, texts or [None] * count, stored, vectors, None)

    def _learned(self, new: Documents) -> dict[str, Any]:
        """What the index knows after new documents: the next id, the dimension, the model's probe."""
        numbers = [one for one in map(keys.decode, new.ids) if isinstance(one, int)]
        learned: dict[str, Any] = {"next_id": max([self._state.next_id, *(number + 1 for number in numbers)])}
        if self.dimension is None and new.dense is not None and len(new):
            learned["settings"] = dataclasses.replace(self.settings, dimension=new.dense.shape[1])
        known = self._state.models
        unseen = {kind: model for kind, model in self._models.items() if not known.get(kind, {}).get("probe")}
        if unseen:
            learned["models"] = {
                **known,
                **{kind: models.describe(model) | {"probe": models.probe(model)} for kind, model in unseen.items()},
            }
            self._proven |= set(unseen)
        return learned


def as_list(given: Any) -> list[Any]:
    """One text, id or dictionary, or several, as a list."""
    return [given] if isinstance(given, (str, int, Mapping)) else list(given)


def check_texts(texts: Sequence[Any]) -> None:
    """`InputError` naming the first that is neither a text nor None."""
    for place, text in enumerate(texts):
        if text is not None and not isinstance(text, str):
            raise InputError(f"Text number {place} is {text!r:.80} of type {type(text).__name__}; expected a string.")
