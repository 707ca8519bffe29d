"""Vectors in Elasticsearch (8.15 or later): https://www.elastic.co/elasticsearch

    ElasticsearchDatabase("glosses", hosts="http://localhost:9200")

The field is a `dense_vector`; for "binary" with the element type `bit`, whose score is (H − bits that differ) / H.
Which graph and which compression Elasticsearch uses is its own choice unless `field_options` says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sentence_transformers.connectors.json_documents import VECTOR, JsonDatabase, unscaled
from sentence_transformers.connectors.search_engines.elasticsearch import ElasticsearchEngine
from sentence_transformers.connectors.search_engines.rank_features import RankFeatures

if TYPE_CHECKING:
    import numpy as np

SIMILARITIES = {"cosine": "cosine", "dot": "max_inner_product", "euclidean": "l2_norm", "hamming": "l2_norm"}
CANDIDATES = 100
"""How many neighbours each shard looks at, at least."""
MOST_CANDIDATES = 10_000


class ElasticsearchDatabase(JsonDatabase):
    """An index of Elasticsearch. Arguments: see `JsonDatabase`; `hosts` is http://localhost:9200 by default.

    Raises:
        InputError: for a precision or metric that Elasticsearch does not have.
        MissingExtraError: at the first use, if the package elasticsearch is not installed.
    """

    title: ClassVar[str] = "Elasticsearch"
    engine_class: ClassVar[type[RankFeatures]] = ElasticsearchEngine

    def vector_field(self, dimension: int) -> dict[str, Any]:
        kind = "bit" if self.precision == "binary" else "float"
        similarity = SIMILARITIES[self.metric]
        return {
            "type": "dense_vector",
            "element_type": kind,
            "dims": dimension,
            "index": True,
            "similarity": similarity,
        }

    def nearest(self, vector: np.ndarray, top_k: int, filters: list[dict[str, Any]]) -> dict[str, Any]:
        candidates = min(max(top_k, CANDIDATES), MOST_CANDIDATES)
        search = {"field": VECTOR, "query_vector": vector, "k": top_k, "num_candidates": candidates}
        return {"knn": search | ({"filter": filters} if filters else {})}

    def similarity(self, score: float, dimension: int) -> float:
        return dimension * (score - 1) if self.metric == "hamming" else unscaled(score, self.metric)

    def bits(self, row: np.ndarray) -> str:
        return row.tobytes().hex()
