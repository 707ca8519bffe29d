"""Documents, queries and a plain index of lists that tests compare with."""

from __future__ import annotations

from typing import Any

import numpy as np

from sentence_transformers import Index

DIMENSION = 24
COUNT = 300


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Random vectors of various lengths, (count, DIMENSION)."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, DIMENSION)) * random.uniform(0.5, 2, size=(count, 1))).astype(np.float32)


def metadata_of(number: int) -> dict[str, Any]:
    """Some fields of some kinds; not every document has each."""
    found: dict[str, Any] = {"year": 1990 + number % 40, "lang": ["en", "de", "fr"][number % 3]}
    if number % 4:
        found["tags"] = [f"t{number % 5}", f"t{number % 7}"]
    if number % 6 == 0:
        found["score"] = number / 7
    if number % 11 == 0:
        found["draft"] = number % 2 == 0
    if number % 13 == 0:
        found["score"] = None
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors at length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


VECTORS = vectors(COUNT)
QUERIES = vectors(7, seed=1)
IDS: list[Any] = [f"doc {number}" if number % 2 else number for number in range(COUNT)]
TEXTS = [f"Text of document {number}, naïve façade 🙂." for number in range(COUNT)]
METADATA = [metadata_of(number) for number in range(COUNT)]


def scores_of(query: np.ndarray, documents: np.ndarray, similarity: str) -> np.ndarray:
    """Similarities of one query in float64, by the definition."""
    query, documents = query.astype(np.float64), documents.astype(np.float64)
    if similarity == "dot":
        return documents @ query
    if similarity == "euclidean":
        return -np.sqrt(((documents - query) ** 2).sum(axis=1))
    return documents @ query / (np.linalg.norm(documents, axis=1) * np.linalg.norm(query))


def expected(queries: np.ndarray, rows: list[int], top_k: int, similarity: str = "cosine") -> list[list[tuple]]:
    """(id, score) of the best among some of the documents, by sorting them all."""
    result = []
    for query in queries:
        scores = scores_of(query, VECTORS[rows], similarity)
        order = np.argsort(-scores, kind="stable")[:top_k]
        result.append([(IDS[rows[place]], scores[place]) for place in order])
    return result


def assert_hits(found: list[list[Any]], wanted: list[list[tuple]], tolerance: float = 1e-5) -> None:
    """Same scores, and the same ids in the same order but for those whose scores are equal but for rounding."""
    for hits, others in zip(found, wanted, strict=True):
        scores = dict(others)
        wrong = [hit.id for hit, (id, score) in zip(hits, others, strict=True) if hit.id != id]
        assert all(abs(scores.get(hit.id, others[-1][1]) - hit.score) < 1e-6 for hit in hits if hit.id in wrong)
        assert len({hit.id for hit in hits}) == len(hits)
    for hits, others in zip(found, wanted, strict=True):
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in others], atol=tolerance)


def filled(index: Index, rows: Any = range(COUNT)) -> Index:
    """The index with some of the documents."""
    rows = list(rows)
    index.add(
        [TEXTS[row] for row in rows],
        embeddings=VECTORS[rows],
        ids=[IDS[row] for row in rows],
        metadata=[METADATA[row] for row in rows],
    )
    return index
