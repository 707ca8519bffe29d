"""Which texts are computed, in which order, and how many at a time.

    texts -> distinct texts -> longest first -> windows (tokenised ahead) -> micro-batches (a token budget each)

A text that occurs twice is computed once. Sorting brings equal lengths together, so that a micro-batch has few groups.
A micro-batch is cut by tokens, not by texts: `budget` tokens at most (but always one text), and at most `batch_size`
texts where the caller asked for a limit.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FIRST_WINDOW = 512  # small, so that computing starts early
WINDOW_TEXTS = 4096
WINDOW_CHARACTERS = 4_000_000


class DefaultInt(int):
    """An integer that is a default: equal to it and printed like it, yet told apart from one that a caller gave."""


DEFAULT_BATCH_SIZE = DefaultInt(32)


@dataclass(frozen=True)
class Plan:
    """Distinct inputs, longest first, and where each input's result is found.

    Attributes:
        inputs: the U distinct inputs in the order in which they are computed.
        inverse: (N,) int64; the result of input i is row inverse[i].
        firsts: (U,) int64; where each distinct input occurs first.
    """

    inputs: list[Any]
    inverse: np.ndarray
    firsts: np.ndarray


def size_of(item: object) -> int:
    """A cheap stand-in for the number of tokens: characters of a text; of a pair's or a conversation's texts
    together.
    """
    if isinstance(item, str):
        return len(item)
    if isinstance(item, dict):
        return sum(map(size_of, item.values()))
    return sum(map(size_of, item)) if isinstance(item, (tuple, list)) else 1


def key_of(item: object) -> Hashable:
    """Equal for equal inputs of one type; inputs that have no hash are equal to themselves alone."""
    if type(item) is str:
        return item
    try:
        hash(item)
    except TypeError:
        return id, id(item)
    return type(item), item


def make_plan(inputs: Sequence[Any]) -> Plan:
    """Drop duplicates and sort by size, longest first; the sort is stable, so that equal inputs give equal plans."""
    rows: dict[Hashable, int] = {}
    distinct: list[Any] = []
    firsts: list[int] = []
    inverse = np.empty(len(inputs), np.int64)
    for i, item in enumerate(inputs):
        key = key_of(item)
        row = rows.setdefault(key, len(distinct))
        if row == len(distinct):
            distinct.append(item)
            firsts.append(i)
        inverse[i] = row
    sizes = np.fromiter(map(size_of, distinct), np.int64, len(distinct))
    order = np.argsort(-sizes, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Plan([distinct[i] for i in order], rank[inverse], np.array(firsts, np.int64)[order])


def windows(inputs: Sequence[Any], most_characters: int = WINDOW_CHARACTERS) -> Iterator[tuple[int, int]]:
    """Cut the plan into ranges that are tokenised together: bounded in texts and in characters."""
    start, characters, most = 0, 0, FIRST_WINDOW
    for stop, item in enumerate(inputs):
        characters += size_of(item)
        if stop > start and (stop - start >= most or characters > most_characters):
            yield start, stop
            start, characters, most = stop, size_of(item), WINDOW_TEXTS
    if start < len(inputs):
        yield start, len(inputs)


def micro_batches(
    lengths: np.ndarray, budget: int, batch_size: int | None, mixed: int | None = None
) -> Iterator[np.ndarray]:
    """Rows of each micro-batch, by falling token count.

    Args:
        lengths: (N,) tokens of each text.
        budget: tokens per micro-batch; a longer text is a micro-batch of its own.
        batch_size: most texts per micro-batch; None for no limit.
        mixed: tokens, padding included, up to which texts of different lengths go together; a larger micro-batch has
            one length. None: any lengths go together, as nothing is padded. 0: never.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + budget, side="right")))
        if batch_size is not None:
            stop = min(stop, start + batch_size)
        if mixed is not None:
            longest = lengths[order[start]]
            same = int(np.count_nonzero(lengths[order[start:stop]] == longest))
            stop = min(stop, start + max(same, mixed // max(int(longest), 1)))
        yield order[start:stop]
        start = stop
