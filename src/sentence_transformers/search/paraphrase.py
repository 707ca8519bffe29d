"""Paraphrase mining: the most similar pairs in a set of texts.

Every text looks for its `top_k` nearest other texts; a pair counts once, whichever side found it. Of all pairs the
best `max_pairs` are kept, block by block, so memory is one block of scores plus `max_pairs` pairs, not N × N.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from sentence_transformers.search.blocks import (
    BLOCK_SCORES,
    ScoreFunction,
    as_source,
    best_documents,
    check_sizes,
    common_device,
    split_score_function,
    take_block,
)
from sentence_transformers.similarity import cos_sim
from sentence_transformers.util.tensor import ArrayLike


class TextEncoder(Protocol):
    """What has an `encode` method like that of `SentenceTransformer`."""

    encode: Callable[..., Any]


def paraphrase_mining(
    model: TextEncoder,
    sentences: list[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """Embed `sentences` and find the most similar pairs among them; see `paraphrase_mining_embeddings`.

    Args:
        model: a `SentenceTransformer`, or anything with an `encode` method like its.
        show_progress_bar, batch_size, truncate_dim, prompt_name, prompt: passed to `encode`.

    Returns:
        [score, i, j] with i < j, best first.
    """
    embeddings = model.encode(
        sentences,
        show_progress_bar=show_progress_bar,
        batch_size=batch_size,
        convert_to_tensor=True,
        prompt_name=prompt_name,
        prompt=prompt,
        **({} if truncate_dim is None else {"truncate_dim": truncate_dim}),  # not every encoder truncates
    )
    return paraphrase_mining_embeddings(
        embeddings, query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
    )


def paraphrase_mining_embeddings(
    embeddings: ArrayLike,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: ScoreFunction = cos_sim,
) -> list[list[float | int]]:
    """The most similar pairs of rows.

    Args:
        embeddings: (N, H), tensor, numpy array or list.
        query_chunk_size, corpus_chunk_size: at most so many rows are compared with each other at once.
        max_pairs: at most so many pairs are returned.
        top_k: neighbours that each row looks for.
        score_function: (n, H), (m, H) -> (n, m), symmetric, greater is more alike.

    Returns:
        [score, i, j] with i < j, best first; equal scores by i, then j.

    Raises:
        InputError: if a size is out of range.
    """
    check_sizes(top_k, query_chunk_size=query_chunk_size, corpus_chunk_size=corpus_chunk_size)
    source = as_source(embeddings)
    count = len(source)
    top_k = min(top_k, count - 1)
    if top_k < 1 or max_pairs < 1:
        return []
    prepare, score = split_score_function(score_function)
    rows = prepare(take_block(source, 0, count, common_device(source, source)))
    step = min(query_chunk_size, max(1, BLOCK_SCORES // min(corpus_chunk_size, count)))
    pairs = Pairs.none()
    for start in range(0, count, step):
        block = take_block(rows, start, start + step, common_device(source, source))
        scores, ids = best_documents(block, rows, top_k, score, step, corpus_chunk_size, first_query=start)
        pairs = best_pairs(pairs, Pairs.of_neighbours(scores, ids, start), count, max_pairs)
    return [[s, i, j] for s, i, j in zip(pairs.scores.tolist(), pairs.low.tolist(), pairs.high.tolist(), strict=True)]


class Pairs(NamedTuple):
    """M pairs of rows as three columns of shape (M,): score, lower row, higher row."""

    scores: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def none(cls) -> Pairs:
        return cls(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))

    @classmethod
    def of_neighbours(cls, scores: Tensor, ids: Tensor, start: int) -> Pairs:
        """Row `start + n` with each of its neighbours `ids[n]`; scores and ids have shape (n, top_k)."""
        neighbours = ids.cpu().numpy().ravel()
        rows = np.repeat(np.arange(start, start + len(ids)), ids.shape[1])
        return cls(scores.detach().cpu().numpy().ravel(), np.minimum(rows, neighbours), np.maximum(rows, neighbours))

    def take(self, which: np.ndarray) -> Pairs:
        return Pairs(*(column[which] for column in self))


def best_pairs(pairs: Pairs, found: Pairs, count: int, max_pairs: int) -> Pairs:
    """The best `max_pairs` of both, each pair once, sorted. `pairs` is sorted; its scores win."""
    if len(pairs.scores) == max_pairs:
        found = found.take(found.scores >= pairs.scores[-1])
    both = Pairs(*(np.concatenate(columns) for columns in zip(pairs, found, strict=True)))
    both = both.take(np.unique(both.low * count + both.high, return_index=True)[1])
    return both.take(np.lexsort((both.high, both.low, -both.scores))[:max_pairs])
