"""From texts to a database: encode and write as a stream, in bounded memory.

    source → chunk of documents → leave out what is there → encode → write → the next chunk

A source is any iterable of documents: texts (the id is the position), (id, text), (id, text, metadata), or dictionaries
as data sets and JSON lines have them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from sentence_transformers.connectors.common import Batch, Database, Id
from sentence_transformers.engine.progress import progress_bar
from sentence_transformers.engine.prompts import document_side
from sentence_transformers.errors import DatabaseWriteError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers.encoders.embedding import EmbeddingModel

CHUNK = 2000


class Document(NamedTuple):
    """One document of a source."""

    id: Id
    text: str
    metadata: dict[str, Any]


class Uploaded(NamedTuple):
    """What `upload` did.

    Attributes:
        written: documents encoded and stored.
        skipped: documents that were there already.
        seconds: how long it took.
    """

    written: int
    skipped: int
    seconds: float


def upload(
    model: EmbeddingModel,
    source: Iterable[Any],
    database: Database,
    *,
    column: str = "text",
    id_column: str = "id",
    store_text: bool = True,
    resume: bool = False,
    chunk_size: int = CHUNK,
    show_progress_bar: bool | None = None,
    **encode_kwargs: Any,
) -> Uploaded:
    """Encode documents and store them with their ids; what has the same id is replaced.

    Args:
        model: a `SentenceTransformer` or `SparseEncoder`; documents get its prompt and route for documents.
        source: texts, (id, text), (id, text, metadata), or dictionaries. Ids are all integers or all strings.
        database: where to; `precision="sparse"` for a SparseEncoder.
        column, id_column: where a dictionary has its text and its id; the rest of it is metadata. Without an id the
            position counts.
        store_text: keep the text, so that hits have it.
        resume: leave out documents whose id is stored already, without encoding them; their text is not compared.
        chunk_size: documents read, encoded and written at a time.
        show_progress_bar: default: shown if this package's logger is at INFO or below.
        **encode_kwargs: for `encode`, e.g. `batch_size`, `num_workers`, `truncate_dim`.

    Raises:
        InputError: for a document of another form, naming its position; for ids that are not fit.
        DatabaseWriteError: if the database cannot be reached, is full or fails: `written` documents are stored. Call
            again with `resume=True` to go on.

    Example:
        >>> with QdrantDatabase("glosses", path="vectors") as database:
        ...     upload(model, enumerate(texts), database)
        ...     database.search(model.encode_query("a large animal"), top_k=3)
    """
    if not isinstance(database, Database):
        raise InputError(f"`database` must be a database such as QdrantDatabase, got {type(database).__name__}.")
    begin = time.perf_counter()
    total = len(source) if hasattr(source, "__len__") else 0  # type: ignore[arg-type]
    count = {"written": 0, "skipped": 0}
    with progress_bar(total, show_progress_bar, "Uploading", " documents") as advance:
        documents = as_documents(source, column, id_column)
        fresh = missing(documents, database, chunk_size, count, advance) if resume else documents
        for batch in encoded(model, fresh, chunk_size, store_text, encode_kwargs):
            try:
                database.write([batch])
            except DatabaseWriteError as error:
                total_written = count["written"] + error.written
                raise DatabaseWriteError(
                    f"Stopped after {total_written:,} documents were written (and {count['skipped']:,} were there "
                    f"before). {error} Go on with upload(…, resume=True).",
                    total_written,
                ) from error
            count["written"] += len(batch.ids)
            advance(len(batch.ids))
    return Uploaded(count["written"], count["skipped"], time.perf_counter() - begin)


def encoded(
    model: EmbeddingModel,
    documents: Iterator[Document],
    chunk_size: int,
    store_text: bool,
    encode_kwargs: dict[str, Any],
) -> Iterator[Batch]:
    """Documents as batches for `Database.write`; at most one chunk of them is held."""
    held: deque[Document] = deque()

    def texts() -> Iterator[str]:
        for document in documents:
            held.append(document)
            yield document.text

    for vectors in model.encode_stream(texts(), chunk_size, **document_side(model, encode_kwargs)):
        chunk = [held.popleft() for _ in range(vectors.shape[0])]
        metadata = [one.metadata | ({"text": one.text} if store_text else {}) for one in chunk]
        yield Batch([one.id for one in chunk], vectors, metadata)


def missing(
    documents: Iterator[Document],
    database: Database,
    chunk_size: int,
    count: dict[str, int],
    advance: Callable[[int], object],
) -> Iterator[Document]:
    """The documents whose ids are not stored yet."""
    while chunk := list(islice(documents, chunk_size)):
        stored = database.existing([one.id for one in chunk])
        count["skipped"] += len(stored)
        advance(len(stored))
        yield from (one for one in chunk if one.id not in stored)


def as_documents(source: Iterable[Any], column: str, id_column: str) -> Iterator[Document]:
    """The documents of a source, one by one."""
    if isinstance(source, (str, bytes, Mapping)):
        raise InputError(f"`source` must be an iterable of documents, got one {type(source).__name__}.")
    for place, item in enumerate(source):
        yield as_document(item, place, column, id_column)


def as_document(item: object, place: int, column: str, id_column: str) -> Document:
    """One document; `InputError` naming its position if it has another form."""
    if isinstance(item, str):
        return Document(place, item, {})
    if isinstance(item, Mapping):
        if column not in item:
            raise InputError(f"Document {place} has no {column!r}, only {sorted(map(str, item))}; say `column=`.")
        rest = {key: value for key, value in item.items() if key not in (column, id_column)}
        return checked(Document(item.get(id_column, place), item[column], rest), place)
    if isinstance(item, Sequence) and len(item) in (2, 3):
        return checked(Document(item[0], item[1], dict(item[2]) if len(item) == 3 else {}), place)
    raise InputError(
        f"Document {place} is {item!r:.80}; expected a text, (id, text), (id, text, metadata) or a dictionary."
    )


def checked(document: Document, place: int) -> Document:
    """The document, if its text is one."""
    if not isinstance(document.text, str):
        kind = type(document.text).__name__
        raise InputError(f"The text of document {place} is {document.text!r:.80} of type {kind}; expected a string.")
    return document
