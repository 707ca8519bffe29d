"""What all vector databases share: check a batch, write it, say exactly how far a write got, search.

    batches of (ids, vectors, metadata) → check → make the collection if need be → one request after another → publish
    queries (Q, H) → one request for many of them → [[Hit("a", 0.71, text, metadata), …], …]

`Database` walks these ways; a subclass has the few calls of its client. An id that is there already is replaced, so
whatever was interrupted may be written again. A database stores settings only and connects at the first use; it may be
pickled and sent to other processes, each of which then has a connection of its own.

    precision    a vector is stored as
    float32      four bytes a dimension
    float16      two bytes
    binary       one bit: whether the value is positive; compared by the number of bits that differ (Hamming)
    sparse       the values that are not zero; compared by dot product, and only what shares a dimension is found

A score is the greater the better, whatever the database itself says: the similarity for "cosine" and "dot", minus the
distance for "euclidean", "manhattan" and "hamming".
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np

from sentence_transformers.connectors.search_engines.common import QUERIES_PER_REQUEST, explain
from sentence_transformers.errors import DatabaseWriteError, InputError, SearchEngineError
from sentence_transformers.index.index import Hit
from sentence_transformers.quantization import quantize
from sentence_transformers.search.blocks import check_sizes
from sentence_transformers.search.filters import Combined, Condition, Filter, parse
from sentence_transformers.util.csr import SparseRows, sparse_rows
from sentence_transformers.util.tensor import ArrayLike, describe, to_rows, to_tensor

Id: TypeAlias = int | str
Hits: TypeAlias = list[Hit]
Metadata: TypeAlias = Sequence[Mapping[str, Any]]
Rows: TypeAlias = np.ndarray | SparseRows

PRECISIONS = ("float32", "float16", "binary", "sparse")
NEGATIVE = {"!=": "==", "not in": "in"}
METRICS = ("cosine", "dot", "euclidean", "manhattan")


class Batch(NamedTuple):
    """Some documents.

    Attributes:
        ids: one for each, all integers or all strings.
        vectors: (N, H): array, tensor of any layout, SciPy matrix; for "binary" also what `quantize_embeddings` gives.
        metadata: what is stored beside each vector; None for nothing. Its entry "text" is the text of a document.
    """

    ids: Sequence[Id]
    vectors: Any
    metadata: Metadata | None = None


class Layout(NamedTuple):
    """What a collection holds.

    Attributes:
        dimension: of its vectors; None if it does not matter.
        vectors: how they are stored and compared, in the words of the database.
        ids: "int", "str", or None if it holds both.
    """

    dimension: int | None
    vectors: str
    ids: str | None = None

    def __str__(self) -> str:
        return f"{self.vectors}, dimension {self.dimension or 'any'}, ids of type {self.ids or 'int or str'}"


class Rejection(Exception):
    """A database refused a part of a request.

    Attributes:
        stored: how many documents of the request it did store.
    """

    def __init__(self, stored: int, reason: str) -> None:
        super().__init__(reason)
        self.stored = stored


class Database(ABC):
    """One collection of vectors in a database.

    Args:
        name: of the collection (index, table).
        precision: "float32", "float16", "binary" or "sparse"; what a database has of these, its class says.
        metric: "cosine", "dot", "euclidean" or "manhattan". None: "cosine", for "sparse" always "dot", for "binary"
            always "hamming".
        connection: arguments of the client, among them perhaps `client`, one that is ready.

    Attributes:
        title: name of the database, for messages.
        precisions, metrics: what it can do.
        documents_per_request: how many are written at a time.
        shared: whether several processes may use it at once.
    """

    title: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    metrics: ClassVar[tuple[str, ...]] = METRICS
    documents_per_request: ClassVar[int] = 500
    shared: bool = True
    failures: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, name: str, precision: str, metric: str | None, connection: dict[str, Any]) -> None:
        if precision not in self.precisions:
            raise InputError(
                f"{self.title} stores vectors as {' or '.join(self.precisions)}; got precision={precision!r}."
            )
        fixed = {"sparse": "dot", "binary": "hamming"}.get(precision)
        known = (fixed,) if fixed else self.metrics
        if metric is not None and metric not in known:
            raise InputError(f"{self.title} compares {precision} vectors by {' or '.join(known)}; got {metric!r}.")
        if not name or not isinstance(name, str):
            raise InputError(f"A collection needs a name, got {name!r}.")
        self.name, self.precision, self.connection = name, precision, connection
        self.metric = metric or fixed or "cosine"
        self._client: Any = None
        self._layout: Layout | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, precision={self.precision!r}, metric={self.metric!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None, "_layout": None}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---- what each database has of its own

    @abstractmethod
    def connect(self) -> Any:
        """A client; sets `failures`, what it raises if the database cannot be reached or refuses."""

    @abstractmethod
    def layout(self) -> Layout | None:
        """What the collection of this name holds; None if there is none."""

    @abstractmethod
    def planned(self, dimension: int, ids: str) -> Layout:
        """What `create` would make."""

    @abstractmethod
    def create(self, dimension: int, ids: str) -> None:
        """Make the collection; if another process was quicker, nothing happens."""

    @abstractmethod
    def store(self, ids: list[Id], rows: Rows, metadata: Metadata) -> None:
        """Write documents in one request; a refused part of them is a `Rejection`."""

    @abstractmethod
    def find(self, queries: Rows, top_k: int, chosen: Any) -> list[Hits]:
        """Hits of each query, scores as this library says them; `chosen` is the translated filter, or None."""

    @abstractmethod
    def compared(self, one: Condition) -> Any:
        """A comparison, other than "!=" and "not in", in the database's words; `unsayable` if it has none."""

    @abstractmethod
    def combined(self, operator: str, parts: list[Any]) -> Any:
        """Translated filters under "and", "or", or one of them under "not"."""

    @abstractmethod
    def present(self, ids: list[Id]) -> set[Id]:
        """Which of the ids are there."""

    @abstractmethod
    def count(self) -> int:
        """The number of documents; 0 if there is no such collection."""

    @abstractmethod
    def remove(self, ids: list[Id]) -> None:
        """Remove documents; ids that are not there do not matter."""

    @abstractmethod
    def drop(self) -> None:
        """Remove the collection; if there is none, nothing happens."""

    def publish(self) -> None:  # noqa: B027  most databases have nothing to do here
        """Let searches see what was written."""

    # ---- for everybody

    @property
    def client(self) -> Any:
        """The client, connected at the first use, and again after its connection was lost."""
        if self._client is None or getattr(self._client, "closed", False) is True:
            self._client = self.connect()
        return self._client

    def close(self) -> None:
        """End the connection, unless it is a client that was given; the next use opens another."""
        client, self._client, self._layout = self._client, None, None
        if client is not None and not self.connection.get("client"):
            client.close()

    def write(self, batches: Iterable[Batch | tuple[Any, ...]]) -> int:
        """Store batches of (ids, vectors, metadata) as they come; an id that is there is replaced.

        Memory holds one batch at a time. Each request is confirmed by the database before the next is sent.

        Returns:
            How many documents were written.

        Raises:
            InputError: for a batch that cannot be stored; those before it are stored.
            DatabaseWriteError: if the database cannot be reached, is full or fails. It says how many documents were
                confirmed; write the same batches again to complete them.
        """
        written = 0
        for batch in batches:
            ids, rows, metadata = self.checked(Batch(*batch))
            for start in range(0, len(ids), self.documents_per_request):
                part = slice(start, start + self.documents_per_request)
                with self.telling(written, ids[max(part.start - 1, 0)]):
                    self.fit(width(rows), type(ids[0]).__name__)
                    self.store(ids[part], take(rows, part), metadata[part])
                written += len(ids[part])
        if written:
            with self.telling(written, "the last"):
                self.publish()
        return written

    def search(self, queries: ArrayLike, top_k: int = 10, filter: Mapping[str, Any] | None = None) -> list[Hits]:
        """The best documents of each query.

        Args:
            queries: (Q, H), or (H,) for one, in the forms that `write` takes.
            top_k: results per query.
            filter: which documents may be found, by their metadata, in the language of `search.filters`: {"lang": "en",
                "year": {">=": 2020}}. What a database cannot say of it, its class tells.

        Returns:
            For each query a list of `Hit`, best first, as `Index.search` gives them.

        Raises:
            InputError: for queries or a filter of another form.
            SearchEngineError: if the database cannot be reached, or fails.
        """
        check_sizes(top_k)
        chosen = None if filter is None else self.translate(parse(filter))
        rows = as_rows(queries, self.precision)
        results: list[Hits] = []
        if not top_k:
            return [[] for _ in range(len(rows))]
        with self.asking("search"):
            if not self.fit_queries(width(rows)):
                raise SearchEngineError(f"{self.title} has nothing of the name {self.name!r}: write to it first.")
            for start in range(0, len(rows), QUERIES_PER_REQUEST):
                part = take(rows, slice(start, start + QUERIES_PER_REQUEST))
                results += self.find(part, top_k, chosen)
        return [sorted(hits, key=lambda hit: -hit.score) for hits in results]

    def existing(self, ids: Sequence[Id]) -> set[Id]:
        """Which of the ids are stored."""
        found: set[Id] = set()
        with self.asking("be asked for ids"):
            for start in range(0, len(ids), self.documents_per_request):
                found |= self.present(list(ids[start : start + self.documents_per_request]))
        return found

    def delete(self, ids: Sequence[Id]) -> None:
        """Remove documents by id; ids that are not there do not matter."""
        with self.asking("delete"):
            for start in range(0, len(ids), self.documents_per_request):
                self.remove(list(ids[start : start + self.documents_per_request]))
            self.publish()

    # ---- inside

    def translate(self, one: Filter) -> Any:
        """A filter in the database's words."""
        if isinstance(one, Combined):
            return self.combined(one.operator, [self.translate(part) for part in one.parts])
        if one.operator in NEGATIVE:
            return self.combined("not", [self.compared(Condition(one.field, NEGATIVE[one.operator], one.value))])
        return self.compared(one)

    def unsayable(self, one: Condition) -> InputError:
        """The error for a comparison that the database does not have."""
        return InputError(
            f"{self.title} cannot filter by {{{one.field!r}: {{{one.operator!r}: {one.value!r:.80}}}}}. Ask for more "
            "hits and filter them in Python."
        )

    def fit(self, dimension: int, ids: str) -> None:
        """Make the collection if there is none; `InputError` if the one that is there was made for something else."""
        if self._layout is None:
            self._layout = self.layout()
        if self._layout is None:
            self.create(dimension, ids)
            self._layout = self.layout()
        wanted = self.planned(dimension, ids)
        if self._layout != wanted:
            raise InputError(
                f"{self.title} has {self.name!r} already, and it does not fit: it holds {self._layout}; to be written: "
                f"{wanted}. Choose another name, or remove it first with `drop()`."
            )

    def fit_queries(self, dimension: int) -> bool:
        """Whether there is a collection to search; `InputError` if its vectors have another dimension."""
        self._layout = self._layout or self.layout()
        if self._layout is not None and self._layout.dimension not in (None, dimension):
            raise InputError(
                f"The queries have dimension {dimension}, but {self.name!r} holds {self._layout}. "
                "Were both made by the same model?"
            )
        return self._layout is not None

    def checked(self, batch: Batch) -> tuple[list[Id], Rows, Metadata]:
        """A batch with plain ids, rows in this database's precision and metadata for each."""
        ids, rows = check_ids(batch.ids), as_rows(batch.vectors, self.precision)
        metadata: Metadata = [{}] * len(ids) if batch.metadata is None else batch.metadata
        if not len(ids) == len(rows) == len(metadata):
            raise InputError(
                f"A batch has {len(ids)} ids, {len(rows)} vectors and {len(metadata)} entries of metadata."
            )
        for key, entry in zip(ids, metadata, strict=True):
            check_metadata(key, entry)
        return ids, rows, metadata

    @contextmanager
    def telling(self, written: int, last: object) -> Iterator[None]:
        """Turns a failure into a `DatabaseWriteError` that says what is stored."""
        try:
            _ = self.client
            yield
        except InputError:
            raise
        except Rejection as error:
            written += error.stored
            raise DatabaseWriteError(
                f"{self.title} refused documents for {self.name!r}: {error}. {written:,} documents of this call are "
                "stored. Write the same ids again when the cause is gone: what is there is replaced, not doubled.",
                written,
            ) from error
        except self.failures as error:
            if not written:
                raise DatabaseWriteError(
                    f"{self.title} could not be reached or refused to write, nothing was written to {self.name!r}: "
                    f"{explain(error)}."
                ) from error
            raise DatabaseWriteError(
                f"{self.title} failed after {written:,} documents were written to {self.name!r}, up to id {last!r}: "
                f"{explain(error)}. Write the same ids again: what is there is replaced, not doubled.",
                written,
            ) from error

    @contextmanager
    def asking(self, purpose: str) -> Iterator[None]:
        """Turns a failure into a `SearchEngineError`."""
        try:
            _ = self.client
            yield
        except (InputError, SearchEngineError):
            raise
        except self.failures as error:
            raise SearchEngineError(f"{self.title} failed to {purpose} in {self.name!r}: {explain(error)}") from error


def check_ids(ids: Sequence[Any]) -> list[Id]:
    """Ids as plain integers or strings; `InputError` naming the first that is neither, of another type, or twice."""
    plain: list[Any] = [key.item() if isinstance(key, np.generic) else key for key in ids]
    for place, key in enumerate(plain):
        if not isinstance(key, (int, str)) or isinstance(key, bool) or type(key) is not type(plain[0]):
            raise InputError(
                f"Ids must be all integers or all strings; number {place} is {key!r:.80} of type {type(key).__name__}."
            )
    if len(set(plain)) < len(plain):
        seen: set[Any] = set()
        double = next(key for key in plain if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InputError(f"The id {double!r:.80} occurs twice in one batch; each document needs an id of its own.")
    return plain


def check_metadata(key: Id, entry: object) -> None:
    """`InputError` unless an entry of metadata is a dictionary that JSON can say."""
    try:
        if not isinstance(entry, Mapping):
            raise TypeError(f"{type(entry).__name__} is no dictionary")
        json.dumps(dict(entry), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The metadata of {key!r:.80} cannot be stored as JSON: {error}. It is {entry!r:.80}."
        ) from error


def as_rows(vectors: ArrayLike, precision: str) -> Rows:
    """Vectors as they are stored: SparseRows, uint8 (N, H / 8) for "binary", else float32 (N, H).

    Raises:
        InputError: for values that are not finite, or another shape or type.
    """
    rows: Rows
    vectors = vectors.cpu() if hasattr(vectors, "cpu") else vectors
    found = sparse_rows(vectors)
    if precision == "sparse":
        rows = found if found is not None else dense_as_sparse(vectors)
        values = rows.values
    elif found is not None:
        raise InputError(f"Got sparse vectors for a database of {precision} vectors; give it precision='sparse'.")
    elif precision == "binary" and str(getattr(vectors, "dtype", "")).removeprefix("torch.") in ("int8", "uint8"):
        packed = np.atleast_2d(to_tensor(vectors).numpy())
        return packed if packed.dtype == np.uint8 else (packed.astype(np.int16) + 128).astype(np.uint8)
    else:
        rows = values = to_rows(vectors, "vectors").detach().float().numpy()
    if not np.isfinite(values).all():
        raise InputError(f"Vectors must be finite; {describe(vectors)} holds NaN or infinity.")
    return quantize(rows, "ubinary", np.zeros((2, 1))) if precision == "binary" else rows  # type: ignore[arg-type]


def dense_as_sparse(vectors: ArrayLike) -> SparseRows:
    """The values of dense vectors that are not zero."""
    rows = sparse_rows(to_rows(vectors, "vectors").detach().to_sparse())
    assert rows is not None
    return rows


def take(rows: Rows, part: slice) -> Rows:
    """Some rows of either kind."""
    return rows.take(part.start, part.stop) if isinstance(rows, SparseRows) else rows[part]


def width(rows: Rows) -> int:
    """The dimension of rows; eight to a byte if they are bits."""
    return rows.shape[1] * (8 if not isinstance(rows, SparseRows) and rows.dtype == np.uint8 else 1)


def as_hit(key: Id, score: float, metadata: Mapping[str, Any] | None) -> Hit:
    """A hit, the text taken out of the metadata."""
    rest = dict(metadata or {})
    return Hit(key, float(score), rest.pop("text", None), rest)
