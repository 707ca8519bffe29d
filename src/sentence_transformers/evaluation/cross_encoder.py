"""Do the scores of a cross-encoder tell pairs apart, follow people's scores, put the relevant documents first?

Re-ranking takes one of two forms of samples:

    {"query": …, "positive": [relevant ones], "negative": [others]}           documents without an order
    {"query": …, "positive": [relevant ones], "documents": [as found]}        the ranking of a search, best first

With `documents` the ranking of the search is measured too, as `base_…`. Relevant documents that it did not find are in
last place there; where it found none the query counts 0. The cross-encoder gets them among the documents by default
(`always_rerank_positives`); else it gets what was found, is measured by that alone, and a query without any counts 0.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sentence_transformers._deprecation import legacy
from sentence_transformers.errors import InputError
from sentence_transformers.evaluation import metrics as measures
from sentence_transformers.evaluation.base import BaseEvaluator, Measured, MetricsEvaluator, check_lengths, file_name
from sentence_transformers.evaluation.metrics import ranking
from sentence_transformers.evaluation.nano_beir import NAMES, full_name, load_part, measure_all, some_names, texts_by_id
from sentence_transformers.protocols import Reranker

BINARY = ("accuracy", "accuracy_threshold", "f1", "f1_threshold", "precision", "recall", "average_precision")
CLASSES = ("f1_macro", "f1_micro", "f1_weighted")
CLASS_HEADERS = ("Macro_F1", "Micro_F1", "Weighted_F1")
WITHOUT_BM25 = ("arguana", "touche2020")


class ScoreEvaluator(MetricsEvaluator):
    """An evaluator of scores of pairs."""

    prompt_name: str | None
    batch_size: int
    show_progress_bar: bool | None

    def _predict(self, model: Reranker, pairs: Sequence[Any]) -> np.ndarray:
        """The model's scores of pairs, (N,) or (N, labels)."""
        settings = {"batch_size": self.batch_size, "show_progress_bar": self.show_progress_bar}
        return np.asarray(model.predict(pairs, prompt_name=self.prompt_name, convert_to_numpy=True, **settings))


class PairEvaluator(ScoreEvaluator):
    """What evaluators of given pairs share.

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
        scores = self._predict(model, self.sentence_pairs)
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
        scores, gold = self._predict(model, self.sentence_pairs).reshape(-1), np.asarray(self.scores)
        found = {"pearson": measures.pearson(scores, gold), "spearman": measures.spearman(scores, gold)}
        return found, list(found.values())

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> Any:
        """The evaluator of a list of `InputExample` of two texts and a score."""
        return cls([list(example.texts) for example in examples], [example.label for example in examples], **kwargs)


class CrossEncoderRerankingEvaluator(ScoreEvaluator):
    """MAP, MRR and NDCG of rankings of each query's own documents.

    Args:
        samples: {"query": …, "positive": […], "negative": […]} or {"query": …, "positive": […], "documents": […]} for
            each query.
        at_k: k of MRR and NDCG.
        always_rerank_positives: with `documents`, whether relevant documents that are not among them are ranked too.
        name: put before the names of the metrics.
        prompt_name, batch_size, show_progress_bar: for `predict`.
        write_csv: whether a call with an output folder adds a row to the CSV file.

    Raises:
        InputError: naming the sample, if it has not exactly one of `negative` and `documents`, or no query or positive;
            if none has relevant documents.
    """

    @legacy(mrr_at_k="at_k")
    def __init__(
        self,
        samples: list[dict[str, Any]],
        at_k: int = 10,
        always_rerank_positives: bool = True,
        name: str = "",
        prompt_name: str | None = None,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        super().__init__()
        samples = list(samples.values()) if isinstance(samples, dict) else list(samples)
        for i, sample in enumerate(samples):
            if missing := {"query", "positive"} - sample.keys():
                raise InputError(f"samples[{i}] has no {sorted(missing)}; it has {sorted(sample)}.")
            if ("negative" in sample) == ("documents" in sample):
                raise InputError(
                    f"samples[{i}] needs exactly one of 'negative' and 'documents'; it has {sorted(sample)}."
                )
        if not any(sample["positive"] for sample in samples):
            raise InputError(f"None of the {len(samples)} samples has relevant documents.")
        self.samples, self.at_k, self.name = samples, at_k, name
        self.always_rerank_positives, self.prompt_name = always_rerank_positives, prompt_name
        self.batch_size, self.show_progress_bar, self.write_csv = batch_size, show_progress_bar, write_csv
        self.with_ranking = any("documents" in sample for sample in samples)
        self.csv_file = f"CrossEncoderRerankingEvaluator{'_' + name if name else ''}_results_@{at_k}.csv"
        self.csv_headers = ["epoch", "steps", "MAP", f"MRR@{at_k}", f"NDCG@{at_k}"]
        self.primary_metric = f"ndcg@{at_k}"

    def _evaluate(self, model: Reranker) -> Measured:
        if model.num_labels != 1:
            raise InputError(f"Re-ranking needs one score per pair; this model has num_labels={model.num_labels}.")
        tasks = [Task.of(sample, self.always_rerank_positives) for sample in self.samples]
        pairs = [(task.query, text) for task in tasks for text in task.scored]
        scores = self._predict(model, pairs)
        found, start = [], 0
        for task in tasks:
            found.append(self.compute_metrics(task.labels, scores[start : start + len(task.scored)]))
            start += len(task.scored)
        metrics = self._means(found)
        row = list(metrics.values())
        if self.with_ranking:
            base = [self.compute_metrics(*task.as_found()) for task in tasks if task.found is not None]
            metrics |= {f"base_{key}": value for key, value in self._means(base).items()}
        return metrics, row

    def _means(self, found: list[tuple[float, float, float]]) -> dict[str, float]:
        keys = ("map", f"mrr@{self.at_k}", f"ndcg@{self.at_k}")
        return dict(zip(keys, map(float, np.mean(found, axis=0)), strict=True))

    def compute_metrics(
        self, y_true: Sequence[float] | np.ndarray, y_pred: Sequence[float] | np.ndarray
    ) -> tuple[float, float, float]:
        """Labels and scores of the documents of one query -> (MAP, MRR, NDCG)."""
        labels, scores = np.asarray(y_true), np.asarray(y_pred, np.float64)
        if not labels.any():
            return 0.0, 0.0, 0.0
        return ranking(labels, scores, self.at_k)

    def get_config_dict(self) -> dict[str, Any]:
        config: dict[str, Any] = {"at_k": self.at_k}
        return config | ({"always_rerank_positives": self.always_rerank_positives} if self.with_ranking else {})


@dataclass(frozen=True)
class Task:
    """What is to be ranked for one query.

    Attributes:
        query: the query.
        scored: the documents that the model scores.
        labels: 1 for the relevant of them, else 0.
        found: 1 and 0 of the documents in the order of a search; None without one.
        missing: number of relevant documents that the search did not find.
    """

    query: str
    scored: list[str]
    labels: list[int]
    found: list[int] | None = None
    missing: int = 0

    @classmethod
    def of(cls, sample: dict[str, Any], always: bool) -> Task:
        """The task of a sample; without relevant documents, or without any that may be ranked, nothing is scored."""
        positive, query = texts_in(sample["positive"]), sample["query"]
        if "documents" not in sample:
            others = texts_in(sample["negative"]) if positive else []
            return cls(query, positive + others, [1] * len(positive) + [0] * len(others))
        documents, relevant = texts_in(sample["documents"]), set(positive)
        found = [int(text in relevant) for text in documents]
        missing = len([text for text in positive if text not in set(documents)])
        if not always:
            return cls(query, documents if any(found) else [], found if any(found) else [], found, missing)
        others = [text for text in documents if text not in relevant] if positive else []
        return cls(query, positive + others, [1] * len(positive) + [0] * len(others), found, missing)

    def as_found(self) -> tuple[list[int], np.ndarray]:
        """Labels and scores of the search's ranking, with what it did not find in last place."""
        labels = self.found or []
        labels = labels + [1] * self.missing if any(labels) else []
        return labels, -np.arange(len(labels), dtype=np.float64)


def texts_in(part: str | Iterable[str]) -> list[str]:
    return [part] if isinstance(part, str) else list(part)


class CrossEncoderNanoBEIREvaluator(BaseEvaluator):
    """`CrossEncoderRerankingEvaluator` of what BM25 found in each data set of NanoBEIR, and the mean over all.

    Args:
        dataset_names: names as "msmarco", "nq"; default: all but arguana and touche2020.
        dataset_id: hub id of the collection, or a local folder as `NanoBEIREvaluator` reads it, with a part `bm25`
            whose columns are `query-id` and `corpus-ids`.
        rerank_k: documents of BM25's ranking that are ranked anew.
        at_k: k of MRR and NDCG.
        always_rerank_positives: whether relevant documents that BM25 did not find are ranked too.
        prompt_name, batch_size, show_progress_bar: for `predict`.
        write_csv: whether a call with an output folder adds rows to the CSV files.
        aggregate_fn: list of values -> value over all data sets.
        aggregate_key: its name.

    Raises:
        InputError: for unknown names, or a folder without one of the data sets.
        MissingExtraError: if the `datasets` package is not installed.
    """

    config_keys = ("dataset_names", "dataset_id", "rerank_k", "at_k", "always_rerank_positives")

    def __init__(
        self,
        dataset_names: list[str] | None = None,
        dataset_id: str = "sentence-transformers/NanoBEIR-en",
        rerank_k: int = 100,
        at_k: int = 10,
        always_rerank_positives: bool = True,
        prompt_name: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        aggregate_fn: Callable[[list[float]], float] = np.mean,  # type: ignore[assignment]
        aggregate_key: str = "mean",
    ) -> None:
        super().__init__()
        every = [name for name in NAMES if name not in WITHOUT_BM25]
        names = every if dataset_names is None else some_names(dataset_names)
        self.dataset_names, self.dataset_id, self.rerank_k, self.at_k = names, dataset_id, rerank_k, at_k
        self.always_rerank_positives, self.prompt_name = always_rerank_positives, prompt_name
        self.batch_size, self.show_progress_bar, self.write_csv = batch_size, show_progress_bar, write_csv
        self.aggregate_fn, self.aggregate_key = aggregate_fn, aggregate_key
        self.name = f"NanoBEIR_R{rerank_k}_{aggregate_key}"
        self.csv_file = f"NanoBEIR_evaluation_{aggregate_key}_results.csv"
        self.csv_headers = ["epoch", "steps", "MAP", f"MRR@{at_k}", f"NDCG@{at_k}"]
        self.primary_metric = f"ndcg@{at_k}"
        self.evaluators = [self._evaluator(name) for name in names]

    def _evaluator(self, name: str) -> CrossEncoderRerankingEvaluator:
        """The re-ranking evaluator of one data set."""
        folder = full_name(name)
        parts = ("corpus", "queries", "qrels", "bm25")
        corpus, queries, qrels, found = (load_part(self.dataset_id, part, folder) for part in parts)
        documents, questions = texts_by_id(corpus), texts_by_id(queries)
        relevant: dict[str, list[str]] = {}
        for row in qrels:
            ids = row["corpus-id"]
            relevant.setdefault(row["query-id"], []).extend([ids] if isinstance(ids, str) else ids)
        samples = [
            {
                "query": questions[row["query-id"]],
                "positive": [documents[one] for one in relevant.get(row["query-id"], [])],
                "documents": [documents[one] for one in row["corpus-ids"][: self.rerank_k]],
            }
            for row in found
        ]
        return CrossEncoderRerankingEvaluator(
            samples,
            self.at_k,
            self.always_rerank_positives,
            f"{folder}_R{self.rerank_k}",
            self.prompt_name,
            self.batch_size,
            self.show_progress_bar,
            self.write_csv,
        )

    def __call__(
        self,
        model: Reranker,
        output_path: str | None = None,
        epoch: int = -1,
        steps: int = -1,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, float]:
        every, overall = measure_all(self, model, output_path, epoch, steps)
        row = (overall[key] for key in ("map", f"mrr@{self.at_k}", f"ndcg@{self.at_k}"))
        return every | self._report(model, (overall, row), output_path, epoch, steps)


class OlderName:
    """Warns that its newer name is that of the class it inherits from."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        newer = next(base.__name__ for base in type(self).__mro__ if base.__name__.startswith("CrossEncoder"))
        warnings.warn(f"{type(self).__name__} is now {newer}.", DeprecationWarning, stacklevel=2)
        super().__init__(*args, **kwargs)

    @property
    def description(self) -> str:
        """The older kind in words: "Cross Encoder Binary Accuracy"."""
        name = type(self).__name__.removeprefix("CE").removesuffix("Evaluator")
        return "Cross Encoder " + re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


class CEBinaryAccuracyEvaluator(OlderName, CrossEncoderClassificationEvaluator):
    """Older name of `CrossEncoderClassificationEvaluator`."""


class CEBinaryClassificationEvaluator(OlderName, CrossEncoderClassificationEvaluator):
    """Older name of `CrossEncoderClassificationEvaluator`."""


class CEF1Evaluator(OlderName, CrossEncoderClassificationEvaluator):
    """Older name of `CrossEncoderClassificationEvaluator`."""


class CESoftmaxAccuracyEvaluator(OlderName, CrossEncoderClassificationEvaluator):
    """Older name of `CrossEncoderClassificationEvaluator`."""


class CECorrelationEvaluator(OlderName, CrossEncoderCorrelationEvaluator):
    """Older name of `CrossEncoderCorrelationEvaluator`."""


class CERerankingEvaluator(OlderName, CrossEncoderRerankingEvaluator):
    """Older name of `CrossEncoderRerankingEvaluator`."""
