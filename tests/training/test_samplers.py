"""Samplers: every row in its place, no text twice, the same order for the same seed and epoch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from torch.utils.data import ConcatDataset

from sentence_transformers.training import samplers

datasets = pytest.importorskip("datasets")
TEXTS = [f"text {i % 17}" for i in range(60)]
DATA = datasets.Dataset.from_dict(
    {"a": TEXTS, "b": [f"other {i % 23}" for i in range(60)], "label": [i % 4 for i in range(60)]}
)
KINDS = {
    "default": samplers.DefaultBatchSampler,
    "no duplicates": samplers.NoDuplicatesBatchSampler,
    "by label": samplers.GroupByLabelBatchSampler,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drop_last", [True, False])
def test_laws(kind: str, drop_last: bool) -> None:
    sampler = KINDS[kind](DATA, batch_size=8, drop_last=drop_last, seed=3)
    first = list(sampler)
    rows = [row for batch in first for row in batch]
    assert len(set(rows)) == len(rows) and all(len(batch) <= 8 for batch in first)
    assert list(sampler) == first == list(KINDS[kind](DATA, batch_size=8, drop_last=drop_last, seed=3))
    sampler.set_epoch(1)
    assert list(sampler) != first
    if not drop_last:
        assert len(rows) == (56 if kind == "by label" else 60)  # 15 rows a label, handed out two by two
    else:
        assert all(len(batch) == 8 for batch in first)
    if kind != "no duplicates":
        assert len(first) == len(sampler)


def test_no_text_is_twice_in_a_batch() -> None:
    lists = datasets.Dataset.from_dict({"q": TEXTS, "many": [[f"x {i % 31}", f"x {(i + 1) % 31}"] for i in range(60)]})
    for data in (DATA, lists):
        for batch in samplers.NoDuplicatesBatchSampler(data, batch_size=8, drop_last=False):
            rows = data[batch]
            texts = [t for name in data.column_names if name != "label" for v in rows[name]
                     for t in ([v] if isinstance(v, str) else v)]  # fmt: skip
            assert max(Counter(texts).values()) == 1


def test_each_label_comes_twice_at_least() -> None:
    for batch in samplers.GroupByLabelBatchSampler(DATA, batch_size=8, drop_last=False):
        assert min(Counter(DATA[batch]["label"]).values()) >= 2


def many(kind: Any, sizes: list[int]) -> Any:
    parts = [datasets.Dataset.from_dict({"a": [f"{n} {i}" for i in range(size)]}) for n, size in enumerate(sizes)]
    return kind(ConcatDataset(parts), [samplers.DefaultBatchSampler(part, 4, False) for part in parts], seed=1), sizes


def test_data_sets_take_turns() -> None:
    sampler, sizes = many(samplers.RoundRobinBatchSampler, [40, 12, 20])
    batches = list(sampler)
    which = [0 if batch[0] < 40 else 1 if batch[0] < 52 else 2 for batch in batches]
    assert which == [0, 1, 2] * 3 and len(sampler) == 9
    assert all(max(batch) < sum(sizes) for batch in batches)


def test_data_sets_in_proportion() -> None:
    sampler, sizes = many(samplers.ProportionalBatchSampler, [40, 12, 20])
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(sum(sizes))) and len(batches) == len(sampler)
    for batch in batches:
        assert len({0 if row < 40 else 1 if row < 52 else 2 for row in batch}) == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: samplers.DefaultBatchSampler(DATA.select([]), 4, False), "empty"),
        (lambda: samplers.GroupByLabelBatchSampler(DATA.remove_columns("label"), 4, False), "need a label column"),
        (lambda: samplers.GroupByLabelBatchSampler(DATA, 3, False), "must be even"),
        (lambda: samplers.GroupByLabelBatchSampler(DATA.select([0, 4]), 2, False), "two labels"),
    ],
    ids=range(4),
)
def test_what_cannot_be_meant_is_said(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
