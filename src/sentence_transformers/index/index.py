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

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.index import documents, keys, search
from sentence_transformers.index import queries as queries_of
from sentence_transformers.index.candidates import Pool, fields_of
from sentence_transformers.index.collection import Collection, State
from sentence_transformers.index.documents import Given, as_list
from sentence_transformers.index.graph import check_engine
from sentence_transformers.index.keys import Id
from sentence_transformers.index.models import DENSE, SPARSE, Encoders
from sentence_transformers.index.queries import Mode
from sentence_transformers.index.search import Fusion, Hit, Request
from sentence_transformers.index.settings import Engine, Precision, Rescore, Settings, Similarity
from sentence_transformers.index.store import Check, Store
from sentence_transformers.protocols import Reranker, SearchEncoder
from sentence_transformers.search import filters
from sentence_transformers.util.tensor import ArrayLike

RESCORE: dict[str, Rescore | None] = {"float32": None, "int8": None, "binary": "int8"}
"""The form that is kept beside each precision by default."""


class Index:
    """Documents to search: vectors, texts and metadata under ids of your own.

    Args:
        model: encodes texts: a `SentenceTransformer`, or a `SparseEncoder` for sparse search. None: vectors are given.
        sparse_model: a `SparseEncoder` beside a dense `model`, for hybrid search.
        dimension, sparse_dimension: of the vectors; by default the models', or those of the first vectors added.
        similarity: of dense vectors: "cosine", "dot" or "euclidean"; by default the model's, else "cosine".
        sparse_similarity: of sparse vectors: "dot" or "cosine"; by default the model's, else "dot".
        precision: the form in which dense vectors are searched: "float32", "int8" (a quarter of the memory) or
            "binary" (a 32nd).
        rescore: the form that is kept beside it, on disk, to score candidates again: "float32", "int8" or None.
            By default "int8" for "binary"; "int8" alone is scored again by its own codes and the float query.
        approximate: "usearch" or "faiss": search HNSW graphs instead of all documents. Segments of fewer than 5,000
            documents have none.

    Raises:
        InputError: if a model is of another kind, or the settings do not fit each other.

    Example:
        >>> index = Index(SentenceTransformer("all-MiniLM-L6-v2"))
        >>> index.add(["A cat sleeps.", "Rates rise."], ids=["cat", "rates"])
        ['cat', 'rates']
        >>> index.search("animals", top_k=1)
        [Hit(id='cat', score=0.39…, text='A cat sleeps.', metadata={})]
    """

    def __init__(
        self,
        model: SearchEncoder | None = None,
        sparse_model: SearchEncoder | None = None,
        *,
        dimension: int | None = None,
        sparse_dimension: int | None = None,
        similarity: Similarity | None = None,
        sparse_similarity: Literal["dot", "cosine"] | None = None,
        precision: Precision = "float32",
        rescore: Rescore | Literal["default"] | None = "default",
        approximate: Engine | None = None,
    ) -> None:
        self._encoders = Encoders([model, sparse_model])
        one, other = (self._encoders.models.get(kind) for kind in (DENSE, SPARSE))
        settings = Settings(
            dimension=dimension or (one and one.get_embedding_dimension()),
            sparse_dimension=sparse_dimension or (other and other.get_embedding_dimension()),
            similarity=similarity or (one and one.similarity_fn_name) or "cosine",
            sparse_similarity=sparse_similarity or (other and other.similarity_fn_name) or "dot",
            precision=precision,
            rescore=RESCORE.get(precision) if rescore == "default" else rescore,
            approximate=approximate,
        )
        self._encoders.check({}, settings.dimensions)
        check_engine(approximate)
        self._collection = Collection(State(settings, self._encoders.describe()))

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
        dimensions = {"dimension": settings.dimension, "sparse dimension": settings.sparse_dimension}
        facts = [f"{name} {value}" for name, value in dimensions.items() if value is not None]
        facts += [settings.precision] if settings.dimension is not None else []
        where = "in memory" if self.folder is None else f"in {self.folder}"
        return f"Index({', '.join([f'{len(self):,} documents', *facts, where])})"

    @property
    def settings(self) -> Settings:
        """What the index is made of."""
        return self._state.settings

    @property
    def dimension(self) -> int | None:
        """H, the dimension of the dense vectors; None without them, or as long as it is not known."""
        return self.settings.dimension

    @property
    def folder(self) -> Path | None:
        """Where the index lives; None for one in memory."""
        return None if self._collection.store is None else self._collection.store.folder

    @property
    def model_name(self) -> str | None:
        """The name of the model that the index was made with (of the dense one, if there are two); None without one."""
        names = self.model_names
        return names.get(DENSE) or names.get(SPARSE)

    @property
    def model_names(self) -> dict[str, str | None]:
        """The names of the models that the index was made with, by kind; None for a model without a name."""
        return {kind: known["name"] for kind, known in self._state.models.items()}

    @property
    def remembered_models(self) -> dict[str, dict[str, Any]]:
        """What is known of the models that the index was made with, by kind: name, revision, dimension, settings and
        the beginning of one vector.
        """
        return {kind: dict(known) for kind, known in self._state.models.items()}

    @property
    def models(self) -> dict[str, Any]:
        """The models that encode texts for it, by kind, the dense one first; empty where vectors are given."""
        return dict(self._encoders.models)

    @property
    def ids(self) -> Iterator[Id]:
        """The ids of all documents, oldest first."""
        for segment in self._state.segments:
            yield from map(keys.decode, segment.keys())

    @property
    def fields(self) -> list[str]:
        """The fields of metadata that documents have."""
        return sorted(fields_of(self._state.segments))

    def get(self, id: Id) -> Hit:
        """A document by its id, as a hit of score nan.

        Raises:
            KeyError: if there is none.
        """
        state, content = self._state, keys.encode([id])
        found = state.find(content)
        if all(rows[0] < 0 for rows in found):
            raise KeyError(id)
        one = documents.stored(state, found, content)
        return Hit(keys.decode(content[0]), float("nan"), one.texts[0], one.metadata[0])

    # ---- changes

    def add(
        self,
        texts: Sequence[str | None] | str | None = None,
        *,
        embeddings: ArrayLike | None = None,
        sparse_embeddings: object = None,
        ids: Sequence[Id] | Id | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
        replace: bool = False,
        show_progress_bar: bool | None = None,
    ) -> list[Id]:
        """Add documents, in one commit.

        Args:
            texts: encoded by the models as far as no vectors are given, and stored.
            embeddings: dense vectors, (N, H), or (H,) for one document.
            sparse_embeddings: sparse vectors, (N, V) or (V,): sparse tensor, SciPy matrix or dense array.
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
        given = Given(texts, embeddings, sparse_embeddings, ids, metadata)
        with collection.changing:
            collection.begin()
            new, learned = documents.check(given, self._state, self._encoders, show_progress_bar)
            found = self._state.find(new.ids)
            there = [one for place, one in enumerate(new.ids) if any(rows[place] >= 0 for rows in found)]
            if there and not replace:
                raise InputError(
                    f"{keys.named(there)} in the index already. Use other ids, or `replace=True` to replace documents."
                )
            if len(new):
                collection.change([rows[rows >= 0] for rows in found], new, **learned)
            return [keys.decode(one) for one in new.ids]

    def update(
        self,
        ids: Sequence[Id] | Id,
        texts: Sequence[str | None] | str | None = None,
        *,
        embeddings: ArrayLike | None = None,
        sparse_embeddings: object = None,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
        show_progress_bar: bool | None = None,
    ) -> None:
        """Change documents, in one commit. What is not given stays: with `metadata` alone, texts and vectors do.

        New texts are encoded anew, as far as no vectors are given. The documents become the last ones.

        Args and errors: as for `add`; ids that are not in the index are an error that names them.
        """
        collection = self._collection
        given = Given(texts, embeddings, sparse_embeddings, as_list(ids), metadata)
        with collection.changing:
            collection.begin()
            content, found = self._known(given.ids)
            new, learned = documents.changed(given, content, found, self._state, self._encoders, show_progress_bar)
            if content:
                collection.change([rows[rows >= 0] for rows in found], new, **learned)

    def delete(self, ids: Sequence[Id] | Id) -> None:
        """Delete documents, in one commit.

        Raises:
            InputError: naming ids that are not there or given twice; nothing is deleted then.
            IndexLockedError: if another writer has the folder open.
        """
        with self._collection.changing:
            self._collection.begin()
            content, found = self._known(as_list(ids))
            if content:
                self._collection.change([rows[rows >= 0] for rows in found], None)

    def _known(self, ids: list[Id]) -> tuple[list[bytes], list[np.ndarray]]:
        """Ids as they are stored, and for each segment their rows; all of them must be there."""
        content = keys.encode(ids)
        keys.check_distinct(content)
        found = self._state.find(content)
        unknown = [one for place, one in enumerate(content) if all(rows[place] < 0 for rows in found)]
        if unknown:
            raise InputError(f"{keys.named(unknown)} not in the index. Nothing was changed.")
        return content, found

    def compact(self) -> None:
        """Rewrite the index as one segment, without what was deleted."""
        with self._collection.changing:
            self._collection.begin()
            self._collection.compact()

    # ---- the folder

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index into a folder, as one segment; it lives there from now on: every change is written there.

        The folder is made if need be. An index that is there is replaced in one step.

        Raises:
            IndexLockedError: if another writer has the folder open.
        """
        self._collection.save(Path(folder))

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        model: SearchEncoder | None = None,
        sparse_model: SearchEncoder | None = None,
        *,
        check: Check = "read",
    ) -> Index:
        """Open the index in a folder, memory-mapped.

        Args:
            model, sparse_model: encode texts; without them the index takes vectors.
            check: when files are compared with their checksums: "read", each block of 64 KiB when it is first read;
                "open", all of them now; "never". Their sizes and headers are compared in any case.

        Raises:
            IndexNotFoundError: if there is none.
            IndexFormatError: if a file is missing, damaged or of a later version. With "read" a search raises it as
                well, when it comes upon damage.
            InputError: if a model is not of a kind or dimension that the index was made with.
        """
        index = cls.__new__(cls)
        index._encoders = Encoders([model, sparse_model])
        index._collection = Collection(store=Store(Path(folder), check))
        index._encoders.check(index._state.models, index.settings.dimensions)
        return index

    def verify(self) -> None:
        """Compare every byte of every file with its checksum.

        Raises:
            IndexFormatError: naming the file and the place that is damaged.
        """
        for segment in self._state.segments:
            segment.check()

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
        embeddings: ArrayLike | None = None,
        sparse_embeddings: object = None,
        filter: Mapping[str, Any] | None = None,
        mode: Mode | None = None,
        fusion: Fusion = "rrf",
        weights: Sequence[float] | None = None,
        candidates: int = 100,
        rescore_multiplier: int = 4,
        exact: bool = False,
        reranker: Reranker | None = None,
    ) -> Any:
        """The best documents of each query, best first.

        Args:
            queries: a text or a list of texts.
            top_k: hits a query; all documents if there are fewer.
            embeddings: dense vectors of queries, (H,) or (Q, H), instead of texts or of their encoding.
            sparse_embeddings: sparse vectors of queries, (V,) or (Q, V), likewise.
            filter: which documents may be found, by their metadata; the language is that of `search.filters`.
            mode: which vectors to search; by default all that the index and the queries have.
            fusion: how two rankings become one: "rrf", by places, or "weighted", by scaled scores; see `search.fusion`.
            weights: of the dense and the sparse ranking in that; (1, 1) by default.
            candidates: documents of each ranking that are fused and re-ranked, at least `top_k`.
            rescore_multiplier: candidates per result that are scored again, where the precision is not "float32".
            exact: search all documents although there is a graph.
            reranker: a `CrossEncoder` that reads query and text of the candidates and has the last word.

        Returns:
            For one text or vector a list of `Hit`, else a list of such lists. Equal scores: what was added first.
            Sparse search leaves out documents that share no term with the query.

        Raises:
            InputError: if a number is less than 1, a vector has another dimension or holds NaN or infinity, the filter
                is malformed or names a field that no document has, or there is neither model nor vector.
        """
        request = Request(top_k, fusion, weights, candidates, rescore_multiplier, exact, reranker)
        parsed = None if filter is None else filters.parse(filter)
        state = self._state
        asked = queries_of.check(Given(queries, embeddings, sparse_embeddings), mode, state, self._encoders)
        pool = Pool.of(state.segments, parsed)
        hits = search.search(pool, asked, state.settings, request)
        return hits[0] if asked.single else hits
