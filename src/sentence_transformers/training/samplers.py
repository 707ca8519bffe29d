"""How the rows of a data set become batches.

    default            rows in a random order, cut into batches
    no duplicates      no text twice in a batch: what in-batch negatives need
    group by label     at least two rows of each label in a batch: what batch triplets need
    round robin, proportional      from which of several data sets the next batch is

The order depends on seed and epoch alone, so that a run which is resumed meets the same batches.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, ConcatDataset, Sampler

from sentence_transformers.errors import InputError
from sentence_transformers.training.collator import DATASET_NAME, LABEL_COLUMNS
from sentence_transformers.util.misc import column_values

if TYPE_CHECKING:
    from sentence_transformers.protocols import AnyDataset

logger = logging.getLogger(__name__)


class SetEpochMixin:
    """An epoch, which gives each pass over the data its own order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class DefaultBatchSampler(SetEpochMixin, BatchSampler):
    """Rows in a random order, cut into batches.

    Args:
        dataset: a data set, or a sampler of `torch.utils.data`, whose order is kept.
        batch_size: rows per batch.
        drop_last: leave out a last batch that is smaller.
        valid_label_columns: names that mark the label.
        generator: source of random numbers, seeded anew for each epoch.
        seed: of the order, together with the epoch.
    """

    def __init__(
        self,
        dataset: AnyDataset,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        if len(dataset) == 0:
            raise InputError("The data set is empty: there are no rows to make batches of.")
        super().__init__(dataset, batch_size, drop_last)
        self.dataset, self.seed = dataset, seed
        self.valid_label_columns = list(LABEL_COLUMNS if valid_label_columns is None else valid_label_columns)
        self.generator = torch.Generator() if generator is None else generator

    def order(self) -> list[int]:
        """All rows in the order of this epoch."""
        self.generator.manual_seed(self.seed + self.epoch)
        return list(self.dataset) if isinstance(self.dataset, Sampler) else self._permutation()

    def _permutation(self) -> list[int]:
        return torch.randperm(len(self.dataset), generator=self.generator, device=self.generator.device).tolist()

    def __iter__(self) -> Iterator[list[int]]:
        yield from cut(self.order(), self.batch_size, self.drop_last)

    def __len__(self) -> int:
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + int(bool(rest) and not self.drop_last)


def cut(order: list[int], size: int, drop_last: bool) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        if len(batch) == size or not drop_last:
            yield batch


class GroupByLabelBatchSampler(DefaultBatchSampler):
    """Batches of at least two labels, each of them at least twice.

    Rows of a label are shuffled and handed out two by two, to one batch after the other, so that a label is spread over
    all batches. A label's odd row and labels with a single row are left out, and so is what remains of a label when no
    other is left to go with it.
    """

    def __init__(
        self,
        dataset: AnyDataset,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        if batch_size < 4 or batch_size % 2:
            raise InputError(
                f"Batches by label hold two rows of two labels at least: batch_size must be even and 4 or more, got "
                f"{batch_size}."
            )
        column = next((name for name in self.valid_label_columns if name in dataset.column_names), None)
        if column is None:
            raise InputError(
                f"Batches by label need a label column ({', '.join(self.valid_label_columns)}); "
                f"the data set has {dataset.column_names}."
            )
        groups: dict[Any, list[int]] = {}
        for i, label in enumerate(column_values(dataset, column)):
            groups.setdefault(label, []).append(i)
        self.groups = {label: rows for label, rows in groups.items() if len(rows) > 1}
        if len(self.groups) < 2:
            raise InputError(
                f"Batches by label need two labels with two rows each; column {column!r} has {len(self.groups)} such."
            )

        sizes = [len(rows) // 2 for rows in self.groups.values()]
        wanted, others = self.batch_size // 2, sum(sizes) - max(sizes)
        self.full = min(sum(sizes) // wanted, others)  # each has a pair at least that is not of the largest label
        self.left = sum(sizes) - self.full * wanted  # pairs in none of them
        self.has_rest = self.left > 1 and others > self.full and not drop_last

    def __iter__(self) -> Iterator[list[int]]:
        self.generator.manual_seed(self.seed + self.epoch)
        groups = [self._shuffled(rows) for rows in self.groups.values()]
        groups = self._shuffled([list(zip(rows[::2], rows[1::2], strict=False)) for rows in groups])
        rest = self._take_rest(groups)
        pairs = list(chain.from_iterable(groups))
        batches = self._shuffled([pairs[start :: self.full] for start in range(self.full)])
        for batch in [*batches, rest] if self.has_rest else batches:
            yield list(chain.from_iterable(batch))

    def _take_rest(self, groups: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
        """Take the pairs that are in no full batch from the largest labels, and from two if they are a batch."""
        if self.left > self.batch_size // 2:  # nothing goes with them
            largest = max(groups, key=len)
            del largest[len(largest) - self.left :]
            return []
        rest = [sorted(groups, key=len)[-2].pop()] if self.has_rest else []
        return rest + [max(groups, key=len).pop() for _ in range(self.left - len(rest))]

    def _shuffled(self, items: list[Any]) -> list[Any]:
        order = torch.randperm(len(items), generator=self.generator, device=self.generator.device).tolist()
        return [items[i] for i in order]

    def __len__(self) -> int:
        return self.full + self.has_rest


class NoDuplicatesBatchSampler(DefaultBatchSampler):
    """Batches in which no text occurs twice, in whatever column.

    Values become numbers once, equal ones the same. Rows are taken in a random order; a row that shares a text with the
    batch waits for the next one. Every row is used once, the last few batches may be smaller than the others. With
    `drop_last` those are left out, and full ones of another random order make up for them, as many as `len` tells of. A
    warning tells of a text that is in so many rows that batches cannot be filled.

    Args:
        precompute_hashes, precompute_num_proc, precompute_batch_size: kept for compatibility; texts are always numbered
            once.
        others: see `DefaultBatchSampler`.
    """

    def __init__(
        self,
        dataset: AnyDataset,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
        precompute_hashes: bool = False,
        precompute_num_proc: int | None = None,
        precompute_batch_size: int = 1000,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        self.precompute_hashes = precompute_hashes
        self.precompute_num_proc, self.precompute_batch_size = precompute_num_proc, precompute_batch_size
        self._texts: list[tuple[int, ...]] | None = None
        self._warned = False

    @property
    def texts(self) -> list[tuple[int, ...]]:
        """The texts of each row, as numbers."""
        if self._texts is None:
            numbers: dict[Any, int] = {}
            columns = [
                [number_of(value, numbers) for value in column_values(self.dataset, name)]
                for name in self.dataset.column_names
                if name not in self.valid_label_columns and name != DATASET_NAME
            ]
            self._texts = [tuple(set(chain.from_iterable(row))) for row in zip(*columns, strict=True)]
        return self._texts

    def __iter__(self) -> Iterator[list[int]]:
        order, given, full_passes = self.order(), 0, True
        while full_passes:
            before = given
            for batch in self._batches(order):
                if len(batch) == self.batch_size or not self.drop_last:
                    yield batch
                    given += 1
                if self.drop_last and given == len(self):
                    return
            full_passes = self.drop_last and given > before
            order = self._permutation()

    def _batches(self, order: list[int]) -> Iterator[list[int]]:
        """Each batch takes the first rows of those left that share no text with it; a place is one in the order."""
        texts, new = self.texts, 0
        waiting: dict[int, list[int]] = {}  # heaps of places by a text of the batch that their rows share
        coming: list[int] = []  # heap of places: of the rows that wait for a text, those that are tried next
        tried: dict[int, int] = {}  # place in `coming` -> that text
        while coming or new < len(order):
            batch: list[int] = []
            used: set[int] = set()
            while len(batch) < self.batch_size and (coming or new < len(order)):
                if coming:
                    place = heapq.heappop(coming)
                else:
                    place, new = new, new + 1
                waited_for, row = tried.pop(place, None), order[place]
                shared = next((text for text in texts[row] if text in used), None)
                if shared is None:
                    batch.append(row)
                    used.update(texts[row])
                    continue
                heapq.heappush(waiting.setdefault(shared, []), place)
                if waited_for is not None and waited_for not in used:
                    self._try_next([waited_for], waiting, tried, coming)
            if len(batch) < self.batch_size and not self._warned:
                self._warn(len(batch), [order[place] for place in max(waiting.values(), key=len, default=[])], waiting)
            self._try_next(used & waiting.keys(), waiting, tried, coming)
            yield batch

    @staticmethod
    def _try_next(used: Iterable[int], waiting: dict[int, list[int]], tried: dict[int, int], coming: list[int]) -> None:
        """Of the rows that wait for each of some texts, let the first come next."""
        for text in used:
            if waiting.get(text):
                place = heapq.heappop(waiting[text])
                tried[place] = text
                heapq.heappush(coming, place)
            if not waiting.get(text):
                waiting.pop(text, None)

    def _warn(self, size: int, rows: list[int], waiting: Mapping[int, list[int]]) -> None:
        """Tell, once, that a batch could not be filled though there were rows enough."""
        if size + sum(map(len, waiting.values())) < self.batch_size:
            return
        self._warned = True
        logger.warning(
            "A batch without duplicates has %d of %d rows%s: all others share a text with it. %d rows share one with "
            "row %d: %.200r. Remove repeated rows, or make batches smaller.",
            size,
            self.batch_size,
            " and is left out" if self.drop_last else "",
            len(rows),
            rows[0],
            dict(self.dataset[rows[0]]),
        )


def number_of(value: object, numbers: dict[Any, int]) -> tuple[int, ...]:
    """A value, or the texts of a list of texts, as numbers; equal ones get the same."""
    texts = value if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value) else [value]
    return tuple(numbers.setdefault(key_of(one), len(numbers)) for one in texts)


def key_of(value: object) -> Any:
    """Something that can be a key of a dictionary, equal for equal values."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return "list", *map(key_of, value)
    if isinstance(value, Mapping):
        return "dict", *((key, key_of(value[key])) for key in sorted(value))
    if isinstance(value, torch.Tensor):
        value = value.cpu().numpy()
    if hasattr(value, "tobytes"):  # arrays and pictures
        form = [str(getattr(value, name, "")) for name in ("dtype", "shape", "mode", "size")]
        return *form, hashlib.blake2b(value.tobytes()).digest()
    return type(value), value


class MultiDatasetDefaultBatchSampler(SetEpochMixin, BatchSampler, ABC):
    """Which of several data sets the next batch is from.

    Args:
        dataset: the data sets, one after the other.
        batch_samplers: one for each.
        generator: source of random numbers.
        seed: of the order, together with the epoch.
    """

    def __init__(
        self,
        dataset: ConcatDataset,
        batch_samplers: list[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        if len(dataset.datasets) != len(batch_samplers):
            raise InputError(f"{len(dataset.datasets)} data sets need as many samplers, got {len(batch_samplers)}.")
        super().__init__(dataset, batch_samplers[0].batch_size, batch_samplers[0].drop_last)  # type: ignore[arg-type]
        self.dataset, self.batch_samplers, self.seed = dataset, batch_samplers, seed
        self.generator = torch.Generator() if generator is None else generator

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        for sampler in self.batch_samplers:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)

    @property
    def starts(self) -> list[int]:
        """The number of each data set's first row."""
        sizes = [len(part) for part in self.dataset.datasets]  # type: ignore[arg-type]
        return [0, *np.cumsum(sizes)[:-1].tolist()]

    @abstractmethod
    def __iter__(self) -> Iterator[list[int]]:
        """Batches of row numbers, each of one data set."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of batches."""


class RoundRobinBatchSampler(MultiDatasetDefaultBatchSampler):
    """The data sets take turns until the first of them has no more batches."""

    def __iter__(self) -> Iterator[list[int]]:
        streams = [iter(sampler) for sampler in self.batch_samplers]
        for _ in range(len(self) // len(streams)):
            for stream, start in zip(streams, self.starts, strict=True):
                batch = next(stream, None)
                if batch is None:
                    return
                yield [row + start for row in batch]

    def __len__(self) -> int:
        return min(len(sampler) for sampler in self.batch_samplers) * len(self.batch_samplers)


class ProportionalBatchSampler(MultiDatasetDefaultBatchSampler):
    """Every data set as often as it has batches, mixed at random."""

    def __iter__(self) -> Iterator[list[int]]:
        self.generator.manual_seed(self.seed + self.epoch)
        turns = [i for i, sampler in enumerate(self.batch_samplers) for _ in range(len(sampler))]
        mixed = torch.randperm(len(turns), generator=self.generator, device=self.generator.device).tolist()
        streams, starts = [iter(sampler) for sampler in self.batch_samplers], self.starts
        for turn in mixed:
            batch = next(streams[turns[turn]], None)
            if batch is not None:
                yield [row + starts[turns[turn]] for row in batch]

    def __len__(self) -> int:
        return sum(len(sampler) for sampler in self.batch_samplers)
