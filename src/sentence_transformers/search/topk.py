"""The best documents of each query so far, while blocks of scores go by.

    best     values (Q, k) falling, ids (Q, k); of equal values the lower id stands first
    scores   (Q, n) of the next n documents, whose ids are all higher

Once k documents are known, few of the next ones get in: k · ln(D / n) per query in a random order. So most of a block
is only compared with the worst of the best, and that by the greatest score of each run of `RUN` documents: one pass
over the block, where `topk` takes several. What is higher (equal is not enough: the id is higher too) is put in its
place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Compare: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Best: TypeAlias = tuple[Tensor, Tensor]
"""Values and ids, both of shape (Q, at most k), best first."""

RUN = 64
"""Scores whose greatest one is compared first."""


def update(best: Best | None, scores: Tensor, start: int, k: int) -> Best:
    """The best k of `best` and of the documents `start`, `start + 1`, … with these scores; may change `best`.

    Scores that are NaN count as the lowest possible.
    """
    if best is None or best[0].shape[1] < k or scores.device.type != "cpu":
        values, ids = top_stable(lowest_if_nan(scores), k)
        return merge(best, (values, ids + start), k)
    rows, columns = higher(scores, best[0][:, -1])
    if len(rows):
        insert(best, rows, columns + start, scores[rows, columns])
    return best


def higher(scores: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns where `scores` (Q, n) is above `least` (Q,), row by row, rising columns."""
    return chosen(scores, least, torch.gt, torch.le)


def at_least(scores: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns where `scores` (Q, n) is not below `least` (Q,), row by row, rising columns."""
    return chosen(scores, least, torch.ge, torch.lt)


def chosen(scores: Tensor, least: Tensor, wanted: Compare, unwanted: Compare) -> tuple[Tensor, Tensor]:
    """Rows and columns of the wanted scores. Runs whose greatest score is unwanted are not looked at."""
    whole = scores.shape[1] // RUN * RUN
    runs = scores[:, :whole].unflatten(1, (-1, RUN))
    rows, run = nonzero(~unwanted(runs.amax(2), least[:, None]))  # so that a run with a NaN is looked at
    places, inner = nonzero(wanted(runs[rows, run], least[rows, None]))
    rows, columns = rows[places], run[places] * RUN + inner
    if whole == scores.shape[1]:
        return rows, columns
    rest, more_columns = nonzero(wanted(scores[:, whole:], least[:, None]))
    rows, columns = torch.cat([rows, rest]), torch.cat([columns, more_columns + whole])
    by_row = rows.argsort(stable=True)
    return rows[by_row], columns[by_row]


def insert(best: Best, rows: Tensor, ids: Tensor, values: Tensor) -> None:
    """Put candidates in their places in `best`: (M,) each, by rising row, then id; ids higher than those in `best`."""
    k = best[0].shape[1]
    found, which, counts = rows.unique_consecutive(return_inverse=True, return_counts=True)
    places = k + torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[which]
    width = k + int(counts.max())
    all_values = values.new_full((len(found), width), lowest(values.dtype))
    all_ids = ids.new_zeros(len(found), width)
    for everything, known, new in ((all_values, best[0], values), (all_ids, best[1], ids)):
        everything[:, :k] = known[found]
        everything[which, places] = new
    all_values, order = all_values.sort(dim=1, descending=True, stable=True)
    best[0][found] = all_values[:, :k]
    best[1][found] = all_ids.gather(1, order[:, :k])


def nonzero(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the true values of (Q, n); numpy is several times faster than torch here."""
    if mask.device.type != "cpu":
        found = mask.nonzero()
        return found[:, 0], found[:, 1]
    flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    columns = max(1, mask.shape[1])
    return flat // columns, flat % columns


def lowest(dtype: torch.dtype) -> float | int:
    """What no score is below."""
    return -torch.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def lowest_if_nan(scores: Tensor) -> Tensor:
    """The scores with -inf in place of NaN."""
    if not scores.dtype.is_floating_point or not scores.isnan().any():
        return scores
    return scores.masked_fill(scores.isnan(), -torch.inf)


def top_stable(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Like `scores.topk(k)` of (Q, D), clipped to D columns, with equal values ordered by column.

    `topk` picks any of the columns that tie for the last place. One place more shows whether there is such a tie; only
    those rows are sorted in full.
    """
    k = min(k, scores.shape[1])
    values, ids = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    tied = (values[:, k - 1] == values[:, k]).nonzero()[:, 0].tolist() if values.shape[1] > k else []
    values, ids = order(values[:, :k], ids[:, :k])
    for row in tied:
        candidates = (scores[row] >= values[row, -1]).nonzero()[:, 0]
        best = scores[row, candidates].sort(descending=True, stable=True).indices[:k]
        ids[row] = candidates[best]
        values[row] = scores[row, ids[row]]
    return values, ids


def order(values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each row by falling value, equal values by rising id."""
    by_id = ids.argsort(dim=1)
    ids, values = ids.gather(1, by_id), values.gather(1, by_id)
    values, by_value = values.sort(dim=1, descending=True, stable=True)
    return values, ids.gather(1, by_value)


def merge(best: tuple[Tensor, Tensor] | None, new: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The best k of two sorted results; all ids in `best` are lower than those in `new`."""
    if best is None:
        return new
    values = torch.cat([best[0], new[0]], dim=1)
    ids = torch.cat([best[1], new[1]], dim=1)
    values, places = values.sort(dim=1, descending=True, stable=True)
    return values[:, :k], ids.gather(1, places)[:, :k]
