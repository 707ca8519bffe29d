"""What the search engines share: check what was passed, upload in batches, search, and what to say if an engine fails.

    documents → create an index → write batch by batch → publish → search → [{"corpus_id": 3, "score": 1.5}, …]

`Engine` is one engine's own part of that way; `search` walks it. An engine that cannot be reached, or dies half-way,
becomes a `SearchEngineError` that says how far it got; an index that was begun is removed if the engine still answers.

Qdrant takes embeddings by dimension (sparse tensors), the others by token: for each text a list of (token, weight), as
`SparseEncoder.decode` makes it.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias
from uuid import uuid4

from sentence_transformers.errors import InputError, SearchEngineError
from sentence_transformers.search.blocks import check_sizes
from sentence_transformers.util.tensor import describe

TokenWeights: TypeAlias = list[tuple[str, float]]
Hits: TypeAlias = list[dict[str, int | float]]

TIMEOUT = 10
"""Seconds that an engine may take for one answer, unless `timeout` says otherwise."""

DOCUMENTS_PER_REQUEST = 500
QUERIES_PER_REQUEST = 100


class Sliceable(Protocol):
    """Queries or documents: a list of `TokenWeights`, or what is sliced like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


class Engine(ABC):
    """One search engine, behind a client.

    Attributes:
        title: its name, for messages.
        failures: what its client raises if the engine cannot be reached or refuses.
        place: the argument of its client that says where it runs.
        prefix: how the names of the indices begin that are made here.
    """

    title: ClassVar[str]
    place: ClassVar[str] = "hosts"
    failures: tuple[type[Exception], ...]
    prefix: ClassVar[str] = "sparse_index_"

    def __init__(self, client: Any) -> None:
        self.client = client
        self.failures = (OSError,)

    @classmethod
    @abstractmethod
    def connect(cls, client: Any = None, **kwargs: Any) -> Any:
        """The client that was given, or a new one, which asks once and waits for `TIMEOUT` seconds by default."""

    @abstractmethod
    def create(self, name: str) -> None:
        """Make an empty index."""

    @abstractmethod
    def write(self, name: str, first: int, documents: Sequence[TokenWeights]) -> None:
        """Store documents under the numbers `first`, `first` + 1, …"""

    def publish(self, name: str) -> None:  # noqa: B027  most engines have nothing to do here
        """Make everything that was written visible to searches."""

    @abstractmethod
    def find(self, name: str, queries: Sequence[TokenWeights], top_k: int) -> list[Hits]:
        """The best documents of each query."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete an index."""


def search(
    engine_class: type[Engine],
    queries: Sliceable,
    documents: Sliceable,
    corpus_index: tuple[Any, str] | None,
    top_k: int,
    output_index: bool,
    connection: dict[str, Any],
) -> Any:
    """Upload `documents` unless there is a `corpus_index` already, then search.

    Args:
        queries, documents: checked by the caller.
        connection: keyword arguments of the engine's `connect`. A client that is made here and not returned is closed.

    Returns:
        (results, seconds of the search), with `output_index` also (client, name).
    """
    check_sizes(top_k)
    client, name = corpus_index or (engine_class.connect(**connection), None)
    engine = engine_class(client)
    try:
        name = name or upload(engine, documents)
        results, seconds = find_all(engine, name, queries, top_k)
    finally:
        if not (corpus_index or output_index or connection.get("client")):
            client.close()
    return (results, seconds, (client, name)) if output_index else (results, seconds)


def find_all(engine: Engine, name: str, queries: Sliceable, top_k: int) -> tuple[list[Hits], float]:
    """The hits of all queries, and how many seconds that took."""
    if not top_k:
        return [[] for _ in range(len(queries))], 0.0
    results: list[Hits] = []
    begin = time.perf_counter()
    try:
        for start in range(0, len(queries), QUERIES_PER_REQUEST):
            results += engine.find(name, queries[start : start + QUERIES_PER_REQUEST], top_k)
    except engine.failures as error:
        raise SearchEngineError(f"{engine.title} failed to search the index {name!r}: {explain(error)}") from error
    return results, time.perf_counter() - begin


def upload(engine: Engine, documents: Sliceable) -> str:
    """Store documents in a new index; its name."""
    name = f"{engine.prefix}{uuid4().hex}"
    written: int | None = None
    try:
        engine.create(name)
        written = 0
        for first in range(0, len(documents), DOCUMENTS_PER_REQUEST):
            batch = documents[first : first + DOCUMENTS_PER_REQUEST]
            engine.write(name, first, batch)
            written += len(batch)
        engine.publish(name)
    except engine.failures as error:
        if written is None:
            raise SearchEngineError(
                f"{engine.title} could not be reached or refused to create an index, nothing was written: "
                f"{explain(error)}. Is it running? The argument `{engine.place}` says where."
            ) from error
        raise SearchEngineError(
            f"{engine.title} failed after {written:,} of {len(documents):,} documents were written: {explain(error)}. "
            f"{discard(engine, name)}"
        ) from error
    return name


def discard(engine: Engine, name: str) -> str:
    """Remove an unfinished index if possible; a sentence that says what is left."""
    try:
        engine.remove(name)
    except engine.failures as error:
        return f"The unfinished index {name!r} could not be removed and may be left behind: {explain(error)}"
    return f"The unfinished index {name!r} was removed, nothing is left of it."


def explain(error: Exception) -> str:
    """What an exception of a client says, in one line with its type and cause."""
    words, cause = str(error), str(error.__cause__ or "")
    both = words if cause in words else f"{words} ({cause})"
    return f"{type(error).__name__}: {' '.join(both.split())}"


def check_given(documents: Any | None, index: Any | None, name: str) -> None:
    """`InputError` if there are neither documents nor an index to search."""
    if documents is None and index is None:
        raise InputError(f"There is nothing to search: pass `{name}`, or `corpus_index` from an earlier call.")


def check_tokens(texts: object, name: str) -> list[TokenWeights]:
    """The argument `name`, lists of (token, weight), with plain numbers and without zeros.

    Raises:
        InputError: for another form, or for a weight that is negative or not finite: engines store positive ones only.
    """
    form = f"`{name}` must be a list with one list of (token, weight) for each text, as `SparseEncoder.decode` makes it"
    if not isinstance(texts, (list, tuple)):
        raise InputError(f"{form}; got {describe(texts)}.")
    checked = []
    for number, pairs in enumerate(texts):
        if not isinstance(pairs, (list, tuple)) or not all(map(is_pair, pairs)):
            raise InputError(f"{form}; number {number} is {pairs!r:.100}.")
        weights = [(token, float(weight)) for token, weight in pairs]
        bad = [pair for pair in weights if not (pair[1] >= 0 and math.isfinite(pair[1]))]
        if bad:
            raise InputError(f"Weights must be finite and not negative; text {number} of `{name}` has {bad[0]!r}.")
        checked.append([pair for pair in weights if pair[1] > 0])
    return checked


def is_pair(pair: object) -> bool:
    """Whether this is (token, weight)."""
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str) and is_number(pair[1])


def is_number(value: object) -> bool:
    """Whether a weight is a number: Python's, numpy's or a tensor of one value."""
    return hasattr(value, "__float__")


def with_queries(queries: Sequence[Any], find: Callable[[list[Any]], Iterable[Hits]]) -> list[Hits]:
    """Ask for the queries that have any term at all, with `find(those)`; the others have no hits.

    The hits of a query come best first, equal scores by document.
    """
    asked = [number for number, query in enumerate(queries) if len(query)]
    results: list[Hits] = [[] for _ in queries]
    if asked:
        for number, hits in zip(asked, find([queries[number] for number in asked]), strict=True):
            results[number] = sorted(hits, key=lambda hit: (-hit["score"], hit["corpus_id"]))
    return results
