"""Community detection: groups of texts that lie close to a common centre.

Every row with at least `min_community_size` rows within the threshold (itself included) is a candidate centre.
Candidates are taken by falling size; one whose centre already belongs to a community is passed over; what earlier
communities took is removed; what is then still large enough is a community.

Rows are compared block by block and only the ids of neighbours are kept, up to a budget; neighbours that did not fit
are computed again when it is their turn. Memory never grows with N².
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.search.blocks import BLOCK_SCORES
from sentence_transformers.util.tensor import ArrayLike, normalize_embeddings, to_rows

STORED_IDS = 50_000_000
"""Neighbour ids that are kept between the two passes, at most (4 bytes each)."""


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
        InputError: if `min_community_size` or `batch_size` is less than 1.
    """
    for name, value in (("min_community_size", min_community_size), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"`{name}` must be at least 1, got {value}.")
    rows = to_rows(embeddings)
    if rows.numel() == 0:
        return []
    neighbours = Neighbours(normalize_embeddings(rows.detach()).to_dense(), threshold, batch_size)
    sizes = neighbours.count(min_community_size, show_progress_bar)
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
        self.stored: dict[int, np.ndarray] = {}

    def find(self, ids: np.ndarray) -> list[np.ndarray]:
        """For each row in `ids` the rising ids of its neighbours."""
        block = self.rows[torch.from_numpy(ids).to(self.rows.device)]
        near, columns = (block @ self.rows.T >= self.threshold).nonzero(as_tuple=True)
        counts = torch.bincount(near, minlength=len(ids)).cumsum(0)[:-1]
        return np.split(columns.int().cpu().numpy(), counts.cpu().numpy())

    def count(self, least: int, show_progress_bar: bool) -> np.ndarray:
        """Number of neighbours of every row; remembers the lists of `least` and more while there is room."""
        sizes = np.zeros(len(self.rows), dtype=np.int64)
        room = STORED_IDS
        for start in progress(range(0, len(self.rows), self.batch_size), show_progress_bar):
            block = np.arange(start, min(start + self.batch_size, len(self.rows)))
            for row, ids in zip(block, self.find(block), strict=True):
                sizes[row] = len(ids)
                if least <= len(ids) <= room:
                    self.stored[int(row)] = ids.copy()
                    room -= len(ids)
        return sizes

    def walk(self, centres: np.ndarray, free: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Centres that are still free when their turn comes, each with its neighbours."""
        for start in range(0, len(centres), self.batch_size):
            turn = centres[start : start + self.batch_size]
            turn = turn[free[turn]]
            missing = np.array([row for row in turn if int(row) not in self.stored], dtype=np.int64)
            found = dict(zip(missing.tolist(), self.find(missing), strict=True)) if len(missing) else {}
            for row in turn.tolist():
                if free[row]:
                    yield row, self.stored[row] if row in self.stored else found[row]

    def sorted_members(self, centre: int, members: np.ndarray) -> list[int]:
        """The centre, then the others by falling similarity to it, equal ones by rising id."""
        others = members[members != centre]
        similarity = self.rows[torch.from_numpy(others).long().to(self.rows.device)] @ self.rows[centre]
        return [centre, *others[np.argsort(-similarity.cpu().numpy(), kind="stable")].tolist()]


def progress(steps: range, show: bool) -> Iterator[int]:
    """The same steps, with a progress bar if wanted."""
    if not show:
        return iter(steps)
    from tqdm.auto import tqdm

    return iter(tqdm(steps, desc="Finding communities"))
