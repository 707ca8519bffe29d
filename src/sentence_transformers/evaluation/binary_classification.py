"""Does a threshold on the similarity tell pairs that belong together from others?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import Measured, check_lengths, file_name
from sentence_transformers.evaluation.metrics import average_precision, best_accuracy, best_f1, matthews
from sentence_transformers.evaluation.pairs import DISTANCES, SimilaritiesEvaluator, rows_at
from sentence_transformers.protocols import SearchEncoder

KINDS = ("accuracy", "accuracy_threshold", "f1", "precision", "recall", "f1_threshold", "ap", "mcc")  # as in the CSV


class BinaryClassificationEvaluator(SimilaritiesEvaluator):
    """Accuracy, F1 and average precision of similarities as a classifier, at the best thresholds.

    Args:
        sentences1, sentences2: the texts of the pairs.
        labels: 1 for pairs that belong together, 0 for others.
        batch_size, show_progress_bar: for `encode`.
        name: put before the names of the metrics.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        truncate_dim: keep only the first dimensions.
        similarity_fn_names: "cosine", "dot", "euclidean", "manhattan"; default: the model's own. Thresholds of the last
            two are distances.

    Raises:
        InputError: for columns of different lengths, or labels other than 0 and 1.
    """

    primary_kind: ClassVar[str] = "{}_ap"

    def __init__(
        self,
        sentences1: list[str],
        sentences2: list[str],
        labels: list[int],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        similarity_fn_names: list[Literal["cosine", "dot", "euclidean", "manhattan"]] | None = None,
    ) -> None:
        super().__init__()
        check_lengths(sentences1=sentences1, sentences2=sentences2, labels=labels)
        for i, label in enumerate(labels):
            if label not in (0, 1):
                raise InputError(f"labels[{i}] is {label!r}; labels must be 0 or 1.")
        self.sentences1, self.sentences2, self.labels = sentences1, sentences2, labels
        self.name, self.batch_size, self.show_progress_bar = name, batch_size, show_progress_bar
        self.write_csv, self.truncate_dim = write_csv, truncate_dim
        self.similarity_fn_names = similarity_fn_names  # type: ignore[assignment]
        self.csv_file = file_name("binary_classification_evaluation", name)
        self.names()

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> BinaryClassificationEvaluator:
        """The evaluator of a list of `InputExample` of two texts and a label."""
        columns = zip(*((*example.texts[:2], example.label) for example in examples), strict=True)
        return cls(*map(list, columns), **kwargs)  # type: ignore[arg-type]

    def _evaluate(self, model: SearchEncoder) -> Measured:
        names = self.names(model)
        scores = self.compute_metrics(model)
        metrics = {f"{name}_{kind}": value for name, part in scores.items() for kind, value in part.items()}
        if len(scores) > 1:
            metrics |= {f"max_{kind}": max(part[kind] for part in scores.values()) for kind in KINDS}
        return metrics, [scores[name][kind] for name in names for kind in KINDS]

    def headers(self, names: Sequence[str]) -> list[str]:
        return ["epoch", "steps", *(f"{name}_{kind}" for name in names for kind in KINDS)]

    def compute_metrics(self, model: SearchEncoder) -> dict[str, dict[str, float]]:
        """The metrics of each similarity."""
        try:
            texts = list(dict.fromkeys([*self.sentences1, *self.sentences2]))
        except TypeError:  # inputs that are no texts
            texts = [*self.sentences1, *self.sentences2]
        embeddings = self.embed_inputs(model, texts)
        place = {text: i for i, text in enumerate(texts)}
        first, second = (
            rows_at(embeddings, [place[text] for text in column]) for column in (self.sentences1, self.sentences2)
        )
        labels, found = np.asarray(self.labels), {}
        for name in self.names(model):
            scores, similar = self.pair_scores(model, first, second, name), name not in DISTANCES
            sign = 1 if similar else -1
            accuracy, threshold = self.find_best_acc_and_threshold(sign * scores, labels, similar)
            f1, precision, recall, f1_threshold = self.find_best_f1_and_threshold(sign * scores, labels, similar)
            found[name] = {
                "accuracy": accuracy,
                "accuracy_threshold": threshold,
                "f1": f1,
                "f1_threshold": f1_threshold,
                "precision": precision,
                "recall": recall,
                "ap": average_precision(labels, scores),
                "mcc": matthews(labels, scores >= sign * f1_threshold),
            }
        return found

    compute_metrices = compute_metrics

    @staticmethod
    def find_best_acc_and_threshold(
        scores: np.ndarray, labels: np.ndarray, high_score_more_similar: bool
    ) -> tuple[float, float]:
        """The greatest accuracy, and its threshold, of scores or of distances."""
        sign = 1 if high_score_more_similar else -1
        accuracy, threshold = best_accuracy(labels, sign * np.asarray(scores))
        return accuracy, sign * threshold

    @staticmethod
    def find_best_f1_and_threshold(
        scores: np.ndarray, labels: np.ndarray, high_score_more_similar: bool
    ) -> tuple[float, float, float, float]:
        """The greatest F1, its precision, recall and threshold, of scores or of distances."""
        sign = 1 if high_score_more_similar else -1
        found = best_f1(labels, sign * np.asarray(scores))
        return found.f1, found.precision, found.recall, sign * found.threshold
