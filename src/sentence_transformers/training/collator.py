"""Rows of a data set -> one batch: texts cut into tokens, nothing padded.

    [{"anchor": "…", "positive": "…", "label": 1.0}, …]
      -> {"anchor_lengths": (B,), "anchor_input_ids": (T,), "anchor_position_ids": (T,), "positive_…": …,
          "label": (B,), "dataset_name": "…"}

The first column called label, labels, score or scores is the label; every other column is an input, in the order in
which the columns come. A prompt and a route may belong to a column. `Features.columns` is the way back: the
features of each column. A batch holds only tensors and names, so that any data loader can move it.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sentence_transformers.backends.override_detection import is_untouched
from sentence_transformers.engine.engine import input_module, plans_by_tokens
from sentence_transformers.errors import InputError
from sentence_transformers.features import Features

if TYPE_CHECKING:
    from sentence_transformers.training.arguments import Prompts

logger = logging.getLogger(__name__)

LABEL_COLUMNS = ("label", "labels", "score", "scores")
DATASET_NAME = "dataset_name"
RESERVED = (DATASET_NAME, "return_loss")
ID_ENDINGS = ("_ids", "_idx", "_id")

ANCHORS = {"anchor", "query", "question", "premise", "sentence1", "sentence_a", "text1", "source"}
POSITIVES = {"positive", "pos", "answer", "passage", "document", "entailment", "sentence2", "sentence_b", "target"}
NEGATIVES = {"negative", "neg", "contradiction", "hard_negative"}
LABEL_LIKE = {"similarity", "similarity_score", "relevance", "target_score", "class", "category", "stars", "rating"}


@dataclass
class BaseDataCollator:
    """Makes batches of rows.

    Args:
        preprocess_fn: texts, prompt=…, task=… -> features; `model.preprocess` gives padded ones, a `Preprocess` packed
            ones.
        valid_label_columns: names that mark the label.
        router_mapping: {column: route} or {dataset: {column: route}}.
        prompts: see `BaseTrainingArguments`.
        max_length: most tokens of a text, for all columns or {column or task: number}; None for the model's limits.
    """

    needs_router_mapping: ClassVar[bool] = True  # whether nothing else says which route a column goes

    preprocess_fn: Callable[..., dict[str, Any]]
    valid_label_columns: list[str] = field(default_factory=lambda: list(LABEL_COLUMNS))
    router_mapping: dict[str, Any] | None = field(default_factory=dict)
    prompts: str | dict[str, Any] | None = field(default_factory=dict)
    max_length: int | dict[str, int] | None = None
    _warned: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows -> batch."""
        names = list(features[0])
        batch: dict[str, Any] = {}
        dataset = features[0].get(DATASET_NAME)
        if dataset is not None:
            batch[DATASET_NAME] = dataset
            names.remove(DATASET_NAME)
        label = next((name for name in self.valid_label_columns if name in names), None)
        inputs = [name for name in names if name != label and name not in RESERVED]
        self.maybe_warn_about_column_order(inputs)
        for name in inputs:
            texts = [check_value(row[name], name, i) for i, row in enumerate(features)]
            batch |= self.column(name, texts, dataset)
        if label is not None:
            batch["label"] = self.labels([row[label] for row in features], label)
        return batch

    def labels(self, values: list[Any], column: str) -> Any:
        """The labels of a batch: (B,) or, for lists, (B, n)."""
        return as_labels(values, column)

    def column(self, name: str, texts: list[Any], dataset: str | None) -> dict[str, Any]:
        """The features of one column under names that begin with the column's."""
        task = self.task_of(name, dataset)
        settings = {"prompt": of_column(self.prompts, dataset, name), "task": task, **self.limits(name, task)}
        try:
            features = self.preprocess_fn(texts, **settings)
        except Exception as error:
            for i, value in enumerate(texts):
                if isinstance(value, int | float | np.number):
                    raise InputError(
                        f"Column {name!r} holds numbers ({type(value).__name__} {value!r} in row {i} of a batch), not "
                        f"texts. If it is the label, name it 'label'; else leave it out: "
                        f"dataset.remove_columns({name!r})."
                    ) from error
            if isinstance(error, InputError):
                raise InputError(f"Column {name!r}: {error}") from error
            error.add_note(f"This was raised for the column {name!r} of a batch.")
            raise
        if task:
            features["task"] = task
        return Features.of(features).as_column(name)

    def task_of(self, name: str, dataset: str | None) -> str | None:
        """The side that a column's texts are on, which is their route too; None if nothing says it."""
        return of_column(self.router_mapping, dataset, name)

    def limits(self, name: str, task: str | None) -> dict[str, Any]:
        """Further arguments of `preprocess_fn` for a column: its `max_length`, by column or task."""
        most = self.max_length
        if isinstance(most, dict):
            most = most.get(name, most.get(task or ""))
        return {} if most is None else {"max_length": most}

    def maybe_warn_about_column_order(self, column_names: list[str]) -> None:
        """Warn once about names that suggest another order, or a label among the inputs."""
        key = tuple(column_names)
        if key in self._warned:
            return
        self._warned.add(key)
        for message in doubts(column_names):
            logger.warning(message)


@dataclass
class SentenceTransformerDataCollator(BaseDataCollator):
    """The collator of a `SentenceTransformerTrainer`."""


@dataclass
class SparseEncoderDataCollator(BaseDataCollator):
    """The collator of a `SparseEncoderTrainer`."""


@dataclass
class CrossEncoderDataCollator(BaseDataCollator):
    """The collator of a `CrossEncoderTrainer`: texts stay texts, and become pairs in the loss.

    [{"query": "…", "docs": ["…", "…"], "labels": [1, 0]}, …]
      -> {"query": ["…", …], "docs": [["…", "…"], …], "label": [(2,), …]}
    """

    def __post_init__(self) -> None:
        if self.max_length is not None:
            logger.warning("max_length=%r has no effect on pairs: set max_seq_length of the model.", self.max_length)

    def column(self, name: str, texts: list[Any], dataset: str | None) -> dict[str, Any]:
        """The texts of one column, or its lists of texts."""
        return {name: texts}

    def labels(self, values: list[Any], column: str) -> Any:
        """Labels (B,), or one tensor per row where rows have several."""
        if all(hasattr(value, "__len__") for value in values):
            return [torch.as_tensor(check_value(value, column, i), device="cpu") for i, value in enumerate(values)]
        return super().labels(values, column)

    def of_pairs(self, columns: list[str], dataset: str | None) -> dict[str, str]:
        """Prompt and task of the pairs whose first texts are in the first of the columns."""
        found = {
            "prompt": of_column(self.prompts, dataset, columns[0]),
            "task": of_column(self.router_mapping, dataset, columns[0]),
        }
        return {key: value for key, value in found.items() if value}


@dataclass
class MultiVectorEncoderDataCollator(BaseDataCollator):
    """The collator of a `MultiVectorEncoderTrainer`: the first column holds queries, the others documents, unless
    `router_mapping` says otherwise.
    """

    needs_router_mapping = False
    _queries: str | None = field(default=None, init=False, repr=False)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows -> batch."""
        reserved = {*self.valid_label_columns, *RESERVED}
        self._queries = next((name for name in features[0] if name not in reserved), None)
        return super().__call__(features)

    def task_of(self, name: str, dataset: str | None) -> str | None:
        return super().task_of(name, dataset) or ("query" if name == self._queries else "document")


@dataclass
class Preprocess:
    """Texts -> features as the model computes them in training: packed, where it can take that and nobody else looks.

    Attributes:
        own_losses: whether features go to this library's losses and trainer alone. Others get what `model.preprocess`
            gives: (B, L) with `attention_mask`.
    """

    model: Any
    own_losses: bool = True

    def __getstate__(self) -> dict[str, Any]:
        """For a data loader's worker that is started anew: with the weights on the CPU, for it needs no GPU to read."""
        on_cpu = {
            id(one): nn.Parameter(one.detach().cpu(), one.requires_grad) if isinstance(one, nn.Parameter) else one.cpu()
            for one in (*self.model.parameters(), *self.model.buffers())
            if one.device.type != "cpu"
        }
        return self.__dict__ | ({"model": copy.deepcopy(self.model, on_cpu)} if on_cpu else {})

    def __call__(
        self, texts: list[Any], prompt: str | None = None, task: str | None = None, **limits: Any
    ) -> dict[str, Any]:
        module = input_module(self.model, task)
        if not (self.own_losses and plans_by_tokens(module) and is_untouched(self.model)):
            return self.model.preprocess(texts, prompt=prompt, **({"task": task} if task else {}), **limits)
        tokens = module.tokens(texts, prompt, task=task, **limits)
        return module.features(tokens, packed=bool(getattr(module, "packs", False)))


def doubts(column_names: list[str]) -> list[str]:
    """What looks wrong with the order of the input columns."""
    found = []
    ranks = [(rank(name), name) for name in column_names]
    known = [(value, name) for value, name in ranks if value is not None]
    for (before, first), (after, second) in itertools.pairwise(known):
        if before > after:
            found.append(
                f"Column {first!r} comes before {second!r}. Losses go by the ORDER of the columns, not by their names: "
                f"{column_names}. If that is not meant: dataset.select_columns([...]) in the right order."
            )
    ids = [name for name in column_names if name.lower() in ("id", "ids", "idx") or name.lower().endswith(ID_ENDINGS)]
    if ids:
        found.append(
            f"Columns {ids} are used as texts, though their names suggest ids. Put the values in their place with "
            f"sentence_transformers.util.resolve_ids, or leave them out: dataset.remove_columns({ids})."
        )
    found.extend(
        f"Column {name!r} is used as a text, though its name suggests a label. Labels are recognised by the names "
        f"{', '.join(LABEL_COLUMNS)}: dataset.rename_column({name!r}, 'label') or dataset.remove_columns({name!r})."
        for name in column_names
        if name.lower() in LABEL_LIKE
    )
    return found


def rank(name: str) -> int | None:
    """0 for names that usually stand first, 1 second, 2 after that; None for names that tell nothing."""
    plain = name.lower()
    for value, names in enumerate((ANCHORS, POSITIVES, NEGATIVES)):
        if plain in names or (value == 2 and plain.rstrip("0123456789_") in names):
            return value
    return None


def check_value(value: object, column: str, row: int) -> Any:
    """The value, or `InputError` if it is missing."""
    if value is None:
        raise InputError(
            f"Column {column!r} is None in row {row} of a batch. Drop such rows first: "
            f"dataset.filter(lambda row: row[{column!r}] is not None)."
        )
    return value


def as_labels(values: list[Any], column: str) -> Tensor:
    """Labels of a batch: (B,) or, for lists, (B, n)."""
    for i, value in enumerate(values):
        check_value(value, column, i)
    try:
        if isinstance(values[0], Tensor):
            return torch.stack(values)
        return torch.as_tensor(values, device="cpu")
    except (ValueError, TypeError, RuntimeError) as error:
        kinds = sorted({f"{type(v).__name__} of length {len(v)}" if hasattr(v, "__len__") else type(v).__name__
                        for v in values})  # fmt: skip
        raise InputError(
            f"The labels in column {column!r} cannot be one tensor: a batch holds {', '.join(kinds)}. "
            "Every row needs a number, or a list of numbers of one length."
        ) from error


def of_column(settings: Prompts, dataset: str | None, column: str) -> str | None:
    """What a setting like `prompts` says for one column of a data set; None if nothing."""
    if not settings:
        return None
    if isinstance(settings, str):
        return settings
    of_dataset = settings.get(dataset, settings) if dataset is not None else settings
    if isinstance(of_dataset, str):
        return of_dataset
    value = of_dataset.get(column)
    return value if isinstance(value, str) else None
