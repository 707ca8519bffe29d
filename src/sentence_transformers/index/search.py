"""One search: candidates by each kind of vectors, fused into one ranking, read, and ranked again by a cross-encoder.

    dense   -> the best documents by the dense vectors      \\
                                                               fuse (see `search.fusion`) -> read -> re-rank
    sparse  -> the best documents by the sparse vectors     /

With one kind of vectors and no re-ranker, `top_k` documents are found; otherwise `candidates` of each kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.index import keys, records
from sentence_transformers.index.candidates import Pool, Ranking, best_dense, best_sparse
from sentence_transformers.index.keys import Id
from sentence_transformers.index.queries import Queries
from sentence_transformers.index.settings import Settings, check_choice
from sentence_transformers.search import fusion

Fusion = Literal["rrf", "weighted"]


class Hit(NamedTuple):
    """A document that a search found. `text` is None if it was added without; `metadata` is a dictionary."""

    id: Id
    score: float
    text: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Request:
    """How to search; see `Index.search`."""

    top_k: int = 10
    fusion: Fusion = "rrf"
    weights: Sequence[float] | None = None
    candidates: int = 100
    rescore_multiplier: int = 4
    exact: bool = False
    reranker: Any = None

    def __post_init__(self) -> None:
        for name in ("top_k", "candidates", "rescore_multiplier"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise InputError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
        check_choice("fusion", self.fusion, get_args(Fusion))
        fusion.check_weights(self.weights, 2)
        if self.reranker is not None and not hasattr(self.reranker, "rank"):
            raise InputError(f"`reranker` must be a CrossEncoder, got {type(self.reranker).__name__}.")


def search(pool: Pool, queries: Queries, settings: Settings, request: Request) -> list[list[Hit]]:
    """The best documents of each query as hits."""
    several = queries.dense is not None and queries.sparse is not None
    depth = max(request.top_k, request.candidates) if several or request.reranker is not None else request.top_k
    rankings: list[list[Ranking]] = []
    if queries.dense is not None:
        rankings.append(best_dense(pool, queries.dense, settings, depth, request.rescore_multiplier, request.exact))
    if queries.sparse is not None:
        rankings.append(best_sparse(pool, queries.sparse, depth))
    found = rankings[0] if len(rankings) == 1 else [fused(pair, request) for pair in zip(*rankings, strict=True)]
    if request.reranker is None:
        return read_hits(pool, [ranking[: request.top_k] for ranking in found])
    return reranked(queries.texts, read_hits(pool, [ranking[:depth] for ranking in found]), request)


def fused(rankings: Sequence[Ranking], request: Request) -> Ranking:
    """One ranking out of the dense and the sparse one."""
    if request.fusion == "weighted":
        return fusion.weighted_fusion(rankings, request.weights)
    places = [[number for number, _ in ranking] for ranking in rankings]
    return fusion.reciprocal_rank_fusion(places, weights=request.weights)


def read_hits(pool: Pool, rankings: Sequence[Ranking]) -> list[list[Hit]]:
    """Rankings with what is stored of their documents; each document is read once."""
    numbers = np.unique(np.array([number for ranking in rankings for number, _ in ranking], dtype=np.int64))
    stored: dict[int, tuple[Id, tuple[str | None, records.Metadata]]] = {}
    for segment, rows, which in pool.places(numbers):
        read = zip(map(keys.decode, segment.key(rows)), records.read(segment.arrays, rows), strict=True)
        stored.update(zip(numbers[which].tolist(), read, strict=True))
    return [
        [Hit(stored[number][0], score, stored[number][1][0], dict(stored[number][1][1])) for number, score in ranking]
        for ranking in rankings
    ]


def reranked(texts: list[str] | None, found: list[list[Hit]], request: Request) -> list[list[Hit]]:
    """Hits in the order, and with the scores, that a cross-encoder gives them."""
    if texts is None:
        raise InputError("A re-ranker reads texts: give the queries as texts, not as vectors.")
    without = next((hit.id for hits in found for hit in hits if hit.text is None), None)
    if without is not None:
        raise InputError(f"A re-ranker reads texts, but the document {without!r} was added without one.")
    lists: list[list[str]] = [[hit.text or "" for hit in hits] for hits in found]
    orders = request.reranker.rank(texts, lists, top_k=request.top_k, show_progress_bar=False)
    return [
        [hits[one["corpus_id"]]._replace(score=float(one["score"])) for one in order]
        for hits, order in zip(found, orders, strict=True)
    ]
