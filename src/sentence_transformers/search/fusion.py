"""Several rankings of the same documents become one: pure functions of lists.

    reciprocal rank   score(d) = Σᵣ wᵣ / (k + rankᵣ(d))       rank 1 is the best; a ranking without d adds nothing
    weighted          score(d) = Σᵣ wᵣ · nᵣ(d)                nᵣ: the scores of ranking r scaled to 0 … 1; without d: 0

The first looks at places only, so rankings of any scale go together (Cormack, Clarke and Büttcher, 2009,
https://doi.org/10.1145/1571941.1572114). The second keeps how far apart the documents of one ranking are.

A document is any hashable key. Equal scores are ordered by first appearance: the first ranking's documents, in its
order, then those that only the second has, and so on.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

from sentence_transformers.errors import InputError

Key = TypeVar("Key", bound=Hashable)
RRF_K = 60


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[Key]], k: float = RRF_K, weights: Sequence[float] | None = None
) -> list[tuple[Key, float]]:
    """Documents with their fused scores Σᵣ wᵣ / (k + rankᵣ), best first.

    Args:
        rankings: for each ranking its documents, best first; none twice.
        k: the larger, the less the first places stand out.
        weights: one for each ranking; all 1 by default.

    Raises:
        InputError: if `k` is negative, a document occurs twice in a ranking, or the weights do not fit.

    Example:
        >>> reciprocal_rank_fusion([["a", "b"], ["b", "c"]])
        [('b', 0.03252…), ('a', 0.01639…), ('c', 0.01612…)]
    """
    if not k >= 0:
        raise InputError(f"`k` of the reciprocal rank fusion must not be negative, got {k!r}.")
    return fuse([[(key, 1 / (k + rank)) for rank, key in enumerate(one, 1)] for one in rankings], weights)


def weighted_fusion(
    rankings: Sequence[Sequence[tuple[Key, float]]], weights: Sequence[float] | None = None
) -> list[tuple[Key, float]]:
    """Documents with the weighted sums of their scaled scores, best first.

    Each ranking's scores are scaled linearly so that its best is 1 and its worst 0 (all 1 if they are equal).

    Args:
        rankings: for each ranking its (document, score), in any order; none twice.
        weights: one for each ranking; all 1 by default.

    Raises:
        InputError: if a document occurs twice in a ranking, or the weights do not fit.

    Example:
        >>> weighted_fusion([[("a", 0.9), ("b", 0.5)], [("b", 12.0), ("c", 4.0)]], weights=[0.7, 0.3])
        [('a', 0.7), ('b', 0.3), ('c', 0.0)]
    """
    return fuse([scaled(one) for one in rankings], weights)


def scaled(ranking: Sequence[tuple[Key, float]]) -> list[tuple[Key, float]]:
    """(s − min) / (max − min) for each score of a ranking; 1 where they are all equal."""
    if not ranking:
        return []
    low, high = min(score for _, score in ranking), max(score for _, score in ranking)
    return [(key, (score - low) / (high - low) if high > low else 1.0) for key, score in ranking]


def fuse(
    rankings: Sequence[Sequence[tuple[Key, float]]], weights: Sequence[float] | None = None
) -> list[tuple[Key, float]]:
    """Documents with Σᵣ wᵣ sᵣ, best first; a ranking without a document adds nothing to it."""
    weights = check_weights(weights, len(rankings))
    sums: dict[Key, float] = {}
    for weight, ranking in zip(weights, rankings, strict=True):
        if len({key for key, _ in ranking}) < len(ranking):
            raise InputError("A document occurs twice in one ranking; each may be ranked once.")
        for key, score in ranking:
            sums[key] = sums.get(key, 0.0) + weight * score
    return sorted(sums.items(), key=lambda pair: -pair[1])  # stable: equal scores stay in order of appearance


def check_weights(weights: Sequence[float] | None, count: int) -> Sequence[float]:
    """One weight for each of `count` rankings, or `InputError`."""
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count or not all(0 <= weight < float("inf") for weight in weights):
        raise InputError(f"`weights` must be {count} numbers that are not negative, one a ranking; got {weights!r}.")
    return weights
