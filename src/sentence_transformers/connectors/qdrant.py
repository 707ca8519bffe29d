"""Vectors in Qdrant (https://qdrant.tech), a server or embedded in this process.

    QdrantDatabase("glosses", url="http://localhost:6333")
    QdrantDatabase("glosses", path="folder")              # embedded, on disk; one process at a time
    QdrantDatabase("glosses", location=":memory:")        # embedded, gone with the process

Qdrant knows points by whole numbers and UUIDs. A string id becomes the UUID (version 5) of it; the id itself is kept
beside the metadata, as `_id`. The one vector of a point is named "text", as in `semantic_search_qdrant`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import NAMESPACE_OID, uuid5

from sentence_transformers.connectors.common import Database, Hit, Hits, Id, Layout, Metadata, Rows, as_hit
from sentence_transformers.connectors.search_engines.qdrant import VECTOR, Qdrant, is_embedded, sparse_vector
from sentence_transformers.errors import InputError
from sentence_transformers.search.filters import Condition
from sentence_transformers.util.csr import SparseRows

if TYPE_CHECKING:
    from qdrant_client import models as qdrant

ID = "_id"
DISTANCES = {"cosine": "Cosine", "dot": "Dot", "euclidean": "Euclid", "manhattan": "Manhattan"}
BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
LARGEST_ID = 2**64 - 1


class QdrantDatabase(Database):
    """A collection of Qdrant.

    Its filters do not tell a list from its items ("==" finds both), take None and [] for missing fields, order numbers
    only, and know no parts of strings.

    Args:
        name, precision, metric: see `Database`; without "binary": Qdrant has bits beside the vectors (`quantization`).
        quantization: "int8" or "binary": the server searches small copies of the vectors, which it keeps in memory, and
            scores the best again with the vectors themselves, which stay on disk. Embedded Qdrant ignores it.
        **connection: for `QdrantClient`: `url` (http://localhost:6333 by default), `path`, `location`, `api_key`,
            `timeout` (10 seconds by default). Or `client`, a client that is ready (then not for other processes).

    Raises:
        InputError: for a precision, metric or quantization that Qdrant does not have.
        MissingExtraError: at the first use, if qdrant-client is not installed.
    """

    title: ClassVar[str] = "Qdrant"
    precisions: ClassVar[tuple[str, ...]] = ("float32", "float16", "sparse")

    def __init__(
        self,
        name: str,
        *,
        precision: str = "float32",
        metric: str | None = None,
        quantization: str | None = None,
        **connection: Any,
    ) -> None:
        super().__init__(name, precision, metric, connection)
        if quantization not in (None, "int8", "binary"):
            raise InputError(f"quantization must be None, 'int8' or 'binary', got {quantization!r}.")
        self.quantization = quantization
        self.shared = not is_embedded(connection) and "client" not in connection

    def connect(self) -> Any:
        client = Qdrant.connect(**self.connection)
        self.failures = (*Qdrant(client).failures, ValueError)  # embedded Qdrant answers with ValueError
        return client

    @property
    def models(self) -> Any:
        """Qdrant's classes of requests."""
        from qdrant_client import models

        return models

    # ---- the collection

    def layout(self) -> Layout | None:
        if not self.client.collection_exists(self.name):
            return None
        parameters = self.client.get_collection(self.name).config.params
        if VECTOR in (parameters.sparse_vectors or {}):
            return Layout(None, "sparse, dot")
        found = (parameters.vectors or {}).get(VECTOR) if isinstance(parameters.vectors, dict) else None
        if found is None:
            return Layout(None, f"no vector of the name {VECTOR!r}")
        kind = found.datatype.value if found.datatype else "float32"
        return Layout(found.size, f"{kind}, {found.distance.value}".lower())

    def planned(self, dimension: int, ids: str) -> Layout:
        if self.precision == "sparse":
            return Layout(None, "sparse, dot")
        return Layout(dimension, f"{self.precision}, {DISTANCES[self.metric]}".lower())

    def create(self, dimension: int, ids: str) -> None:
        models, dense, sparse = self.models, {}, None
        if self.precision == "sparse":
            sparse = {VECTOR: models.SparseVectorParams(index=models.SparseIndexParams(on_disk=False))}
        else:
            dense[VECTOR] = models.VectorParams(
                size=dimension,
                distance=models.Distance(DISTANCES[self.metric]),
                datatype=models.Datatype(self.precision),
                on_disk=self.quantization is not None,
                quantization_config=self.quantized(),
            )
        try:
            self.client.create_collection(self.name, vectors_config=dense, sparse_vectors_config=sparse)
        except self.failures:
            if not self.client.collection_exists(self.name):
                raise

    def quantized(self) -> Any:
        """Qdrant's settings of the small copies."""
        models = self.models
        if self.quantization == "int8":
            setting = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            return models.ScalarQuantization(scalar=setting)
        if self.quantization == "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        return None

    def count(self) -> int:
        with self.asking("count"):
            return self.client.count(self.name).count if self.client.collection_exists(self.name) else 0

    def drop(self) -> None:
        with self.asking("drop"):
            self.client.delete_collection(self.name)
        self._layout = None

    # ---- points

    def store(self, ids: list[Id], rows: Rows, metadata: Metadata) -> None:
        points = [
            self.models.PointStruct(id=point_id(key), vector={VECTOR: vector}, payload={**entry, ID: key})
            for key, vector, entry in zip(ids, vectors_of(rows), metadata, strict=True)
        ]
        self.client.upsert(self.name, points=points, wait=True)

    def find(self, queries: Rows, top_k: int, chosen: qdrant.Condition | qdrant.Filter | None) -> list[Hits]:
        models = self.models
        limits = chosen if isinstance(chosen, models.Filter | None) else models.Filter(must=[chosen])
        requests = [
            models.QueryRequest(query=query, using=VECTOR, limit=top_k, filter=limits, with_payload=True)
            for query in vectors_of(queries)
        ]
        answers = self.client.query_batch_points(self.name, requests=requests)
        return [[self.hit(point) for point in answer.points] for answer in answers]

    def hit(self, point: qdrant.ScoredPoint) -> Hit:
        """A point as a hit. Qdrant says distances as they are: the smaller the better."""
        payload = dict(point.payload or {})
        sign = -1 if self.metric in ("euclidean", "manhattan") else 1
        return as_hit(payload.pop(ID, point.id), sign * point.score, payload)

    def compared(self, one: Condition) -> Any:
        models, key, value = self.models, one.field, one.value
        if one.operator == "exists":
            empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
            return models.Filter(**{"must_not" if value else "must": [empty]})
        if one.operator == "in":
            return self.combined("or", [self.compared(Condition(key, "==", item)) for item in value])
        if one.operator in BOUNDS and is_number(value):
            return models.FieldCondition(key=key, range=models.Range(**{BOUNDS[one.operator]: value}))
        if one.operator not in ("==", "contains"):
            raise self.unsayable(one)
        if value is None:
            return models.IsNullCondition(is_null=models.PayloadField(key=key))
        if is_number(value):
            return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
        if not isinstance(value, (str, bool)):
            raise self.unsayable(one)
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))

    def combined(self, operator: str, parts: list[Any]) -> Any:
        models = self.models
        if operator == "or" and not parts:
            some = models.IsEmptyCondition(is_empty=models.PayloadField(key=ID))
            return models.Filter(must=[some])  # no point is without its id
        return models.Filter(**{{"and": "must", "or": "should", "not": "must_not"}[operator]: parts})

    def present(self, ids: list[Id]) -> set[Id]:
        if not self.client.collection_exists(self.name):
            return set()
        by_point = {str(point_id(key)): key for key in ids}
        found = self.client.retrieve(self.name, [point_id(key) for key in ids], with_payload=False, with_vectors=False)
        return {by_point[str(point.id)] for point in found}

    def remove(self, ids: list[Id]) -> None:
        points = [point_id(key) for key in ids]
        self.client.delete(self.name, points_selector=self.models.PointIdsList(points=points), wait=True)


def point_id(key: Id) -> int | str:
    """The number or UUID by which Qdrant knows an id."""
    if isinstance(key, str):
        return str(uuid5(NAMESPACE_OID, key))
    if not 0 <= key <= LARGEST_ID:
        raise InputError(f"Qdrant takes whole numbers from 0 to 2^64 - 1 as ids, got {key}. Use a string.")
    return key


def is_number(value: object) -> bool:
    """Whether a value is a number; a bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def vectors_of(rows: Rows) -> list[Any]:
    """Qdrant's form of each row."""
    if isinstance(rows, SparseRows):
        return [sparse_vector(terms.tolist(), values.tolist()) for terms, values in rows]
    return rows.tolist()
