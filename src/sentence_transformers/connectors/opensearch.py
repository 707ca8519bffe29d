"""Vectors in OpenSearch (2.16 or later): https://opensearch.org

    OpenSearchDatabase("glosses", hosts="http://localhost:9200")

The field is a `knn_vector` with a graph of Lucene; for "binary" one of Faiss, whose score is
1 / (1 + bits that differ).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from sentence_transformers.connectors.json_documents import VECTOR, JsonDatabase, unscaled
from sentence_transformers.connectors.search_engines.opensearch import OpenSearchEngine
from sentence_transformers.connectors.search_engines.rank_features import RankFeatures

SPACES = {"cosine": "cosinesimil", "dot": "innerproduct", "euclidean": "l2", "hamming": "hamming"}


class OpenSearchDatabase(JsonDatabase):
    """An index of OpenSearch. Arguments: see `JsonDatabase`; `hosts` is localhost:9200 by default.

    Raises:
        InputError: for a precision or metric that OpenSearch does not have.
        MissingExtraError: at the first use, if opensearch-py is not installed.
    """

    title: ClassVar[str] = "OpenSearch"
    engine_class: ClassVar[type[RankFeatures]] = OpenSearchEngine
    settings: ClassVar[dict[str, Any]] = {"settings": {"index": {"knn": True}}}

    def vector_field(self, dimension: int) -> dict[str, Any]:
        binary = self.precision == "binary"
        engine = "faiss" if binary else "lucene"
        method = {"name": "hnsw", "engine": engine, "space_type": SPACES[self.metric]}
        kind = {"data_type": "binary"} if binary else {}
        return {"type": "knn_vector", "dimension": dimension, **kind, "method": method}

    def nearest(self, vector: np.ndarray, top_k: int, filters: list[dict[str, Any]]) -> dict[str, Any]:
        search = {"vector": vector, "k": top_k}
        search |= {"filter": {"bool": {"must": filters}}} if filters else {}
        return {"query": {"knn": {VECTOR: search}}}

    def similarity(self, score: float, dimension: int) -> float:
        return 1 - 1 / score if self.metric == "hamming" else unscaled(score, self.metric)

    def bits(self, row: np.ndarray) -> list[int]:
        return row.view(np.int8).tolist()
