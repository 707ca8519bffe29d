"""What Elasticsearch and OpenSearch have in common as vector databases.

A document is {"id": its id, "embedding" or "tokens": its vector, "metadata": {…}}, stored under `_id` = the id as text.
In the metadata, texts are keywords (the first 1,024 characters at most are compared) and numbers are doubles. A sparse
vector is a field of type `rank_features` whose features are the numbers of the dimensions; the engines keep 9
significant bits of such a weight, so its scores are right to 0.4 %, and weights must be positive.

Their scores of nearest neighbours are made positive; `similarity` undoes that:

    cosine      s = (1 + c) / 2
    dot         s = 1 + p  if p ≥ 0,  else 1 / (1 − p)
    euclidean   s = 1 / (1 + d²)
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from sentence_transformers.connectors.common import (
    Database,
    Hit,
    Hits,
    Id,
    Layout,
    Metadata,
    Rejection,
    Rows,
    as_hit,
)
from sentence_transformers.connectors.search_engines.rank_features import FIELD, RankFeatures, bulk, search_many
from sentence_transformers.errors import InputError, SearchEngineError
from sentence_transformers.search.filters import Condition
from sentence_transformers.util.csr import SparseRows

if TYPE_CHECKING:
    import numpy as np

VECTOR = "embedding"
METADATA_TYPES = [
    {"texts": {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 1024}}},
    {"numbers": {"match_mapping_type": "long", "mapping": {"type": "double"}}},
]
BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
RESULT_WINDOW = 10_000


class JsonDatabase(Database):
    """An index of Elasticsearch or OpenSearch.

    Their filters do not tell a list from its items ("==" finds both) and take None and [] for missing fields.

    Args:
        name, precision, metric: see `Database`.
        field_options: more settings of the vector field, e.g. {"index_options": {"type": "int8_hnsw"}}.
        **connection: for the client: `hosts`, `api_key` and so on; `timeout` (10 seconds by default). Or `client`, a
            client that is ready (then not for other processes).
    """

    precisions: ClassVar[tuple[str, ...]] = ("float32", "binary", "sparse")
    metrics: ClassVar[tuple[str, ...]] = ("cosine", "dot", "euclidean")
    engine_class: ClassVar[type[RankFeatures]]
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        name: str,
        *,
        precision: str = "float32",
        metric: str | None = None,
        field_options: dict[str, Any] | None = None,
        **connection: Any,
    ) -> None:
        super().__init__(name, precision, metric, connection)
        self.field_options = field_options or {}
        self.shared = "client" not in connection

    def connect(self) -> Any:
        client = self.engine_class.connect(**self.connection)
        self.failures = (*self.engine_class(client).failures, SearchEngineError)
        return client

    # ---- what differs

    @abstractmethod
    def vector_field(self, dimension: int) -> dict[str, Any]:
        """The type of the field of vectors."""

    @abstractmethod
    def nearest(self, vector: np.ndarray, top_k: int, filters: list[dict[str, Any]]) -> dict[str, Any]:
        """The body of a search for nearest neighbours."""

    @abstractmethod
    def similarity(self, score: float, dimension: int) -> float:
        """The similarity, or minus the distance, behind a score."""

    @abstractmethod
    def bits(self, row: np.ndarray) -> Any:
        """The engine's form of a uint8 row of packed bits."""

    # ---- the index

    def field(self, dimension: int) -> dict[str, Any]:
        """The name and type of the one field that holds vectors."""
        if self.precision == "sparse":
            return {FIELD: {"type": "rank_features"}}
        return {VECTOR: self.vector_field(dimension) | self.field_options}

    def layout(self) -> Layout | None:
        if not self.client.indices.exists(index=self.name):
            return None
        mapping = self.client.indices.get_mapping(index=self.name)
        fields = next(iter(mapping.values()))["mappings"].get("properties", {})
        return as_layout({name: fields[name] for name in (FIELD, VECTOR) if name in fields})

    def planned(self, dimension: int, ids: str) -> Layout:
        return as_layout(self.field(dimension))

    def create(self, dimension: int, ids: str) -> None:
        fields = {"id": {"type": "keyword"}, "metadata": {"type": "object"}, **self.field(dimension)}
        body = {"mappings": {"dynamic_templates": METADATA_TYPES, "properties": fields}}
        try:
            self.client.indices.create(index=self.name, body=body | self.settings)
        except self.failures:
            if not self.client.indices.exists(index=self.name):
                raise

    def publish(self) -> None:
        self.client.indices.refresh(index=self.name)

    def count(self) -> int:
        with self.asking("count"):
            return self.client.count(index=self.name)["count"] if self.client.indices.exists(index=self.name) else 0

    def drop(self) -> None:
        with self.asking("drop"):
            if self.client.indices.exists(index=self.name):
                self.client.indices.delete(index=self.name)
        self._layout = None

    # ---- documents

    def store(self, ids: list[Id], rows: Rows, metadata: Metadata) -> None:
        lines: list[dict[str, Any]] = []
        for key, field, entry in zip(ids, self.fields_of(rows), metadata, strict=True):
            lines += [{"index": {"_id": str(key)}}, {"id": key, **field, "metadata": dict(entry)}]
        if refused := bulk(self.client, self.name, lines):
            raise Rejection(len(ids) - len(refused), f"{len(refused)} of {len(ids)} documents, first {refused[0]}")

    def fields_of(self, rows: Rows) -> list[dict[str, Any]]:
        """The vector field of each document."""
        if isinstance(rows, SparseRows):
            return [{FIELD: weights} for weights in features(rows)]
        return [{VECTOR: vector} for vector in self.vectors_of(rows)]

    def vectors_of(self, rows: np.ndarray) -> list[Any]:
        """Dense rows in the engine's form."""
        return [self.bits(row) for row in rows] if self.precision == "binary" else rows.tolist()

    def find(self, queries: Rows, top_k: int, chosen: dict[str, Any] | None) -> list[Hits]:
        if top_k > RESULT_WINDOW:
            raise InputError(f"{self.title} gives {RESULT_WINDOW:,} hits of a query at most, got top_k={top_k:,}.")
        filters = [] if chosen is None else [chosen]
        if isinstance(queries, SparseRows):
            return self.find_sparse(queries, top_k, filters)
        bodies = [self.nearest(vector, top_k, filters) for vector in self.vectors_of(queries)]
        dimension = queries.shape[1] * (8 if self.precision == "binary" else 1)
        answers = self.ask(bodies, top_k)
        return [[found(hit, self.similarity(hit["_score"], dimension)) for hit in hits] for hits in answers]

    def find_sparse(self, queries: SparseRows, top_k: int, filters: list[dict[str, Any]]) -> list[Hits]:
        """As `semantic_search_elasticsearch` asks; a query without any term has no hits."""
        engine = self.engine_class(self.client)
        weights = features(queries)
        asked = [number for number, one in enumerate(weights) if one]
        bodies = [{"query": {"bool": {"must": [engine.query(weights[n])], "filter": filters}}} for n in asked]
        results: list[Hits] = [[] for _ in weights]
        for number, hits in zip(asked, self.ask(bodies, top_k), strict=True):
            results[number] = [found(hit, hit["_score"]) for hit in hits]
        return results

    def ask(self, bodies: list[dict[str, Any]], top_k: int) -> list[list[dict[str, Any]]]:
        """The hits of searches, as the engine says them."""
        shown = {"size": top_k, "_source": ["id", "metadata"]}
        return search_many(self.client, self.name, [body | shown for body in bodies]) if bodies else []

    def compared(self, one: Condition) -> dict[str, Any]:
        field, value = f"metadata.{one.field}", one.value
        exists = {"exists": {"field": field}}
        if one.operator == "exists" or value is None:
            return exists if value else self.combined("not", [exists])
        if one.operator == "in":
            return self.combined("or", [self.compared(Condition(one.field, "==", item)) for item in value])
        if not isinstance(value, (str, int, float)):
            raise self.unsayable(one)
        if one.operator in BOUNDS:
            return {"range": {field: {BOUNDS[one.operator]: value}}}
        if one.operator == "contains" and isinstance(value, str):
            return {"wildcard": {field: {"value": "*" + re.sub(r"([*?\\])", r"\\\1", value) + "*"}}}
        return {"term": {field: {"value": value}}}

    def combined(self, operator: str, parts: list[Any]) -> dict[str, Any]:
        if not parts:
            return {"match_all": {}} if operator == "and" else {"match_none": {}}
        if operator == "or":
            return {"bool": {"should": parts, "minimum_should_match": 1}}
        return {"bool": {"filter" if operator == "and" else "must_not": parts}}

    def present(self, ids: list[Id]) -> set[Id]:
        if not self.client.indices.exists(index=self.name):
            return set()
        documents = [{"_id": str(key), "_source": False} for key in ids]
        answer = self.client.mget(index=self.name, body={"docs": documents})["docs"]
        return {key for key, document in zip(ids, answer, strict=True) if document.get("found")}

    def remove(self, ids: list[Id]) -> None:
        bulk(self.client, self.name, [{"delete": {"_id": str(key)}} for key in ids])


def as_layout(fields: dict[str, Any]) -> Layout:
    """The settings of a vector field that must not differ, as the engines say them."""
    if FIELD in fields:
        return Layout(None, f"sparse, {fields[FIELD].get('type')}")
    field = fields.get(VECTOR, {})
    method = field.get("method", {})
    words = (
        field.get("type", f"no field {VECTOR!r}"),
        field.get("element_type") or field.get("data_type") or "float",
        field.get("similarity") or field.get("space_type") or method.get("space_type"),
    )
    return Layout(field.get("dims") or field.get("dimension"), ", ".join(word for word in words if word))


def features(rows: SparseRows) -> list[dict[str, float]]:
    """Sparse rows as features; `InputError` for a negative weight."""
    if (rows.values < 0).any():
        raise InputError(f"Weights must not be negative in this database; the least is {rows.values.min():.4g}.")
    return [
        {str(term): weight for term, weight in zip(terms.tolist(), values.tolist(), strict=True) if weight > 0}
        for terms, values in rows
    ]


def found(hit: dict[str, Any], score: float) -> Hit:
    """A hit of the engine in this library's form."""
    return as_hit(hit["_source"]["id"], score, hit["_source"].get("metadata"))


def unscaled(score: float, metric: str) -> float:
    """The formulas above, solved for the similarity or minus the distance."""
    if metric == "cosine":
        return 2 * score - 1
    if metric == "dot":
        return score - 1 if score >= 1 else 1 - 1 / score
    return -math.sqrt(max(1 / score - 1, 0.0))
