"""What the doubles of Elasticsearch and OpenSearch know of vectors, from the documentation of both.

Elasticsearch   `dense_vector` (float, bit), `knn` at the top of a search, filters beside it
OpenSearch      `knn_vector` (float, binary) in an index with `index.knn`, `knn` as a query, filters inside it

score           Elasticsearch                         OpenSearch
cosine          (1 + c) / 2                           (2 − d) / 2 with d = 1 − c
dot product     p < 0 ? 1 / (1 − p) : p + 1           the same
l2              1 / (1 + d²)                          the same
hamming         (bits − h) / bits                     1 / (1 + h)
"""

from __future__ import annotations

import math
import operator
import re
from typing import Any


class Refused(Exception):
    """What the engine answers with an error: (status, type, reason)."""


ES_SIMILARITIES = {"float": {"cosine", "max_inner_product", "l2_norm"}, "bit": {"l2_norm"}}
OS_METHODS = {
    ("float", "lucene"): {"cosinesimil", "innerproduct", "l2"},
    ("binary", "faiss"): {"hamming"},
}


def check_mapping(product: str, body: dict[str, Any]) -> None:
    """Refuses an index whose fields are not of a form that is documented."""
    properties = body["mappings"]["properties"]
    if "tokens" in properties and properties["tokens"] != {"type": "rank_features"}:
        raise Refused(400, "mapper_parsing_exception", str(body))
    field = properties.get("embedding")
    if field is None:
        return
    if product == "elasticsearch":
        fits = field["type"] == "dense_vector" and field["similarity"] in ES_SIMILARITIES[field["element_type"]]
        fits = fits and set(field) <= {"type", "element_type", "dims", "index", "similarity", "index_options"}
    else:
        method = field["method"]
        kind = (field.get("data_type", "float"), method["engine"])
        fits = field["type"] == "knn_vector" and method["space_type"] in OS_METHODS[kind] and method["name"] == "hnsw"
        fits = fits and body["settings"] == {"index": {"knn": True}}
    if not fits:
        raise Refused(400, "mapper_parsing_exception", str(field))


def dimension(field: dict[str, Any]) -> int:
    return field["dims"] if field["type"] == "dense_vector" else field["dimension"]


def decoded(field: dict[str, Any], vector: Any) -> list[float]:
    """A vector as the field holds it, bits as 0 and 1."""
    kind = field.get("element_type") or field.get("data_type") or "float"
    if kind == "float":
        return vector
    data = bytes.fromhex(vector) if kind == "bit" else bytes(value & 255 for value in vector)
    return [byte >> shift & 1 for byte in data for shift in range(7, -1, -1)]


def unfit(product: str, mapping: dict[str, Any], document: dict[str, Any]) -> str | None:
    """Why the vector of a document cannot be stored."""
    field = mapping["properties"].get("embedding")
    if field is None:
        return None
    values = decoded(field, document["embedding"])
    if len(values) != dimension(field):
        return f"The [dense_vector] field has {dimension(field)} dimensions, the document {len(values)}"
    if field.get("similarity") == "cosine" and not any(values):
        return "The [cosine] similarity does not support vectors with zero magnitude."
    return None


def is_knn(body: dict[str, Any]) -> bool:
    return "knn" in body or "knn" in body.get("query", {})


def scores(product: str, mapping: dict[str, Any], documents: dict[str, Any], body: dict[str, Any]) -> dict[str, float]:
    """The scores of the nearest neighbours that a search asks for."""
    field = mapping["properties"]["embedding"]
    if product == "elasticsearch":
        knn = body["knn"]
        vector, filters = knn["query_vector"], knn.get("filter", [])
        if knn["field"] != "embedding" or not knn["k"] <= knn["num_candidates"] <= 10_000:
            raise Refused(400, "parsing_exception", str(knn))
    else:
        ((name, knn),) = body["query"]["knn"].items()
        vector = knn["vector"]
        filters = knn["filter"]["bool"]["must"] if "filter" in knn else []
        if name != "embedding":
            raise Refused(400, "parsing_exception", str(knn))
    query = decoded(field, vector)
    if len(query) != dimension(field):
        raise Refused(400, "query_shard_exception", f"the query vector has {len(query)} dimensions")
    found = {
        number: score(product, field, query, decoded(field, document["embedding"]))
        for number, document in chosen(documents, filters).items()
    }
    return dict(sorted(found.items(), key=lambda item: -item[1])[: knn["k"]])


def score(product: str, field: dict[str, Any], a: list[float], b: list[float]) -> float:
    """The engine's score of two vectors."""
    how = field.get("similarity") or field["method"]["space_type"]
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    if how in ("cosine", "cosinesimil"):
        return (1 + dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))) / 2
    if how in ("max_inner_product", "innerproduct"):
        return 1 / (1 - dot) if dot < 0 else dot + 1
    square = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    if field.get("element_type") == "bit":
        return (len(a) - square) / len(a)
    return 1 / (1 + square)


def chosen(documents: dict[str, Any], filters: list[dict[str, Any]]) -> dict[str, Any]:
    """The documents that pass all filters."""
    return {number: one for number, one in documents.items() if all(passes(one, each) for each in filters)}


def passes(document: dict[str, Any], filter: dict[str, Any]) -> bool:
    """One clause; a field that is a list passes if one of its items does."""
    ((kind, clause),) = filter.items()
    if kind in ("match_all", "match_none"):
        return kind == "match_all"
    if kind == "bool":
        every = [passes(document, one) for one in clause.get("filter", [])]
        some = [passes(document, one) for one in clause.get("should", [])]
        none = [passes(document, one) for one in clause.get("must_not", [])]
        enough = not some or sum(some) >= clause["minimum_should_match"]
        return all(every) and enough and not any(none)
    field, wanted = (clause["field"], None) if kind == "exists" else next(iter(clause.items()))
    value = document["metadata"].get(field.removeprefix("metadata."))
    values = [one for one in (value if isinstance(value, list) else [value]) if one is not None]
    if kind == "exists":
        return bool(values)
    if kind == "term":
        term = wanted["value"]
        return any(isinstance(one, bool) == isinstance(term, bool) and one == term for one in values)
    if kind == "wildcard":
        parts = re.split(r"(\\.|\*|\?)", wanted["value"])
        pattern = "".join({"*": ".*", "?": "."}.get(part) or re.escape(part.removeprefix("\\")) for part in parts)
        return any(isinstance(one, str) and re.fullmatch(pattern, one, re.DOTALL) for one in values)
    compare = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
    return any(all(comparable(one, end) and compare[name](one, end) for name, end in wanted.items()) for one in values)


def comparable(one: Any, end: Any) -> bool:
    return isinstance(one, str) == isinstance(end, str) and not isinstance(one, bool)
