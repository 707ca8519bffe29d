"""Are the relevant ones among given documents put first?"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from sentence_transformers._deprecation import legacy
from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import EmbeddingEvaluator, Measured
from sentence_transformers.evaluation.metrics import ranking
from sentence_transformers.protocols import SearchEncoder, Texts
from sentence_transformers.similarity import cos_sim
from sentence_transformers.util.tensor import ArrayLike, take_rows, to_tensor

logger = logging.getLogger(__name__)


class RerankingEvaluator(EmbeddingEvaluator):
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

    config_keys = ("at_k", "truncate_dim")
    encode_options: ClassVar[dict[str, bool]] = {"convert_to_tensor": True}

    @legacy(mrr_at_k="at_k")
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

    def _evaluate(self, model: SearchEncoder) -> Measured:
        scores = self.compute_metrics(model)
        metrics = {"map": scores["map"], f"mrr@{self.at_k}": scores["mrr"], f"ndcg@{self.at_k}": scores["ndcg"]}
        return metrics, list(scores.values())

    def compute_metrics(self, model: SearchEncoder) -> dict[str, float]:
        """{"map": …, "mrr": …, "ndcg": …}"""
        return (
            self.compute_metrics_batched(model) if self.use_batched_encoding else self.compute_metrics_individual(model)
        )

    def compute_metrics_batched(self, model: SearchEncoder) -> dict[str, float]:
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

    def compute_metrics_individual(self, model: SearchEncoder) -> dict[str, float]:
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

    def _similarity(self, model: SearchEncoder) -> Callable[[Any, Any], Any]:
        """(q, H), (d, H) -> (q, d)."""
        return self.similarity_fct

    def _scores(self, model: SearchEncoder, query: ArrayLike, documents: ArrayLike) -> np.ndarray:
        scores = to_tensor(self._similarity(model)(query, documents))
        return (scores[0] if scores.dim() > 1 else scores).float().cpu().numpy()

    def _measure(self, scores: list[np.ndarray]) -> dict[str, float]:
        """The metrics of the documents' scores, relevant ones first, of each query."""
        found = [
            ranking(np.arange(len(values)) < len(parts_of(sample)[0]), values, self.at_k)
            for sample, values in zip(self.samples, scores, strict=True)
        ]
        return dict(zip(("map", "mrr", "ndcg"), map(float, np.mean(found, axis=0)), strict=True))

    def embed_inputs(
        self,
        model: SearchEncoder,
        sentences: Texts,
        encode_fn_name: str | None = None,
        show_progress_bar: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Texts of a side -> (B, H)."""
        return self._encode(model, sentences, encode_fn_name, show_progress_bar, **kwargs)


def parts_of(sample: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Relevant and other documents of a sample."""
    return tuple([part] if isinstance(part, str) else list(part) for part in (sample["positive"], sample["negative"]))  # type: ignore[return-value]
