"""Paraphrase mining: the most similar pairs in a set of texts.

Every text looks for its `top_k` nearest other texts; a pair counts once, whichever side found it. Of all pairs the
best `max_pairs` are kept.

Scores are symmetric, so a block of them serves its rows and its columns: N² / 2 products. If `max_pairs` is well below
N · top_k, a sample tells from which score on pairs matter, and only those are collected (`pairs_above`); else the
neighbours of all rows are (`nearest_rows`; of `STORED` / top_k rows at a time if N · top_k is too much). Memory is one
block, some times `max_pairs` and at most `STORED` neighbours, not N × N.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.search.blocks import (
    BLOCK_SCORES,
    PRODUCT_SCORES,
    Product,
    ScoreFunction,
    as_source,
    best_documents,
    blocks_of,
    check_sizes,
    common_device,
    is_dense,
    mask_self,
    split_score_function,
    take_block,
)
from sentence_transformers.search.topk import Best, at_least, update
from sentence_transformers.similarity import cos_sim, dot_score
from sentence_transformers.util.tensor import ArrayLike, check_finite, to_float

STORED = 2**25
"""Neighbours that are held at once (12 bytes each), unless `query_chunk_size` rows have more."""

SAMPLE, SAFETY = 512, 1.25
"""Rows from which the floor of all pairs is estimated, and how many times more pairs than wanted it should let in."""
CROWD = 8
"""Pairs that are held, in units of `max_pairs`, before those that are no neighbours are dropped."""


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
        InputError: if a size is out of range, or a row holds NaN or infinity.
    """
    check_sizes(top_k, query_chunk_size=query_chunk_size, corpus_chunk_size=corpus_chunk_size)
    source = as_source(embeddings)
    if is_dense(source):
        check_finite(source)
    count = len(source)
    top_k = min(top_k, count - 1)
    if top_k < 1 or max_pairs < 1:
        return []
    if is_dense(source) and count * top_k > 2 * SAFETY * max_pairs:
        everything = pairs_above(source, top_k, max_pairs, score_function, min(query_chunk_size, corpus_chunk_size))
        if everything is not None:
            return everything.as_list()
    step = max(min(query_chunk_size, count), STORED // top_k)
    pairs = Pairs.none()
    for start in range(0, count, step):
        if step >= count and is_dense(source):
            scores, ids = nearest_rows(source, top_k, score_function, query_chunk_size, corpus_chunk_size)
        else:
            some = take_block(source, start, start + step, common_device(source, source))
            scores, ids = best_documents(
                some, source, top_k, score_function, query_chunk_size, corpus_chunk_size, first_query=start
            )
        pairs = best_pairs(pairs, Pairs.of_neighbours(scores, ids, start), count, max_pairs)
    return pairs.as_list()


@torch.no_grad()
def nearest_rows(
    source: Tensor | np.ndarray, top_k: int, score_function: ScoreFunction, query_block: int, document_block: int
) -> Best:
    """The best other rows of every row of (N, H): scores and ids (N, top_k), each pair of blocks scored once.

    Row n meets the others in rising order: first as a column of the blocks above, then as a row of its own.
    """
    best: dict[int, Best] = {}
    for start, other, scores in halves(source, score_function, min(query_block, document_block)):
        if other == start:
            mask_self(scores, 0)
        else:
            best[other] = update(best.get(other), scores.T, start, top_k)
        best[start] = update(best.get(start), scores, other, top_k)
    return torch.cat([values for values, _ in best.values()]), torch.cat([ids for _, ids in best.values()])


def halves(
    source: Tensor | np.ndarray, score_function: ScoreFunction, most_rows: int
) -> Iterator[tuple[int, int, Tensor]]:
    """The scores of all pairs of rows in square blocks, those below the diagonal left out.

    Each block comes with the numbers of its first row and its first column, and is replaced by the next one.
    """
    prepare, score = split_score_function(score_function)
    score = Product() if score is dot_score else score
    device = common_device(source, source)
    rows = prepare(take_block(source, 0, len(source), device))
    size = max(1, min(most_rows, math.isqrt(PRODUCT_SCORES if device.type == "cpu" else BLOCK_SCORES)))
    for start, block in blocks_of(rows, size, device):
        for other in range(start, len(rows), size):
            yield start, other, score(block, rows[other : other + size])


@torch.no_grad()
def pairs_above(
    source: Tensor | np.ndarray, top_k: int, max_pairs: int, score_function: ScoreFunction, most_rows: int
) -> Pairs | None:
    """The best `max_pairs` pairs of rows, if few neighbours are among them: by a floor for all rows.

    A sample of rows tells about which score is reached by 2 · max_pairs neighbours (a pair makes two at most). All
    pairs above are collected in one go and those dropped that are no neighbours on either side. If less than
    2 · max_pairs neighbours are left, the floor was too high, if far too many pairs, too low: None.
    """
    floor = estimated_floor(source, top_k, 2 * SAFETY * max_pairs / len(source), score_function, most_rows)
    parts: list[Pairs] = []
    for start, other, scores in halves(source, score_function, most_rows):
        rows, columns = at_least(scores, scores.new_full((len(scores),), floor))
        columns_of_pairs = (scores[rows, columns], rows + start, columns + other)
        found = Pairs(*(column.cpu().numpy() for column in columns_of_pairs))
        parts.append(found.take(np.flatnonzero(found.low < found.high)))
        if sum(len(part.scores) for part in parts) > CROWD * max_pairs:
            parts = [neighbours_of(Pairs.join(parts), len(source), top_k)[0]]
            if len(parts[0].scores) > CROWD * max_pairs // 2:
                return None
    pairs, count = neighbours_of(Pairs.join(parts), len(source), top_k)
    if count < 2 * max_pairs:
        return None
    return best_pairs(Pairs.none(), pairs, len(source), max_pairs)


def estimated_floor(
    source: Tensor | np.ndarray, top_k: int, wanted: float, score_function: ScoreFunction, most_rows: int
) -> float:
    """A score that about `wanted` of the `top_k` best neighbours of a row reach, on average over some rows."""
    rows = np.linspace(0, len(source) - 1, min(SAMPLE, len(source))).astype(np.int64)
    sample = to_float(source[rows]) if isinstance(source, np.ndarray) else source[torch.from_numpy(rows)]
    values, _ = best_documents(sample, source, top_k + 1, score_function, most_rows, most_rows)
    neighbours = values[:, 1:].flatten()  # without the row itself, or what is as near
    return float(neighbours.kthvalue(max(1, len(neighbours) - int(wanted * len(rows)))).values)


def neighbours_of(pairs: Pairs, count: int, top_k: int) -> tuple[Pairs, int]:
    """The pairs of which one row is among the `top_k` best of the other, and the number of such neighbours.

    Only rows in more than `top_k` pairs have to be sorted.
    """
    sizes = np.bincount(pairs.low, minlength=count) + np.bincount(pairs.high, minlength=count)
    kept = (sizes[pairs.low] <= top_k) | (sizes[pairs.high] <= top_k)
    first, second = (np.flatnonzero(sizes[side] > top_k) for side in (pairs.low, pairs.high))
    place = np.concatenate([first, second])
    row = np.concatenate([pairs.low[first], pairs.high[second]])
    other = np.concatenate([pairs.high[first], pairs.low[second]])
    order = np.lexsort((other, -pairs.scores[place], row))
    crowded = np.where(sizes > top_k, sizes, 0)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(crowded) - crowded, crowded)
    kept[place[order[rank < top_k]]] = True
    return pairs.take(np.flatnonzero(kept)), int(np.minimum(sizes, top_k).sum())


class Pairs(NamedTuple):
    """M pairs of rows as three columns of shape (M,): score, lower row, higher row."""

    scores: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def none(cls) -> Pairs:
        return cls(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))

    @classmethod
    def join(cls, parts: list[Pairs]) -> Pairs:
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    @classmethod
    def of_neighbours(cls, scores: Tensor, ids: Tensor, start: int) -> Pairs:
        """Row `start + n` with each of its neighbours `ids[n]`; scores and ids have shape (n, top_k)."""
        neighbours = ids.cpu().numpy().ravel()
        rows = np.repeat(np.arange(start, start + len(ids)), ids.shape[1])
        return cls(scores.detach().cpu().numpy().ravel(), np.minimum(rows, neighbours), np.maximum(rows, neighbours))

    def take(self, which: np.ndarray) -> Pairs:
        return Pairs(*(column[which] for column in self))

    def as_list(self) -> list[list[float | int]]:
        """[score, low, high] of every pair."""
        return list(map(list, zip(self.scores.tolist(), self.low.tolist(), self.high.tolist(), strict=True)))


def best_pairs(pairs: Pairs, found: Pairs, count: int, max_pairs: int) -> Pairs:
    """The best `max_pairs` of both, each pair once, sorted. `pairs` is sorted; its scores win."""
    least = pairs.scores[-1] if len(pairs.scores) == max_pairs else np.finfo(np.float32).min  # not a row itself
    if len(found.scores) > 2 * max_pairs:  # a pair is found twice at most
        least = max(least, np.partition(found.scores, -2 * max_pairs)[-2 * max_pairs])
    found = found.take(np.flatnonzero(found.scores >= least))
    both = Pairs.join([pairs, found])
    both = both.take(np.unique(both.low * count + both.high, return_index=True)[1])
    return both.take(np.argsort(-both.scores, kind="stable")[:max_pairs])
