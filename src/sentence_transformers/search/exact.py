"""Exact search: every query is compared with every document, every text with every other one.

Three questions, each answered in blocks of bounded memory: which documents are nearest to each query
(`semantic_search`), which pairs in one set are most alike (`paraphrase_mining`), which texts lie together
(`community_detection`).
"""

from __future__ import annotations

import warnings
from typing import Any

from sentence_transformers.search.blocks import (
    ScoreFunction,
    as_results,
    as_source,
    best_documents,
    check_dimensions,
    check_sizes,
)
from sentence_transformers.search.clustering import community_detection
from sentence_transformers.search.paraphrase import paraphrase_mining, paraphrase_mining_embeddings
from sentence_transformers.similarity import cos_sim
from sentence_transformers.util.tensor import ArrayLike

__all__ = [
    "community_detection",
    "information_retrieval",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "semantic_search",
]


def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: ScoreFunction = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """The `top_k` documents of each query, best first.

    Args:
        query_embeddings: (Q, H), or (H,) for one query: tensor (dense or sparse), numpy array (also memory-mapped),
            SciPy matrix or list. With a `score_function` for token embeddings: (Q, I, H), or a list of (I, H).
        corpus_embeddings: the documents, likewise.
        query_chunk_size: at most so many queries are scored at once.
        corpus_chunk_size: at most so many documents are scored at once.
        top_k: results per query; fewer if there are fewer documents.
        score_function: (q, H), (d, H) -> (q, d), greater is better. It sees tensors.

    Returns:
        For each query a list of {"corpus_id": row of the document, "score": float}. Equal scores: lower id first.

    Raises:
        InputError: if the dimensions differ, a dense row holds NaN or infinity, or a chunk size or `top_k` is out of
            range.
    """
    queries, documents = as_source(query_embeddings), as_source(corpus_embeddings)
    check_dimensions(queries, documents)
    check_sizes(top_k, query_chunk_size=query_chunk_size, corpus_chunk_size=corpus_chunk_size)
    if len(documents) == 0 or top_k == 0:
        return [[] for _ in range(len(queries))]
    return as_results(*best_documents(queries, documents, top_k, score_function, query_chunk_size, corpus_chunk_size))


def information_retrieval(*args: Any, **kwargs: Any) -> list[list[dict[str, int | float]]]:
    """Deprecated name of `semantic_search`."""
    warnings.warn("`information_retrieval` is deprecated, use `semantic_search`.", DeprecationWarning, stacklevel=2)
    return semantic_search(*args, **kwargs)
