"""Sparse search with Elasticsearch: https://www.elastic.co/elasticsearch

The query is one clause `rank_feature` for each token, with the function `linear` and the token's weight as boost: its
score is the dot product. (Version 6.2.0 asks for `saturation`, whose scores are not the model's similarities.)
Elasticsearch allows no dots in the names of features, so "." becomes "_", in documents and queries; of two tokens that
become one, the heavier stays.
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
    from elasticsearch import Elasticsearch


def semantic_search_elasticsearch(
    query_embeddings_decoded: list[TokenWeights],
    corpus_embeddings_decoded: list[TokenWeights] | None = None,
    corpus_index: tuple[Elasticsearch, str] | None = None,
    top_k: int = 10,
    output_index: bool = False,
    **kwargs: Any,
) -> tuple[list[Hits], float] | tuple[list[Hits], float, tuple[Elasticsearch, str]]:
    """Search with Elasticsearch. The documents are uploaded to a new index, which stays there.

    Args:
        query_embeddings_decoded: for each query a list of (token, weight), as `SparseEncoder.decode` makes it.
        corpus_embeddings_decoded: the documents likewise; not needed with `corpus_index`.
        corpus_index: (client, name of the index), as an earlier call gave it.
        top_k: results per query, at most 10,000.
        output_index: also return (client, name of the index).
        **kwargs: for `Elasticsearch`: `hosts` (http://localhost:9200 by default), `api_key`, `ca_certs` and so on;
            `timeout`, seconds for each request (10 by default). Or `client`, a client that is ready.

    Returns:
        (results, seconds of the search) or (results, seconds, index). Results are, for each query, a list of
        {"corpus_id": int, "score": float}, best first.

    Raises:
        InputError: for another form of embeddings, negative weights, or if there is nothing to search.
        MissingExtraError: if the package elasticsearch is not installed.
        SearchEngineError: if Elasticsearch cannot be reached in time, or fails.
    """
    check_given(corpus_embeddings_decoded, corpus_index, "corpus_embeddings_decoded")
    queries = check_tokens(query_embeddings_decoded, "query_embeddings_decoded")
    documents = () if corpus_index else check_tokens(corpus_embeddings_decoded, "corpus_embeddings_decoded")
    return search(ElasticsearchEngine, queries, documents, corpus_index, top_k, output_index, kwargs)


class ElasticsearchEngine(RankFeatures):
    """Elasticsearch 8 or later."""

    title = "Elasticsearch"

    def __init__(self, client: Elasticsearch) -> None:
        from elasticsearch import ApiError, TransportError

        super().__init__(client)
        self.failures = (ApiError, TransportError, OSError)

    @classmethod
    def connect(cls, client: Elasticsearch | None = None, timeout: float = TIMEOUT, **kwargs: Any) -> Elasticsearch:
        try:
            from elasticsearch import Elasticsearch
        except ImportError as error:
            raise MissingExtraError("elasticsearch", "elasticsearch", "Elasticsearch") from error
        if client is not None:
            return client
        if not kwargs.get("hosts") and not kwargs.get("cloud_id"):
            kwargs["hosts"] = "http://localhost:9200"
        return Elasticsearch(**{"request_timeout": timeout, "max_retries": 0, "retry_on_timeout": False, **kwargs})

    def features(self, tokens: TokenWeights) -> dict[str, float]:
        weights: dict[str, float] = {}
        for token, weight in tokens:
            name = token.replace(".", "_")
            weights[name] = max(weight, weights.get(name, 0.0))
        return weights

    def query(self, weights: dict[str, float]) -> dict[str, Any]:
        clauses = [
            {"rank_feature": {"field": f"{FIELD}.{token}", "linear": {}, "boost": weight}}
            for token, weight in weights.items()
        ]
        return {"bool": {"should": clauses, "minimum_should_match": 1}}
