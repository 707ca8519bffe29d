"""From data sets to batches: one data set, several, streams, and data loaders that people bring along.

Dataset                     batches by the batch sampler of the arguments
dict of data sets           each batch from one of them; the multi-data-set sampler says which
IterableDataset             rows as they come
a DataLoader of InputExamples, rows or texts         its batches, as they come (`BatchStream`)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset

from sentence_transformers.errors import InputError
from sentence_transformers.protocols import Example
from sentence_transformers.training.arguments import BatchSamplers, MultiDatasetBatchSamplers
from sentence_transformers.training.collator import DATASET_NAME, LABEL_COLUMNS
from sentence_transformers.util.distributed import get_rank, get_world_size

if TYPE_CHECKING:
    from sentence_transformers.protocols import AnyDataset, Data
    from sentence_transformers.training.trainer import BaseTrainer

Rows = list[dict[str, Any]]


class NamedRows(Dataset):
    """A data set whose rows tell which data set they are from; nothing is copied."""

    def __init__(self, dataset: AnyDataset, name: str) -> None:
        self.dataset, self.name = dataset, name
        self.column_names = list(dataset.column_names)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {**self.dataset[i], DATASET_NAME: self.name}

    def __getitems__(self, indices: list[int]) -> Rows:
        return [{**row, DATASET_NAME: self.name} for row in rows_at(self.dataset, indices)]


class ManyRows(ConcatDataset):
    """Several named data sets, one after the other, read by whole batches."""

    def __getitems__(self, indices: list[int]) -> Rows:
        starts = [0, *self.cumulative_sizes[:-1]]
        which = next(i for i, stop in enumerate(self.cumulative_sizes) if indices[0] < stop)
        return self.datasets[which].__getitems__([i - starts[which] for i in indices])  # type: ignore[attr-defined]


def rows_at(dataset: AnyDataset, indices: list[int]) -> Rows:
    if hasattr(dataset, "__getitems__"):
        return dataset.__getitems__(indices)
    return [dataset[i] for i in indices]


def as_datasets(data: object, argument: str) -> Any:
    """Data sets as transformers' trainer takes them; dictionaries stay dictionaries.

    Raises:
        InputError: naming the argument, for what is no data set; says what to do with lists of `InputExample`.
    """
    if data is None or isinstance(data, str):
        return data
    if isinstance(data, Mapping):
        if not data:
            raise InputError(f"{argument} is an empty dictionary.")
        return {name: as_datasets(part, f"{argument}[{name!r}]") for name, part in data.items()}
    if isinstance(data, list) and all(isinstance(row, Mapping) for row in data):
        from datasets import Dataset

        return Dataset.from_list(data)
    if hasattr(data, "column_names"):
        return data
    first = data[0] if isinstance(data, list) else next(iter(getattr(data, "examples", ())), None)
    examples = type(data).__module__.startswith("sentence_transformers.") or hasattr(first, "texts")
    raise InputError(
        f"{argument} is a {type(data).__name__}{f' of {type(first).__name__}' if first is not None else ''}, not a "
        "datasets.Dataset. Make one: datasets.Dataset.from_dict({'anchor': […], 'positive': […]})"
        + ("; or give train_dataloader=DataLoader(examples, batch_size=16)." if examples else ".")
    )


def random_source(seed: int, number: int = 0) -> dict[str, Any]:
    """A seed, and a generator with it, for the sampler of the data set of that number: each has its own order."""
    seed += 100_003 * number
    generator = torch.Generator()
    generator.manual_seed(seed)
    return {"generator": generator, "seed": seed}


def make_batch_sampler(
    kind: str | Callable[..., Any], dataset: Data | Dataset, batch_size: int, drop_last: bool, **settings: Any
) -> Any:
    """The sampler that an argument asks for.

    Args:
        kind: a `BatchSamplers`, a class or a function.
        settings: `valid_label_columns`, `generator`, `seed`.
    """
    from sentence_transformers.training import samplers

    if callable(kind) and not isinstance(kind, BatchSamplers):
        return kind(dataset, batch_size=batch_size, drop_last=drop_last, **settings)
    if kind == BatchSamplers.NO_DUPLICATES:
        return samplers.NoDuplicatesBatchSampler(dataset, batch_size, drop_last, **settings)
    if kind == BatchSamplers.NO_DUPLICATES_HASHED:
        return samplers.NoDuplicatesBatchSampler(dataset, batch_size, drop_last, **settings, precompute_hashes=True)
    if kind == BatchSamplers.GROUP_BY_LABEL:
        return samplers.GroupByLabelBatchSampler(dataset, batch_size, drop_last, **settings)
    return samplers.DefaultBatchSampler(dataset, batch_size, drop_last, **settings)


def make_multi_sampler(
    kind: str | Callable[..., Any], dataset: ConcatDataset, batch_samplers: list[Any], **settings: Any
) -> Any:
    """The sampler that says from which data set the next batch is."""
    from sentence_transformers.training import samplers

    if callable(kind) and not isinstance(kind, MultiDatasetBatchSamplers):
        return kind(dataset, batch_samplers, **settings)
    round_robin = kind == MultiDatasetBatchSamplers.ROUND_ROBIN
    sampler_class = samplers.RoundRobinBatchSampler if round_robin else samplers.ProportionalBatchSampler
    return sampler_class(dataset, batch_samplers, **settings)


class BatchStream(IterableDataset):
    """The batches of data loaders as batches of features.

    Args:
        loaders: one data loader, or several by name, which take turns until the first has no more.
        collate: rows -> batch.

    A data loader may give lists of `InputExample`, lists of rows (dictionaries), dictionaries of lists, or tuples of
    lists of texts with the labels last. Its own collate function is left out where it has a list to collate.
    """

    def __init__(self, loaders: Iterable[Any] | Mapping[str, Iterable[Any]], collate: Callable[[Rows], Any]) -> None:
        named = isinstance(loaders, Mapping)
        self.loaders: dict[Any, Any] = dict(loaders) if named else {None: loaders}
        self.collate = collate
        for loader in self.loaders.values():
            if hasattr(loader, "collate_fn"):
                loader.collate_fn = list

    def __len__(self) -> int:
        try:
            return min(len(loader) for loader in self.loaders.values()) * len(self.loaders) // get_world_size()
        except TypeError:
            raise TypeError("a data loader without a length") from None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rank, processes, rounds = get_rank(), get_world_size(), self.all_batches()
        while len(batches := list(itertools.islice(rounds, processes))) == processes:
            if len({len(rows) for rows in batches}) == 1:  # processes need equally many batches, of equal size
                yield self.collate(batches[rank])

    def all_batches(self) -> Iterator[Rows]:
        """Batches for all processes, data loader by data loader in turn."""
        streams = {name: iter(loader) for name, loader in self.loaders.items()}
        while True:
            for name, stream in streams.items():
                try:
                    batch = next(stream)
                except StopIteration:
                    return
                rows = rows_of_batch(batch)
                yield [{**row, DATASET_NAME: name} for row in rows] if name is not None else rows


def rows_of_batch(batch: Iterable[Any]) -> Rows:
    """A data loader's batch as rows.

    Raises:
        InputError: for a batch of no known form; lists them.
    """
    if isinstance(batch, Mapping):
        columns = {key: list(value) for key, value in batch.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(batch, list | tuple) and len(batch):
        first = batch[0]
        if hasattr(first, "texts"):
            return [row_of_example(example) for example in batch]
        if isinstance(first, Mapping):
            return [dict(row) for row in batch]
        if isinstance(first, list | tuple) and first and isinstance(first[0], str):
            return rows_of_texts(batch)
        if isinstance(first, str):
            return [{"sentence_0": text} for text in batch]
    raise InputError(
        f"A data loader gave a batch that is a {type(batch).__name__}. Known are lists of InputExample, lists of "
        "dictionaries, dictionaries of lists, and lists of (text, …, label)."
    )


def rows_of_texts(batch: Sequence[Any]) -> Rows:
    """Rows given as (text, …, label), or columns given as (texts, …, labels)."""
    same_length = len({len(part) for part in batch}) == 1
    columns = isinstance(batch[-1], torch.Tensor) or (isinstance(batch, tuple) and same_length)
    rows = zip(*batch, strict=True) if columns else batch
    return [row_of_values(list(row)) for row in rows]


def row_of_values(values: list[Any]) -> dict[str, Any]:
    texts = [value for value in values if isinstance(value, str)]
    row: dict[str, Any] = {f"sentence_{i}": text for i, text in enumerate(texts)}
    if len(texts) < len(values):
        row["label"] = values[-1]
    return row


def row_of_example(example: Example) -> dict[str, Any]:
    """An `InputExample` as a row."""
    row: dict[str, Any] = {f"sentence_{i}": text for i, text in enumerate(example.texts)}
    return row | {"label": example.label}


def is_stream(dataset: object) -> bool:
    """Whether rows come without a known number."""
    return not hasattr(dataset, "__len__")


def make_loader(trainer: BaseTrainer, data: Data, batch_size: int, training: bool) -> DataLoader:
    """Batches of a data set, of several or of a stream, as the trainer's arguments, collator and samplers make them."""
    args, collator = trainer.args, trainer.data_collator
    settings: dict[str, Any] = {
        "collate_fn": collator,
        "num_workers": args.dataloader_num_workers,
        "pin_memory": args.dataloader_pin_memory and torch.accelerator.is_available(),
        "persistent_workers": args.dataloader_persistent_workers,
        "prefetch_factor": args.dataloader_prefetch_factor,
    }
    parts = dict(data) if isinstance(data, Mapping) else None
    rows: Any = data
    drop_last = args.dataloader_drop_last and training
    labels = list(getattr(collator, "valid_label_columns", LABEL_COLUMNS))
    if any(is_stream(part) for part in (parts.values() if parts else [data])):
        if training and parts is None:
            trainer.get_batch_sampler(data, batch_size, drop_last, labels)
        if parts is not None:
            raise InputError(
                "Several IterableDatasets cannot be mixed; interleave them with datasets.interleave_datasets."
            )
        trainer.accelerator.dataloader_config.dispatch_batches = False  # batches of unpadded tokens are not cut in two
        return trainer.accelerator.prepare(DataLoader(rows, batch_size=batch_size, drop_last=drop_last, **settings))
    seed = args.seed if args.data_seed is None else args.data_seed
    if parts is None:
        sampler = trainer.get_batch_sampler(rows, batch_size, drop_last, labels, **random_source(seed))
    else:
        rows = ManyRows([trainer.add_dataset_name_column(part, name) for name, part in parts.items()])
        samplers = [
            trainer.get_batch_sampler(part, batch_size, drop_last, labels, **random_source(seed, i))
            for i, part in enumerate(parts.values())
        ]
        sampler = trainer.get_multi_dataset_batch_sampler(rows, samplers, **random_source(seed))
    return trainer.accelerator.prepare(DataLoader(rows, batch_sampler=sampler, **settings))
