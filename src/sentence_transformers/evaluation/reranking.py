"""Are the relevant ones among given documents put first?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from sentence_transformers._deprecation import renamed
from sentence_transformers.errors import InputError
from sentence_transformers.evaluation import metrics as measures
from sentence_transformers.evaluation.base import BaseEvaluator
from sentence_transformers.evaluation.embedding_similarity import truncation
from sentence_transformers.evaluation.triplet import side_of
from sentence_transformers.similarity import cos_sim
from sentence_transformers.util.tensor import take_rows, to_tensor

logger = logging.getLogger(__name__)


class RerankingEvaluator(BaseEvaluator):
    """MAP, MRR and NDCG of rankings of each query's own documents.

    Args:
        samples: {"query": …, "positive": [relevant documents], "negative": [others]} for each query; samples without
            either are left out.
        at_k: k of MRR and NDCG.
        name: put before the names of the metrics.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        similarity_fct: (q, H), (d, H) -> (q, d).
        batch_size, show_progress_bar: for `encode`.
        use_batched_encoding: encode all queries and documents together, or query by query to save memory.
        truncate_dim: keep only the first dimensions.

    Raises:
        InputError: if no sample has relevant and other documents.
    """

    @renamed(mrr_at_k="at_k")
    def __init__(
        self,
        samples: list[dict[str, Any]],
        at_k: int = 10,
        name: str = "",
        write_csv: bool = True,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        batch_size: int = 64,
        show_progress_bar: bool = False,
        use_batched_encoding: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__()
        samples = list(samples.values()) if isinstance(samples, dict) else list(samples)
        for i, sample in enumerate(samples):
            if missing := {"query", "positive", "negative"} - sample.keys():
                raise InputError(f"samples[{i}] has no {sorted(missing)}; it has {sorted(sample)}.")
        self.samples = [sample for sample in samples if sample["positive"] and sample["negative"]]
        if not self.samples:
            raise InputError(f"None of the {len(samples)} samples has both relevant and other documents.")
        self.at_k, self.name, self.write_csv, self.similarity_fct = at_k, name, write_csv, similarity_fct
        self.batch_size, self.show_progress_bar = batch_size, show_progress_bar
        self.use_batched_encoding, self.truncate_dim = use_batched_encoding, truncate_dim
        self.csv_file = f"RerankingEvaluator{'_' + name if name else ''}_results_@{at_k}.csv"
        self.csv_headers = ["epoch", "steps", "MAP", f"MRR@{at_k}", f"NDCG@{at_k}"]
        self.primary_metric = f"ndcg@{at_k}"

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        scores = self.compute_metrics(model)
        if self.write_csv:
            self.write_row(output_path, self.csv_headers, [epoch, steps, *scores.values()])
        metrics = {"map": scores["map"], f"mrr@{self.at_k}": scores["mrr"], f"ndcg@{self.at_k}": scores["ndcg"]}
        metrics = self.prefix_name_to_metrics(metrics, self.name)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    def compute_metrics(self, model: Any) -> dict[str, float]:
        """{"map": …, "mrr": …, "ndcg": …}"""
        return (
            self.compute_metrics_batched(model) if self.use_batched_encoding else self.compute_metrics_individual(model)
        )

    def compute_metrics_batched(self, model: Any) -> dict[str, float]:
        """The metrics, everything encoded together."""
        queries = self.embed_inputs(model, [sample["query"] for sample in self.samples], encode_fn_name="query")
        documents = self.embed_inputs(
            model,
            [text for sample in self.samples for part in parts_of(sample) for text in part],
            encode_fn_name="document",
        )
        scores, start = [], 0
        for i, sample in enumerate(self.samples):
            stop = start + sum(map(len, parts_of(sample)))
            scores.append(self._scores(model, take_rows(queries, i, i + 1), take_rows(documents, start, stop)))
            start = stop
        return self._measure(scores)

    def compute_metrics_individual(self, model: Any) -> dict[str, float]:
        """The metrics, encoded query by query."""
        scores = []
        for sample in self.samples:
            documents = [text for part in parts_of(sample) for text in part]
            query, found = (
                self.embed_inputs(model, texts, encode_fn_name=side, show_progress_bar=False)
                for side, texts in (("query", [sample["query"]]), ("document", documents))
            )
            scores.append(self._scores(model, query, found))
        return self._measure(scores)

    compute_metrices = compute_metrics
    compute_metrices_batched = compute_metrics_batched
    compute_metrices_individual = compute_metrics_individual

    def _similarity(self, model: Any) -> Callable[[Any, Any], Any]:
        """(q, H), (d, H) -> (q, d)."""
        return self.similarity_fct

    def _scores(self, model: Any, query: Any, documents: Any) -> np.ndarray:
        scores = to_tensor(self._similarity(model)(query, documents))
        return (scores[0] if scores.dim() > 1 else scores).float().cpu().numpy()

    def _measure(self, scores: list[np.ndarray]) -> dict[str, float]:
        """The metrics of the documents' scores, relevant ones first, of each query."""
        found: dict[str, list[float]] = {"map": [], "mrr": [], "ndcg": []}
        for sample, values in zip(self.samples, scores, strict=True):
            count = len(parts_of(sample)[0])
            labels = np.arange(len(values)) < count
            relevant = labels[np.argsort(-values, kind="stable")][None]
            found["map"].append(measures.average_precision(labels, values))
            found["mrr"].append(float(measures.reciprocal_rank_at(relevant, self.at_k)[0]))
            found["ndcg"].append(ndcg_with_ties(labels, values, self.at_k))
        return {name: float(np.mean(values)) for name, values in found.items()}

    def embed_inputs(
        self,
        model: Any,
        sentences: Any,
        encode_fn_name: str | None = None,
        show_progress_bar: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Texts of a side -> (B, H)."""
        return side_of(model, encode_fn_name)(
            sentences,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar if show_progress_bar is None else show_progress_bar,
            convert_to_tensor=True,
            **truncation(self.truncate_dim),
            **kwargs,
        )

    def get_config_dict(self) -> dict[str, Any]:
        settings = {"at_k": self.at_k, "truncate_dim": self.truncate_dim}
        return {key: value for key, value in settings.items() if value is not None}


def parts_of(sample: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Relevant and other documents of a sample."""
    return tuple([part] if isinstance(part, str) else list(part) for part in (sample["positive"], sample["negative"]))  # type: ignore[return-value]


def ndcg_with_ties(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """NDCG of the first k; documents of equal score share the mean gain of their places. McSherry & Najork 2008."""
    discounts = np.where(np.arange(len(scores)) < k, 1 / np.log2(np.arange(2, len(scores) + 2)), 0.0)
    _, inverse, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    gains = np.bincount(inverse, labels.astype(np.float64)) / counts
    ends = counts.cumsum()
    totals = np.append(0, discounts.cumsum())
    ideal = (np.sort(labels)[::-1] * discounts).sum()
    return float((gains * (totals[ends] - totals[ends - counts])).sum() / ideal) if ideal else 0.0
