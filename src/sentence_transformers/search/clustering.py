"""Community detection: groups of texts that lie close to a common centre.

Every row with at least `min_community_size` rows within the threshold (itself included) is a candidate centre.
Candidates are taken by falling size; one whose centre already belongs to a community is passed over; what earlier
communities took is removed; what is then still large enough is a community.

Rows are compared block by block, each pair once, and only the pairs within the threshold are kept. If those are more
than a budget, none are, and the neighbours of a candidate are computed again when it is its turn. Memory never grows
with N².
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.search.blocks import BLOCK_SCORES, Product
from sentence_transformers.search.topk import at_least
from sentence_transformers.util.tensor import ArrayLike, check_finite, normalize_embeddings, to_rows

STORED_PAIRS = 20_000_000
"""Pairs of neighbours that are kept between the two passes, at most (8 bytes each, several times that while sorted)."""


def community_detection(
    embeddings: ArrayLike,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Groups of rows whose cosine similarity to the centre of the group is at least `threshold`.

    Args:
        embeddings: (N, H), tensor, numpy array or list.
        threshold: least cosine similarity to the centre.
        min_community_size: smaller groups are left out; at least 1.
        batch_size: rows compared with all others at once.
        show_progress_bar: show one with tqdm.

    Returns:
        Lists of row ids, largest list first, none in two lists. A list starts with its centre; the others follow by
        falling similarity to it.

    Raises:
        InputError: if `min_community_size` or `batch_size` is less than 1, or a row holds NaN or infinity.
    """
    for name, value in (("min_community_size", min_community_size), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"`{name}` must be at least 1, got {value}.")
    rows = to_rows(embeddings)
    if rows.numel() == 0:
        return []
    units = normalize_embeddings(rows.detach()).to_dense()
    check_finite(units)
    neighbours = Neighbours(units, threshold, batch_size)
    sizes = neighbours.count(show_progress_bar)
    centres = np.flatnonzero(sizes >= min_community_size)
    centres = centres[np.argsort(-sizes[centres], kind="stable")]
    free = np.ones(len(rows), dtype=bool)
    communities = []
    for centre, ids in neighbours.walk(centres, free):
        members = ids[free[ids]]
        if len(members) >= min_community_size:
            free[members] = False
            communities.append(neighbours.sorted_members(centre, members))
    return sorted(communities, key=len, reverse=True)


class Neighbours:
    """Which rows lie within the threshold of which: counted once, remembered up to a budget, else computed again.

    Args:
        rows: (N, H), normalised.
    """

    def __init__(self, rows: Tensor, threshold: float, batch_size: int) -> None:
        self.rows = rows
        self.threshold = threshold
        self.batch_size = min(batch_size, max(1, BLOCK_SCORES // len(rows)))
        self.product = Product()
        self.stored: tuple[np.ndarray, np.ndarray] | None = None  # ids by row; where each row begins, and the end

    def find(self, ids: np.ndarray) -> list[np.ndarray]:
        """For each row in `ids` the rising ids of its neighbours."""
        near, columns = self.near(self.rows[torch.from_numpy(ids).to(self.rows.device)], self.rows)
        return np.split(columns, np.cumsum(np.bincount(near, minlength=len(ids)))[:-1])

    def near(self, block: Tensor, others: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the scores (b, n) of at least the threshold, row by row."""
        scores = self.product(block, others)
        rows, columns = at_least(scores, scores.new_full((len(block),), self.threshold))
        return rows.int().cpu().numpy(), columns.int().cpu().numpy()

    def count(self, show_progress_bar: bool) -> np.ndarray:
        """Number of neighbours of every row, itself included; remembers the pairs if there is room for them."""
        count = len(self.rows)
        sizes = np.zeros(count, dtype=np.int64)
        pairs: list[np.ndarray] = []
        room = STORED_PAIRS
        for start in progress(range(0, count, self.batch_size), show_progress_bar):
            block = self.rows[start : start + self.batch_size]
            for other in range(start, count, self.batch_size):
                columns = self.rows[other : other + self.batch_size]
                near, far = self.near(block, columns)
                if other == start:  # each pair is there twice
                    near, far = near[near <= far], far[near <= far]
                sizes[start : start + len(block)] += np.bincount(near, minlength=len(block))
                apart = near + start != far + other
                sizes[other : other + len(columns)] += np.bincount(far[apart], minlength=len(columns))
                room -= len(near)
                if room >= 0:
                    pairs.append(np.stack([near + start, far + other]))
                else:
                    pairs.clear()
        if room >= 0:
            self.stored = by_row(np.concatenate(pairs, axis=1), sizes)
        return sizes

    def walk(self, centres: np.ndarray, free: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Centres that are still free when their turn comes, each with its neighbours."""
        if self.stored is not None:
            ids, starts = self.stored
            yield from ((row, ids[starts[row] : starts[row + 1]]) for row in centres.tolist() if free[row])
            return
        for start in range(0, len(centres), self.batch_size):
            turn = centres[start : start + self.batch_size]
            turn = turn[free[turn]]
            found = self.find(turn) if len(turn) else []
            yield from ((row, ids) for row, ids in zip(turn.tolist(), found, strict=True) if free[row])

    def sorted_members(self, centre: int, members: np.ndarray) -> list[int]:
        """The centre, then the others by falling similarity to it, equal ones by rising id."""
        others = members[members != centre]
        similarity = self.rows[torch.from_numpy(others).long().to(self.rows.device)] @ self.rows[centre]
        return [centre, *others[np.argsort(-similarity.cpu().numpy(), kind="stable")].tolist()]


def by_row(pairs: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of all rows, one after the other and rising, and where each row begins.

    Args:
        pairs: (2, M), each pair of neighbours once, (n, n) too.
        sizes: (N,), the number of neighbours.
    """
    low, high = pairs.astype(np.int64)
    apart = low != high
    keys = np.concatenate([low * len(sizes) + high, (high * len(sizes) + low)[apart]])
    keys.sort()
    return (keys % len(sizes)).astype(np.int32), np.concatenate([[0], np.cumsum(sizes)])


def progress(steps: range, show: bool) -> Iterator[int]:
    """The same steps, with a progress bar if wanted."""
    if not show:
        return iter(steps)
    from tqdm.auto import tqdm

    return iter(tqdm(steps, desc="Finding communities"))
