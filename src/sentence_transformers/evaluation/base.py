"""What evaluators share.

    metrics = evaluator(model, output_path="results")          {"name_cosine_ndcg@10": 0.71, …}
    metrics[evaluator.primary_metric]

An evaluator holds data and settings; calling it with a model measures that model. It notes the metrics in the model's
card and, if told to, adds a row to a CSV file. An evaluator of this library says what it computes (`_evaluate`) and, if
of embeddings, how texts are embedded (`encode_options`); the rest is here. The numbers are functions in
`evaluation.metrics`.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, SupportsFloat

import numpy as np

from sentence_transformers.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers.protocols import Encoder, Texts

logger = logging.getLogger(__name__)

Metrics = dict[str, float]
Measured = tuple[Metrics, Iterable[float]]
"""Metrics by name, and the values of a row of the CSV file, computed where there is one."""


class BaseEvaluator:
    """Measures a model.

    Attributes:
        primary_metric: the one that says which of two models is better.
        greater_is_better: how it says so.
        name: put before the names of the metrics.
        csv_file: name of the CSV file.
        csv_headers: its columns.
        write_csv: whether a call with an output folder adds a row to it.
        config_keys: names of the settings that the model card shows, where they are not None.
    """

    csv_file: str
    csv_headers: list[str]
    write_csv: bool = True
    config_keys: ClassVar[tuple[str, ...]] = ()
    greater_is_better: bool = True
    primary_metric: str | None = None
    name: str = ""
    _found_primary: str | None = None

    def __init__(self) -> None:
        self.greater_is_better = True
        self.primary_metric = None

    def find_primary(self, metric: str) -> None:
        """Make `metric` the primary one, as the model that is measured asks for it; one that was set by hand stays."""
        if self.primary_metric in (None, self._found_primary):
            self.primary_metric = self._found_primary = metric

    def __call__(
        self, model: object, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> float | dict[str, float]:
        """Measure a model.

        Args:
            output_path: folder for the CSV file; None for none.
            epoch, steps: when in a training run this is; -1 outside of one.

        Returns:
            Metrics by name.
        """
        raise TypeError(f"{type(self).__name__} must define __call__(model, output_path, epoch, steps).")

    def write_row(self, output_path: str | None, headers: Sequence[str], row: Sequence[Any]) -> None:
        """Add a row to the CSV file of this evaluator, in the folder `output_path`."""
        append_csv(output_path, self.csv_file, headers, row)

    def prefix_name_to_metrics(self, metrics: dict[str, float], name: str) -> dict[str, float]:
        """Metrics with the evaluator's name before theirs, as plain floats."""
        plain = {key: as_float(value) for key, value in metrics.items()}
        if not name:
            return plain
        if self.primary_metric and not self.primary_metric.startswith(f"{name}_"):
            found = self.primary_metric == self._found_primary
            self.primary_metric = f"{name}_{self.primary_metric}"
            self._found_primary = self.primary_metric if found else None
        return {f"{name}_{key}": value for key, value in plain.items()}

    def store_metrics_in_model_card_data(
        self, model: object, metrics: dict[str, Any], epoch: int = 0, step: int = 0
    ) -> None:
        """Note the metrics in the model's card."""
        card: Any = getattr(model, "model_card_data", None)
        if hasattr(card, "set_evaluation_metrics"):
            card.set_evaluation_metrics(self, metrics, epoch, step)

    @property
    def description(self) -> str:
        """The evaluator's kind in words: "Information Retrieval"."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", type(self).__name__)
        return words.removesuffix(" Evaluator")

    def get_config_dict(self) -> dict[str, Any]:
        """Settings that the model card shows."""
        found = {key: getattr(self, key) for key in self.config_keys}
        return {key: value for key, value in found.items() if value is not None}

    def _report(
        self, model: object, measured: Measured, output_path: str | None, epoch: int, steps: int
    ) -> dict[str, float]:
        """Write what was measured where it goes; the metrics by their full names."""
        metrics, row = measured
        if self.write_csv:
            self.write_row(output_path, self.csv_headers, [epoch, steps, *row])
        metrics = self.prefix_name_to_metrics(metrics, self.name)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics


SentenceEvaluator = BaseEvaluator


class MetricsEvaluator(BaseEvaluator):
    """An evaluator whose metrics are a function of the model."""

    def __call__(
        self, model: object, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        return self._report(model, self._evaluate(model), output_path, epoch, steps)

    def _evaluate(self, model: object) -> Measured:
        """The metrics of a model, and the values of the CSV file's row."""
        raise TypeError(f"{type(self).__name__} must define __call__(model, output_path, epoch, steps).")


class EmbeddingEvaluator(MetricsEvaluator):
    """An evaluator of embeddings.

    Attributes:
        batch_size, show_progress_bar: for `encode`.
        truncate_dim: keep only the first dimensions.
        encode_options: the form of the embeddings, as arguments of `encode`.
        limit_name: attribute and argument of `encode` that limits the dimensions; None where nothing does.
    """

    config_keys: ClassVar[tuple[str, ...]] = ("truncate_dim",)
    encode_options: ClassVar[dict[str, bool]] = {"convert_to_numpy": True}
    limit_name: ClassVar[str | None] = "truncate_dim"
    batch_size: int
    show_progress_bar: bool | None = None
    truncate_dim: int | None = None

    def embed_inputs(self, model: Encoder, sentences: Texts, **kwargs: Any) -> Any:
        """Texts -> (B, H)."""
        return self._encode(model, sentences, **kwargs)

    def _encode(
        self,
        model: Encoder,
        texts: Texts,
        side: str | None = None,
        show_progress_bar: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Texts, as "query" or "document" where a side is named, through the model with the settings of this one."""
        limit = None if self.limit_name is None else getattr(self, self.limit_name)
        encode = getattr(model, f"encode_{side}") if side else model.encode
        return encode(
            texts,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar if show_progress_bar is None else show_progress_bar,
            **self.encode_options,
            **({} if limit is None else {str(self.limit_name): limit}),
            **kwargs,
        )


class SequentialEvaluator(BaseEvaluator):
    """Several evaluators, one after the other.

    Args:
        evaluators: the evaluators.
        main_score_function: list of their primary metrics -> the primary metric of all, "sequential_score"; by default
            the last one's.
    """

    def __init__(
        self,
        evaluators: Iterable[BaseEvaluator],
        main_score_function: Callable[[list[float]], float] = lambda scores: scores[-1],
    ) -> None:
        super().__init__()
        self.evaluators, self.main_score_function = list(evaluators), main_score_function
        if not self.evaluators:
            raise InputError("SequentialEvaluator needs at least one evaluator.")
        self.primary_metric = "sequential_score"

    def __call__(
        self, model: object, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        metrics: dict[str, float] = {}
        scores = []
        for i, evaluator in enumerate(self.evaluators):
            found: Any = evaluator(model, output_path, epoch, steps)
            if not isinstance(found, dict):
                scores.append(found)
                found = {f"evaluator_{i}": found}
            else:
                scores.append(found.get(getattr(evaluator, "primary_metric", None) or "", next(iter(found.values()))))
            metrics.update(found)
        return metrics | {"sequential_score": self.main_score_function(scores)}


def as_float(value: SupportsFloat | str) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def append_csv(path: str | None, file: str, headers: Sequence[str], row: Sequence[Any]) -> None:
    """Add a row to a CSV file in the folder `path`, with a header if the file is new; in one write."""
    if path is None:
        return
    target = Path(path, file)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = not target.is_file()
    with target.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerows([list(headers), list(row)] if fresh else [list(row)])


def file_name(kind: str, name: str, ending: str = "results") -> str:
    """{kind}[_name]_{ending}.csv"""
    return f"{kind}_{name}_{ending}.csv" if name else f"{kind}_{ending}.csv"


def check_lengths(**columns: Sequence[Any] | np.ndarray) -> None:
    """Raise `InputError` if columns are empty or of different lengths."""
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"Every row needs all columns, got {', '.join(f'{n} of {k}' for k, n in sizes.items())}.")
    if not next(iter(sizes.values())):
        raise InputError(f"There is nothing to evaluate: {', '.join(sizes)} are empty.")


def check_texts(column: str, values: Iterable[Any]) -> None:
    """Raise `InputError` naming the first missing value."""
    for i, value in enumerate(values):
        if value is None:
            raise InputError(f"{column}[{i}] is None; drop such rows first.")


def log_when(epoch: float, steps: int) -> str:
    """When an evaluation is, in words."""
    if epoch == -1:
        return ""
    return f" after epoch {epoch}" if steps == -1 else f" in epoch {epoch} after {steps} steps"
