"""Rows of micro-batches, gathered in the order of the inputs.

The engine hands over (places in the plan, rows) as they are done. `ResultBuffer` puts each row where the first input of
that text is, and fills in the duplicates at the end: there is one copy of the result, not two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch

from sentence_transformers.engine.batching import Plan

Rows: TypeAlias = np.ndarray | torch.Tensor | list[Any]


class ResultBuffer:
    """Collects the rows of one call.

    Args:
        plan: the plan of the call.
        progress: called with the number of inputs that are done.

    After the run `result()` is a numpy array, a tensor (if rows came as tensors) or a list (if rows came as lists).
    """

    def __init__(self, plan: Plan, progress: Callable[[int], Any] | None = None) -> None:
        self.size = len(plan.inverse)
        self.targets, self.counts = plan.firsts, np.bincount(plan.inverse)
        is_first = np.zeros(self.size, bool)
        is_first[self.targets] = True
        self.repeats = np.flatnonzero(~is_first)
        self.origins = self.targets[plan.inverse[self.repeats]]
        self.progress = progress
        self.rows: Any = None
        self._lock = threading.Lock()

    def write(self, places: np.ndarray, rows: Rows) -> None:
        """Take the rows of one micro-batch; called from several threads."""
        targets = self.targets[places]
        with self._lock:
            if self.rows is None:
                self.rows = self._empty(rows)
        if isinstance(rows, list):
            for target, row in zip(targets, rows, strict=True):
                self.rows[target] = row
        elif isinstance(rows, torch.Tensor):
            self.rows[torch.from_numpy(targets).to(rows.device)] = rows
        else:
            self.rows[targets] = rows
        if self.progress is not None:
            with self._lock:
                self.progress(int(self.counts[places].sum()))

    def _empty(self, rows: Rows) -> Any:
        if isinstance(rows, list):
            return [None] * self.size
        if isinstance(rows, torch.Tensor):
            return torch.empty((self.size, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
        return np.empty((self.size, *rows.shape[1:]), rows.dtype)

    def result(self) -> Any:
        """All rows, in the order of the inputs."""
        if isinstance(self.rows, list):
            for target, origin in zip(self.repeats, self.origins, strict=True):
                self.rows[target] = copy_row(self.rows[origin])
        elif len(self.repeats):
            index: Any = (self.repeats, self.origins)
            if isinstance(self.rows, torch.Tensor):
                index = tuple(torch.from_numpy(part).to(self.rows.device) for part in index)
            self.rows[index[0]] = self.rows[index[1]]
        return self.rows


def copy_row(row: object) -> Any:
    """A row of its own for a repeated input."""
    if isinstance(row, dict):
        return {key: copy_row(value) for key, value in row.items()}
    return row.clone() if isinstance(row, torch.Tensor) else row
