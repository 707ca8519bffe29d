"""Samplers: every row in its place, no text twice, the same order for the same seed and epoch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, RandomSampler, SequentialSampler

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
    repeats = kind == "no duplicates" and drop_last  # rows of another order fill the last batches
    assert len(set(rows)) == len(rows) or repeats
    assert all(len(set(batch)) == len(batch) <= 8 for batch in first)
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


@pytest.mark.parametrize(
    ("counts", "size", "used", "used_of_full"),
    [
        ([4, 4, 4], 4, 12, 12),
        ([20, 4, 4], 4, 16, 16),  # one batch for each of the four pairs that are not of the first label
        ([20, 20, 20], 6, 60, 60),
        ([10, 10], 8, 20, 16),
        ([1000, 500, 3], 16, 1502, 1488),
        ([3, 3], 4, 4, 4),
        ([6, 2], 16, 8, 0),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_batch_has_two_labels_twice_at_least(
    counts: list[int], size: int, used: int, used_of_full: int, seed: int
) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    data = datasets.Dataset.from_dict({"text": [str(i) for i in range(len(labels))], "label": labels})
    for drop_last, expected in ((False, used), (True, used_of_full)):
        sampler = samplers.GroupByLabelBatchSampler(data, size, drop_last, seed=seed)
        batches = list(sampler)
        assert len(batches) == len(sampler) and sum(map(len, batches)) == expected
        assert len({row for batch in batches for row in batch}) == expected
        for batch in batches:
            found = Counter(labels[row] for row in batch)
            assert len(found) >= 2 and min(found.values()) >= 2


def test_a_repeated_text_costs_no_more_than_its_rows(caplog: pytest.LogCaptureFixture) -> None:
    """Rows of one text each are looked at a few times, not once for each batch; a warning names the text."""
    count = 3000
    data = datasets.Dataset.from_dict({"a": ["the same"] * count, "b": [str(i % 1000) for i in range(count)]})
    sampler = samplers.NoDuplicatesBatchSampler(data, batch_size=32, drop_last=False)
    looks = 0

    class Counted(list):  # type: ignore[type-arg]
        def __getitem__(self, i: Any) -> Any:
            nonlocal looks
            looks += 1
            return super().__getitem__(i)

    sampler._texts = Counted(sampler.texts)
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(count)) and len(batches) == count
    assert looks < 10 * count
    assert len(caplog.messages) == 1 and "the same" in caplog.text


@pytest.mark.parametrize("seed", range(3))
def test_every_row_is_used_once_however_texts_are_shared(seed: int) -> None:
    random = np.random.default_rng(seed)
    columns = {name: [f"{name} {i}" for i in random.zipf(1.3, 300) % 40] for name in "abc"}
    data = datasets.Dataset.from_dict(columns)
    batches = list(samplers.NoDuplicatesBatchSampler(data, batch_size=8, drop_last=False, seed=seed))
    assert sorted(row for batch in batches for row in batch) == list(range(300))
    for batch in batches:
        assert all(len(set(data[batch][name])) == len(batch) for name in columns)


@pytest.mark.parametrize(
    ("size", "seed", "drop_last", "batches"),
    [
        (5, 1, False, [[13, 2, 18, 20, 7], [6, 17, 23, 4, 21], [14, 11, 16, 1, 5], [15, 22, 0, 9, 19], [3, 10, 12, 8]]),
        (12, 5, False, [[11, 8, 13, 6, 10, 0, 16, 19, 3, 2, 17, 21], [12, 23, 20, 22, 5, 14, 1, 18, 15, 9, 4, 7]]),
        (11, 43, True, [[4, 12, 7, 22, 9, 6, 5, 20, 13, 3, 23], [0, 19, 18, 16, 21, 8, 10, 1, 11, 17, 2]]),
        (8, 43, True, [[4, 12, 7, 22, 9, 6, 5, 20], [0, 13, 19, 3, 18, 16, 21, 8], [7, 12, 13, 3, 20, 16, 21, 6]]),
        (23, 43, True, []),
    ],
)
def test_batches_without_duplicates_as_recorded_from_6_2_0(
    size: int, seed: int, drop_last: bool, batches: list[list[int]]
) -> None:
    data = datasets.Dataset.from_dict({"a": [f"a {i}" for i in range(24)], "b": [f"b {i % 12}" for i in range(24)]})
    assert list(samplers.NoDuplicatesBatchSampler(data, size, drop_last, seed=seed)) == batches


def test_a_given_sampler_orders_the_rows() -> None:
    rows = SequentialSampler(range(7))
    assert list(samplers.DefaultBatchSampler(rows, batch_size=3, drop_last=False)) == [[0, 1, 2], [3, 4, 5], [6]]
    random = RandomSampler(range(7), generator=torch.Generator().manual_seed(3))
    expected = torch.randperm(7, generator=torch.Generator().manual_seed(3)).tolist()
    assert list(samplers.DefaultBatchSampler(random, batch_size=7, drop_last=False)) == [expected]


def test_too_few_distinct_texts_are_told(caplog: pytest.LogCaptureFixture) -> None:
    data = datasets.Dataset.from_dict({"a": ["same"] * 8, "b": list("abcdefgh")})
    assert list(samplers.NoDuplicatesBatchSampler(data, batch_size=4, drop_last=True)) == []
    assert "left out" in caplog.text and "same" in caplog.text


ARRAYS = [np.arange(3000), np.arange(3000)]
ARRAYS[1][1500] = 0  # both are written [0 1 2 ... 2997 2998 2999]


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ([1.0, 2.0], [1.0, 3.0], False),
        ([1.0, 2.0], [1.0, 2.0], True),
        (["a", "b"], ["a", "c"], True),
        (ARRAYS[0], ARRAYS[1], False),
        (ARRAYS[0], ARRAYS[0].copy(), True),
        (torch.arange(3), torch.arange(3), True),
        ({"text": "a"}, {"text": "b"}, False),
        ("1", 1, False),
    ],
    ids=range(8),
)
def test_what_is_one_value(first: Any, second: Any, equal: bool, hashed: bool) -> None:
    class Rows:
        column_names = ("a",)
        values = (first, second)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, i: Any) -> Any:
            return {"a": list(self.values)} if isinstance(i, slice) else {"a": self.values[i]}

        def with_format(self, _: None) -> Any:
            return self

        def select_columns(self, _: list[str]) -> Any:
            return self

    sampler = samplers.NoDuplicatesBatchSampler(Rows(), 2, False, precompute_hashes=hashed)
    assert [len(batch) for batch in sampler] == ([1, 1] if equal else [2])


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
        (lambda: samplers.GroupByLabelBatchSampler(DATA, 5, False), "must be even"),
        (lambda: samplers.GroupByLabelBatchSampler(DATA, 2, False), "4 or more"),
        (lambda: samplers.GroupByLabelBatchSampler(DATA.select([0, 4]), 4, False), "two labels"),
    ],
    ids=range(5),
)
def test_what_cannot_be_meant_is_said(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
