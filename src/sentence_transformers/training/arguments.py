"""Settings of a training run: all of transformers' `TrainingArguments`, and what training on texts needs besides.

    SentenceTransformerTrainingArguments(
        output_dir="out",
        prompts={"anchor": "query: ", "positive": "passage: "},
        batch_sampler="no_duplicates",
        learning_rate_mapping={r"\\.embeddings\\.": 1e-5},
    )

Settings that are dictionaries may be given as JSON text, as a command line does. Wrong names are found here, before
anything is loaded.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Union

from transformers import TrainingArguments
from transformers.utils import ExplicitEnum

from sentence_transformers.errors import InputError

logger = logging.getLogger(__name__)

Prompts = Union[str, None, dict[str, str], dict[str, dict[str, str]]]  # noqa: UP007
"""Unions of this form and order are those that `transformers.HfArgumentParser` can read."""


class BatchSamplers(ExplicitEnum):
    """How the rows of one data set become batches."""

    BATCH_SAMPLER = "batch_sampler"
    NO_DUPLICATES = "no_duplicates"
    NO_DUPLICATES_HASHED = "no_duplicates_hashed"
    GROUP_BY_LABEL = "group_by_label"


class MultiDatasetBatchSamplers(ExplicitEnum):
    """From which of several data sets the next batch comes."""

    ROUND_ROBIN = "round_robin"
    PROPORTIONAL = "proportional"


@dataclass
class BaseTrainingArguments(TrainingArguments):
    """Arguments of a trainer.

    Args:
        prompts: text put before inputs: one for all columns, or {column: prompt}, {dataset: prompt} or
            {dataset: {column: prompt}}.
        batch_sampler: a `BatchSamplers`, a sampler class, or a function with a sampler's arguments.
        multi_dataset_batch_sampler: a `MultiDatasetBatchSamplers`, a class, or a function.
        router_mapping: {column: route} or {dataset: {column: route}}, for models with a `Router`.
        learning_rate_mapping: {pattern of parameter names: learning rate}; the last pattern found in a name wins.
        warmup_ratio: share of all steps with a rising learning rate; older form of `warmup_steps` below 1.
        others: see `transformers.TrainingArguments`.

    Raises:
        InputError: for an unknown sampler, a pattern that is none, or text that is not JSON.
    """

    prompts: Prompts = field(default=None, metadata={"help": "Text put before inputs, per data set and column."})
    batch_sampler: Union[BatchSamplers, str, Callable[..., Any]] = field(  # noqa: UP007
        default=BatchSamplers.BATCH_SAMPLER, metadata={"help": "How rows become batches."}
    )
    multi_dataset_batch_sampler: Union[MultiDatasetBatchSamplers, str, Callable[..., Any]] = field(  # noqa: UP007
        default=MultiDatasetBatchSamplers.PROPORTIONAL, metadata={"help": "Which data set the next batch is from."}
    )
    router_mapping: Prompts = field(default_factory=dict, metadata={"help": "Route per column."})
    learning_rate_mapping: Union[str, None, dict[str, float]] = field(  # noqa: RUF036, UP007
        default_factory=dict, metadata={"help": "Learning rate per pattern of parameter names."}
    )
    warmup_ratio: float | None = field(default=None, metadata={"help": "Share of steps with a rising learning rate."})

    def __post_init__(self) -> None:
        self.prompts = from_json(self.prompts, "prompts", plain_text=True)
        self.router_mapping = from_json(self.router_mapping, "router_mapping") or {}
        self.learning_rate_mapping = from_json(self.learning_rate_mapping, "learning_rate_mapping") or {}
        self.batch_sampler = sampler_named(self.batch_sampler, BatchSamplers, "batch_sampler")
        self.multi_dataset_batch_sampler = sampler_named(
            self.multi_dataset_batch_sampler, MultiDatasetBatchSamplers, "multi_dataset_batch_sampler"
        )
        for pattern in self.learning_rate_mapping:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(f"learning_rate_mapping: {pattern!r} is not a regular expression: {error}") from error
        if self.warmup_ratio and not self.warmup_steps:
            self.warmup_steps = self.warmup_ratio
        super().__post_init__()
        self.prediction_loss_only = True
        self.ddp_broadcast_buffers = False
        if self.world_size > 1 and not self.fsdp:
            self.dataloader_drop_last = True  # ranks must see the same number of equally large batches

    def to_dict(self) -> dict[str, Any]:
        """The arguments as plain values."""
        plain = super().to_dict()
        for key in ("batch_sampler", "multi_dataset_batch_sampler"):
            if callable(plain[key]):
                plain[key] = getattr(plain[key], "__qualname__", repr(plain[key]))
        return plain


@dataclass
class SentenceTransformerTrainingArguments(BaseTrainingArguments):
    """Arguments of a `SentenceTransformerTrainer`; see `BaseTrainingArguments`."""


@dataclass
class SparseEncoderTrainingArguments(BaseTrainingArguments):
    """Arguments of a `SparseEncoderTrainer`; see `BaseTrainingArguments`."""


@dataclass
class CrossEncoderTrainingArguments(BaseTrainingArguments):
    """Arguments of a `CrossEncoderTrainer`; see `BaseTrainingArguments`.

    A prompt is put before the first text of each pair: one for all data sets, {dataset: prompt}, or the prompt of the
    first column.
    """


@dataclass
class MultiVectorEncoderTrainingArguments(BaseTrainingArguments):
    """Arguments of a `MultiVectorEncoderTrainer`; see `BaseTrainingArguments`.

    `max_length` is the most tokens of a text in training: one number, or {column or side: number} with the sides
    "query" and "document"; default: the model's limits. Expanded queries of fixed length stay as they are.
    """

    max_length: Union[str, None, int, dict[str, int]] = field(  # noqa: RUF036, UP007
        default=None, metadata={"help": "Most tokens of a text in training."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.max_length = from_json(self.max_length, "max_length")
        given = self.max_length.values() if isinstance(self.max_length, dict) else [self.max_length]
        if bad := [value for value in given if value is not None and (not isinstance(value, int) or value < 1)]:
            raise InputError(f"max_length must be integers of at least 1, got {bad[0]!r}.")


def from_json(value: object, name: str, plain_text: bool = False) -> Any:
    """A setting that may be JSON text."""
    if not isinstance(value, str) or (plain_text and not value.lstrip().startswith("{")):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise InputError(f"{name} is text that is not JSON: {error}. Got {value!r:.100}.") from error


def sampler_named(value: str | Callable[..., Any], names: type[ExplicitEnum], argument: str) -> Any:
    """A sampler's name as a member of its enumeration; classes and functions stay as they are."""
    if isinstance(value, Callable) and not isinstance(value, str | ExplicitEnum):  # type: ignore[arg-type]
        return value
    try:
        return names(value)
    except ValueError:
        known = ", ".join(repr(member.value) for member in names)
        raise InputError(
            f"{argument}={value!r} is unknown; known are {known}, a sampler class or a function."
        ) from None


def checked_args(args: BaseTrainingArguments | None, kind: type[BaseTrainingArguments], trainer: str) -> Any:
    """The arguments of a run, all defaults if there are none; what has no effect is logged.

    Raises:
        InputError: for those of another trainer.
    """
    if args is None:
        return kind(output_dir="tmp_trainer")
    if not isinstance(args, kind):
        raise InputError(f"args is a {type(args).__name__}; {trainer} needs a {kind.__name__}.")
    if args.fp16 and args.device.type == "cpu":
        logger.warning(
            "fp16=True (use_amp of fit) has no effect on a CPU, which computes in float32 or with bf16=True."
        )
    if args.n_gpu > 1:
        logger.warning(
            "Only the first of %d GPUs is used: one process trains on one GPU. Start one for each with "
            "`torchrun --nproc-per-node=%d script.py`.",
            args.n_gpu,
            args.n_gpu,
        )
        args._n_gpu = 1
    return args


def defaults_of(arguments: type[BaseTrainingArguments]) -> dict[str, Any]:
    """The defaults of a class of arguments."""
    found = {}
    for entry in dataclasses.fields(arguments):
        if entry.default is not dataclasses.MISSING:
            found[entry.name] = entry.default
        elif entry.default_factory is not dataclasses.MISSING:
            found[entry.name] = entry.default_factory()
    return found
