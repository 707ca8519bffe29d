"""Sparse search with Qdrant: https://qdrant.tech

Documents are points 0, 1, … of a collection with one sparse vector named "text", compared by dot product, which Qdrant
computes exactly. A document that shares no dimension with the query is no hit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from sentence_transformers.connectors.search_engines.common import (
    TIMEOUT,
    Engine,
    Hits,
    check_given,
    search,
    with_queries,
)
from sentence_transformers.errors import InputError, MissingExtraError
from sentence_transformers.util.csr import SparseRows, sparse_rows
from sentence_transformers.util.tensor import describe

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

VECTOR = "text"
PLACES = ("location", "url", "host", "path")


def semantic_search_qdrant(
    query_embeddings: Tensor,
    corpus_embeddings: Tensor | None = None,
    corpus_index: tuple[QdrantClient, str] | None = None,
    top_k: int = 10,
    output_index: bool = False,
    **kwargs: Any,
) -> tuple[list[Hits], float] | tuple[list[Hits], float, tuple[QdrantClient, str]]:
    """Search with Qdrant. The documents are uploaded to a new collection, which stays there.

    Args:
        query_embeddings: sparse tensor (Q, V), or (V,) for one query; a SciPy matrix will do.
        corpus_embeddings: the documents likewise, (D, V); not needed with `corpus_index`.
        corpus_index: (client, name of the collection), as an earlier call gave it.
        top_k: results per query.
        output_index: also return (client, name of the collection).
        **kwargs: for `QdrantClient`: `url` (http://localhost:6333 by default), `location=":memory:"`, `api_key`,
            `timeout`, seconds for each request (10 by default), and so on. Or `client`, a client that is ready.

    Returns:
        (results, seconds of the search) or (results, seconds, index). Results are, for each query, a list of
        {"corpus_id": int, "score": float}, best first.

    Raises:
        InputError: if the embeddings are not sparse, or there is nothing to search.
        MissingExtraError: if qdrant-client is not installed.
        SearchEngineError: if Qdrant cannot be reached in time, or fails.
    """
    check_given(corpus_embeddings, corpus_index, "corpus_embeddings")
    queries = Vectors(query_embeddings, "query_embeddings")
    documents = () if corpus_index else Vectors(corpus_embeddings, "corpus_embeddings")
    return search(Qdrant, queries, documents, corpus_index, top_k, output_index, kwargs)


class Vectors:
    """Sparse rows that are sliced like a list."""

    def __init__(self, embeddings: Tensor | None, name: str) -> None:
        rows = sparse_rows(embeddings.cpu() if isinstance(embeddings, Tensor) else embeddings)
        if rows is None:
            raise InputError(
                f"`{name}` must be a sparse tensor of shape (N, V), got {describe(embeddings)}; "
                "make it sparse with `.to_sparse()`."
            )
        self.rows: SparseRows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> list[list[tuple[int, float]]]:
        """For each row the pairs of dimension and value."""
        rows = self.rows.take(part.start, part.stop)
        return [list(zip(terms.tolist(), values.tolist(), strict=True)) for terms, values in rows]


class Qdrant(Engine):
    """Collections of sparse vectors."""

    title = "Qdrant"
    place = "url"
    prefix = "sparse_collection_"

    def __init__(self, client: QdrantClient) -> None:
        from qdrant_client import models
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        super().__init__(client)
        self.failures = (ApiException, QdrantException, OSError)
        self.models = models

    @classmethod
    def connect(cls, client: QdrantClient | None = None, **kwargs: Any) -> QdrantClient:
        try:
            from qdrant_client import QdrantClient
        except ImportError as error:
            raise MissingExtraError("qdrant-client", "qdrant", "Qdrant") from error
        if client is not None:
            return client
        if not any(kwargs.get(place) for place in PLACES):
            kwargs["url"] = "http://localhost:6333"
        return QdrantClient(**{"timeout": TIMEOUT, "check_compatibility": False, **kwargs})

    def create(self, name: str) -> None:
        parameters = self.models.SparseVectorParams(index=self.models.SparseIndexParams(on_disk=False))
        self.client.create_collection(name, vectors_config={}, sparse_vectors_config={VECTOR: parameters})

    def write(self, name: str, first: int, documents: list[Any]) -> None:
        points = [
            self.models.PointStruct(id=number, vector={VECTOR: self.vector(document)})
            for number, document in enumerate(documents, first)
        ]
        self.client.upsert(name, points=points, wait=True)

    def find(self, name: str, queries: list[Any], top_k: int) -> list[Hits]:
        return with_queries(queries, lambda asked: self.ask(name, asked, top_k))

    def ask(self, name: str, queries: list[Any], top_k: int) -> list[Hits]:
        """The hits of queries that have values, in one request."""
        requests = [self.models.QueryRequest(query=self.vector(query), using=VECTOR, limit=top_k) for query in queries]
        answers = self.client.query_batch_points(name, requests=requests)
        return [[{"corpus_id": point.id, "score": point.score} for point in answer.points] for answer in answers]

    def vector(self, row: list[tuple[int, float]]) -> Any:
        """Qdrant's form of one row."""
        return sparse_vector([term for term, _ in row], [value for _, value in row])

    def remove(self, name: str) -> None:
        self.client.delete_collection(name)


def sparse_vector(terms: list[int], values: list[float]) -> Any:
    """Dimensions and values as Qdrant takes them."""
    from qdrant_client import models

    return models.SparseVector(indices=terms, values=values)


def is_embedded(connection: dict[str, Any]) -> bool:
    """Whether Qdrant runs in this process: a folder, or memory."""
    return bool(connection.get("path") or connection.get("location") == ":memory:")
