"""Sparse search with OpenSearch: https://opensearch.org

The query is `neural_sparse` with `query_tokens` (OpenSearch 2.14 or later, with its plugin neural-search): its score is
the dot product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sentence_transformers.connectors.search_engines.common import (
    TIMEOUT,
    Hits,
    TokenWeights,
    check_given,
    check_tokens,
    search,
)
from sentence_transformers.connectors.search_engines.rank_features import FIELD, RankFeatures
from sentence_transformers.errors import MissingExtraError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


def semantic_search_opensearch(
    query_embeddings_decoded: list[TokenWeights],
    corpus_embeddings_decoded: list[TokenWeights] | None = None,
    corpus_index: tuple[OpenSearch, str] | None = None,
    top_k: int = 10,
    output_index: bool = False,
    **kwargs: Any,
) -> tuple[list[Hits], float] | tuple[list[Hits], float, tuple[OpenSearch, str]]:
    """Search with OpenSearch. The documents are uploaded to a new index, which stays there.

    Args:
        query_embeddings_decoded: for each query a list of (token, weight), as `SparseEncoder.decode` makes it.
        corpus_embeddings_decoded: the documents likewise; not needed with `corpus_index`.
        corpus_index: (client, name of the index), as an earlier call gave it.
        top_k: results per query, at most 10,000.
        output_index: also return (client, name of the index).
        **kwargs: for `OpenSearch`: `hosts` (localhost:9200 by default), `http_auth`, `use_ssl` and so on; `timeout`,
            seconds for each request (10 by default). Or `client`, a client that is ready.

    Returns:
        (results, seconds of the search) or (results, seconds, index). Results are, for each query, a list of
        {"corpus_id": int, "score": float}, best first.

    Raises:
        InputError: for another form of embeddings, negative weights, or if there is nothing to search.
        MissingExtraError: if opensearch-py is not installed.
        SearchEngineError: if OpenSearch cannot be reached in time, or fails.
    """
    check_given(corpus_embeddings_decoded, corpus_index, "corpus_embeddings_decoded")
    queries = check_tokens(query_embeddings_decoded, "query_embeddings_decoded")
    documents = () if corpus_index else check_tokens(corpus_embeddings_decoded, "corpus_embeddings_decoded")
    return search(OpenSearchEngine, queries, documents, corpus_index, top_k, output_index, kwargs)


class OpenSearchEngine(RankFeatures):
    """OpenSearch 2.14 or later."""

    title = "OpenSearch"

    def __init__(self, client: OpenSearch) -> None:
        from opensearchpy.exceptions import OpenSearchException

        super().__init__(client)
        self.failures = (OpenSearchException, OSError)

    @classmethod
    def connect(cls, client: OpenSearch | None = None, **kwargs: Any) -> OpenSearch:
        try:
            from opensearchpy import OpenSearch
        except ImportError as error:
            raise MissingExtraError("opensearch-py", "opensearch", "OpenSearch") from error
        if client is not None:
            return client
        defaults = {"hosts": [{"host": "localhost", "port": 9200}], "timeout": TIMEOUT, "max_retries": 0}
        return OpenSearch(**{**defaults, **kwargs})

    def query(self, weights: dict[str, float]) -> dict[str, Any]:
        return {"neural_sparse": {FIELD: {"query_tokens": weights}}}
