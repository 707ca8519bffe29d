"""What Elasticsearch and OpenSearch have in common: indices with a field of type `rank_features`.

Document n has the id "n" and the field "tokens": token -> weight. The engines keep 9 significant bits of a weight, so
scores are right to 0.4 %. What shares no token with the query is no hit, and there are 10,000 hits at most.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from sentence_transformers.connectors.search_engines.common import Engine, Hits, TokenWeights, with_queries
from sentence_transformers.errors import SearchEngineError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch
    from opensearchpy import OpenSearch

FIELD = "tokens"
MAPPINGS = {"properties": {FIELD: {"type": "rank_features"}, "id": {"type": "keyword"}}}


class RankFeatures(Engine):
    """Indices of `rank_features`, behind one of the two clients."""

    @abstractmethod
    def query(self, weights: dict[str, float]) -> dict[str, Any]:
        """The query whose score is Σₜ qₜ dₜ."""

    def features(self, tokens: TokenWeights) -> dict[str, float]:
        """Token -> weight, as the engine takes it."""
        return dict(tokens)

    def create(self, name: str) -> None:
        self.client.indices.create(index=name, body={"mappings": MAPPINGS})

    def write(self, name: str, first: int, documents: list[TokenWeights]) -> None:
        lines: list[dict[str, Any]] = []
        for number, tokens in enumerate(documents, first):
            lines.append({"index": {"_id": str(number)}})
            lines.append({"id": str(number), FIELD: self.features(tokens)})
        refused = bulk(self.client, name, lines)
        if refused:
            raise SearchEngineError(f"{len(refused)} documents were refused, first {refused[0]}")

    def publish(self, name: str) -> None:
        self.client.indices.refresh(index=name)

    def find(self, name: str, queries: list[TokenWeights], top_k: int) -> list[Hits]:
        return with_queries(queries, lambda asked: self.ask(name, asked, top_k))

    def ask(self, name: str, queries: list[TokenWeights], top_k: int) -> list[Hits]:
        """The hits of queries that have tokens, in one request."""
        bodies = [{"size": top_k, "_source": False, "query": self.query(self.features(tokens))} for tokens in queries]
        return [
            [{"corpus_id": int(hit["_id"]), "score": float(hit["_score"])} for hit in hits]
            for hits in search_many(self.client, name, bodies)
        ]

    def remove(self, name: str) -> None:
        self.client.indices.delete(index=name)


def bulk(client: Elasticsearch | OpenSearch, name: str, lines: list[dict[str, Any]]) -> list[str]:
    """Send lines of actions and documents; for each that was refused, "id: reason"."""
    answer = client.bulk(index=name, body=lines)
    items = [next(iter(item.values())) for item in answer["items"]]
    return [f"{item['_id']}: {item['error']}" for item in items if item.get("error")]


def search_many(
    client: Elasticsearch | OpenSearch, name: str, bodies: list[dict[str, Any]]
) -> list[list[dict[str, Any]]]:
    """The hits of several searches in one request.

    Raises:
        SearchEngineError: if one of them was refused.
    """
    lines = [line for body in bodies for line in ({}, body)]
    answers = client.msearch(index=name, body=lines)["responses"]
    failed = [answer["error"] for answer in answers if "error" in answer]
    if failed:
        raise SearchEngineError(f"{len(failed)} queries were refused: {failed[0]}")
    return [answer["hits"]["hits"] for answer in answers]
