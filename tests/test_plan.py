"""Micro-batches: every text once, longest first, within the limits, and little padding where padding is computed."""

from __future__ import annotations

import numpy as np
import pytest

from sentence_transformers.engine.batching import micro_batches

LENGTHS = np.random.default_rng(0).integers(1, 60, size=500)


@pytest.mark.parametrize("mixed", [None, 0, 256])
@pytest.mark.parametrize("batch_size", [None, 1, 7])
@pytest.mark.parametrize("budget", [1, 100, 1536])
def test_limits(mixed, batch_size, budget):
    batches = list(micro_batches(LENGTHS, budget, batch_size, mixed))
    rows = np.concatenate(batches)
    assert sorted(rows.tolist()) == list(range(len(LENGTHS)))
    assert (np.diff(LENGTHS[rows]) <= 0).all()
    for batch in batches:
        lengths = LENGTHS[batch]
        assert len(batch) == 1 or lengths.sum() <= budget
        assert batch_size is None or len(batch) <= batch_size
        if mixed is not None and len(set(lengths.tolist())) > 1:
            assert lengths.max() * len(batch) <= mixed


def test_small_groups_go_together_and_large_ones_are_not_padded():
    lengths = np.array([40] * 20 + [39] * 2 + [38, 37, 20, 3])
    cut = [lengths[rows].tolist() for rows in micro_batches(lengths, 1536, None, 160)]
    assert cut == [[40] * 20, [39, 39, 38, 37], [20, 3]]
    assert len(list(micro_batches(lengths, 1536, None))) == 1
    assert [set(lengths[rows]) for rows in micro_batches(lengths, 1536, None, 0)] == [{40}, {39}, {38}, {37}, {20}, {3}]


def test_empty_texts():
    assert [rows.tolist() for rows in micro_batches(np.zeros(3, dtype=np.int64), 10, None, 8)] == [[0, 1, 2]]
