"""Sparse search with Seismic: https://github.com/TusKANNy/seismic

An approximate index in memory, in Rust. Only the `query_cut` heaviest tokens of a query choose where it looks; what it
finds it scores in full, with weights in half precision.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_transformers.connectors.search_engines.common import (
    Hits,
    TokenWeights,
    check_given,
    check_tokens,
    with_queries,
)
from sentence_transformers.errors import MissingExtraError
from sentence_transformers.search.blocks import check_sizes

if TYPE_CHECKING:
    from seismic import SeismicIndex

SEARCH_KWARGS = {"query_cut": 10, "heap_factor": 0.7}


def semantic_search_seismic(
    query_embeddings_decoded: list[TokenWeights],
    corpus_embeddings_decoded: list[TokenWeights] | None = None,
    corpus_index: SeismicIndex | None = None,
    top_k: int = 10,
    output_index: bool = False,
    index_kwargs: dict[str, Any] | None = None,
    search_kwargs: dict[str, Any] | None = None,
) -> tuple[list[Hits], float] | tuple[list[Hits], float, SeismicIndex]:
    """Search with Seismic, in this process.

    Args:
        query_embeddings_decoded: for each query a list of (token, weight), as `SparseEncoder.decode` makes it.
        corpus_embeddings_decoded: the documents likewise; not needed with `corpus_index`.
        corpus_index: the index that an earlier call gave.
        top_k: results per query.
        output_index: also return the index.
        index_kwargs: for `SeismicIndex.build_from_dataset`, such as `n_postings`, `summary_energy`.
        search_kwargs: for `SeismicIndex.batch_search`: `query_cut` (10 by default), `heap_factor` (0.7), `num_threads`.

    Returns:
        (results, seconds of the search) or (results, seconds, index). Results are, for each query, a list of
        {"corpus_id": int, "score": float}, best first.

    Raises:
        InputError: for another form of embeddings, negative weights, or if there is nothing to search.
        MissingExtraError: if pyseismic-lsr is not installed.
    """
    check_given(corpus_embeddings_decoded, corpus_index, "corpus_embeddings_decoded")
    check_sizes(top_k)
    queries = check_tokens(query_embeddings_decoded, "query_embeddings_decoded")
    index = corpus_index
    if index is None:
        index = build(check_tokens(corpus_embeddings_decoded, "corpus_embeddings_decoded"), index_kwargs or {})
    options = {**SEARCH_KWARGS, **(search_kwargs or {}), "k": top_k}
    begin = time.perf_counter()
    results: list[Hits] = [[] for _ in queries]
    if top_k and index.len:
        results = with_queries(queries, lambda asked: find(index, asked, options))
    seconds = time.perf_counter() - begin
    return (results, seconds, index) if output_index else (results, seconds)


def build(documents: list[TokenWeights], index_kwargs: dict[str, Any]) -> SeismicIndex:
    """An index whose documents are called "0", "1", …"""
    try:
        from seismic import SeismicDataset, SeismicIndex
    except ImportError as error:
        raise MissingExtraError("pyseismic-lsr", "seismic", "`semantic_search_seismic`") from error
    dataset = SeismicDataset()
    for number, document in enumerate(documents):
        dataset.add_document(str(number), *columns(document))
    return SeismicIndex.build_from_dataset(dataset, **index_kwargs)


def find(index: SeismicIndex, queries: list[TokenWeights], options: dict[str, Any]) -> list[Hits]:
    """The hits of each query. Seismic names the query with each hit; that, and not the order, is relied on."""
    tokens, weights = zip(*map(columns, queries), strict=True)
    numbers = np.array(list(map(str, range(len(queries)))), dtype=string_type())
    answers = index.batch_search(
        queries_ids=numbers, query_components=list(tokens), query_values=list(weights), **options
    )
    results: list[Hits] = [[] for _ in queries]
    for answer in answers:
        for query, score, document in answer:
            results[int(query)].append({"corpus_id": int(document), "score": float(score)})
    return results


def columns(text: TokenWeights) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and weights of one text as Seismic wants them."""
    tokens = np.array([token for token, _ in text], dtype=string_type())
    return tokens, np.array([weight for _, weight in text], dtype=np.float32)


def string_type() -> str:
    """Numpy's name of the strings that Seismic takes."""
    from seismic import get_seismic_string

    return get_seismic_string()
