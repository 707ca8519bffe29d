"""Do the scores of a cross-encoder tell pairs apart, or follow people's scores?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.evaluation import metrics as measures
from sentence_transformers.evaluation.base import Measured, MetricsEvaluator, check_lengths, file_name
from sentence_transformers.protocols import Reranker

BINARY = ("accuracy", "accuracy_threshold", "f1", "f1_threshold", "precision", "recall", "average_precision")
CLASSES = ("f1_macro", "f1_micro", "f1_weighted")
CLASS_HEADERS = ("Macro_F1", "Micro_F1", "Weighted_F1")


class PairEvaluator(MetricsEvaluator):
    """What evaluators of scored pairs share.

    Args:
        sentence_pairs: the pairs of texts.
        name: put before the names of the metrics.
        prompt_name, batch_size, show_progress_bar: for `predict`.
        write_csv: whether a call with an output folder adds a row to the CSV file.
    """

    def __init__(
        self,
        sentence_pairs: Sequence[Any],
        name: str,
        prompt_name: str | None,
        batch_size: int,
        show_progress_bar: bool | None,
        write_csv: bool,
    ) -> None:
        super().__init__()
        for i, pair in enumerate(sentence_pairs):
            if isinstance(pair, str) or len(pair) != 2:
                raise InputError(f"sentence_pairs[{i}] is {pair!r:.80}; expected two texts.")
        self.sentence_pairs, self.name, self.prompt_name = sentence_pairs, name, prompt_name
        self.batch_size, self.show_progress_bar, self.write_csv = batch_size, show_progress_bar, write_csv

    def predict(self, model: Reranker) -> np.ndarray:
        """The model's scores, (N,) or (N, labels)."""
        return np.asarray(
            model.predict(
                self.sentence_pairs,
                prompt_name=self.prompt_name,
                batch_size=self.batch_size,
                show_progress_bar=self.show_progress_bar,
                convert_to_numpy=True,
            )
        )


class CrossEncoderClassificationEvaluator(PairEvaluator):
    """How well the scores classify pairs.

    With one score per pair: accuracy and F1 at their best thresholds, and average precision, of labels 0 and 1. With
    several: F1 of the class with the highest score, as mean over the classes (macro), over all pairs (micro) and over
    the classes by their frequency (weighted).

    Args:
        sentence_pairs: the pairs of texts.
        labels: their classes.
        name: put before the names of the metrics.
        prompt_name, batch_size, show_progress_bar: for `predict`.
        write_csv: whether a call with an output folder adds a row to the CSV file.

    Raises:
        InputError: for columns of different lengths, a pair that is none, or, when called, labels that the model's
            number of scores does not allow.
    """

    def __init__(
        self,
        sentence_pairs: list[list[str]],
        labels: list[int],
        *,
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        write_csv: bool = True,
        **kwargs: Any,
    ) -> None:
        check_lengths(sentence_pairs=sentence_pairs, labels=labels)
        super().__init__(sentence_pairs, name, prompt_name, batch_size, show_progress_bar, write_csv)
        self.labels = np.asarray(labels)
        self.csv_file = file_name("CrossEncoderClassificationEvaluator", name)

    def _evaluate(self, model: Reranker) -> Measured:
        count = model.num_labels
        if (wrong := np.flatnonzero((self.labels < 0) | (self.labels >= max(count, 2)))).size:
            raise InputError(
                f"labels[{wrong[0]}] is {self.labels[wrong[0]]}, but the model has num_labels={count}: "
                f"labels must be from 0 to {max(count, 2) - 1}."
            )
        scores = self.predict(model)
        if count == 1:
            found, self.primary_metric = self._binary(scores.reshape(-1)), "average_precision"
            self.csv_headers = ["epoch", "steps", *(key.title() for key in BINARY)]
        else:
            values = measures.f1_of_classes(self.labels, scores.argmax(1))
            found, self.primary_metric = dict(zip(CLASSES, values, strict=True)), "f1_macro"
            self.csv_headers = ["epoch", "steps", *CLASS_HEADERS]
        return found, list(found.values())

    def _binary(self, scores: np.ndarray) -> dict[str, float]:
        accuracy, threshold = measures.best_accuracy(self.labels, scores)
        f1 = measures.best_f1(self.labels, scores)
        average = measures.average_precision(self.labels, scores)
        return dict(
            zip(BINARY, (accuracy, threshold, f1.f1, f1.threshold, f1.precision, f1.recall, average), strict=True)
        )

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> Any:
        """The evaluator of a list of `InputExample` of two texts and a class."""
        return cls([list(example.texts) for example in examples], [example.label for example in examples], **kwargs)


class CrossEncoderCorrelationEvaluator(PairEvaluator):
    """Pearson and Spearman correlation of the model's scores with given ones.

    Args:
        sentence_pairs: the pairs of texts.
        scores: the scores to compare with.
        name: put before the names of the metrics.
        prompt_name, batch_size, show_progress_bar: for `predict`.
        write_csv: whether a call with an output folder adds a row to the CSV file.

    Raises:
        InputError: for columns of different lengths, or a pair that is none.
    """

    def __init__(
        self,
        sentence_pairs: list[list[str]],
        scores: list[float],
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        write_csv: bool = True,
    ) -> None:
        check_lengths(sentence_pairs=sentence_pairs, scores=scores)
        super().__init__(sentence_pairs, name, prompt_name, batch_size, show_progress_bar, write_csv)
        self.scores = scores
        self.csv_file = file_name("CrossEncoderCorrelationEvaluator", name)
        self.csv_headers = ["epoch", "steps", "Pearson_Correlation", "Spearman_Correlation"]
        self.primary_metric = "spearman"

    def _evaluate(self, model: Reranker) -> Measured:
        if model.num_labels != 1:
            raise InputError(f"Correlation needs one score per pair; this model has num_labels={model.num_labels}.")
        scores, gold = self.predict(model).reshape(-1), np.asarray(self.scores)
        found = {"pearson": measures.pearson(scores, gold), "spearman": measures.spearman(scores, gold)}
        return found, list(found.values())

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> Any:
        """The evaluator of a list of `InputExample` of two texts and a score."""
        return cls([list(example.texts) for example in examples], [example.label for example in examples], **kwargs)
