"""Do two rankings together find more than either: reciprocal rank fusion of a dense and a sparse model's documents.

The fused score of a document is Σ 1 / (k + rank) over the rankings that have it (`search.fusion`). Relevant documents
that a ranking lacks count as standing behind all others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import BaseEvaluator, file_name
from sentence_transformers.evaluation.metrics import ranking
from sentence_transformers.search.fusion import reciprocal_rank_fusion
from sentence_transformers.util.atomic import replacing

SAMPLE = ("query_id", "query", "positive", "documents")


class ReciprocalRankFusionEvaluator(BaseEvaluator):
    """MAP, MRR and NDCG of two rankings of the same queries, and of both fused. It is called without a model.

    Args:
        dense_samples, sparse_samples: {"query_id": …, "query": …, "positive": [relevant documents], "documents":
            [documents, best first]} for each query, the same queries in the same order.
        at_k: k of MRR and NDCG.
        rrf_k: k of the fusion.
        name: put before the names of the metrics.
        batch_size, show_progress_bar: kept for compatibility; nothing is encoded here.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        write_predictions: also write the fused rankings, as JSON lines, into the output folder.

    Raises:
        InputError: if the samples are not of the same queries, or lack an entry.
    """

    config_keys = ("at_k", "rrf_k", "write_predictions")

    def __init__(
        self,
        dense_samples: list[dict[str, Any]],
        sparse_samples: list[dict[str, Any]],
        at_k: int = 10,
        rrf_k: int = 60,
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        write_predictions: bool = False,
    ) -> None:
        super().__init__()
        self.dense_samples, self.sparse_samples = list(dense_samples), list(sparse_samples)
        self._check()
        self.at_k, self.rrf_k, self.name = at_k, rrf_k, name
        self.batch_size, self.show_progress_bar = batch_size, show_progress_bar
        self.write_csv, self.write_predictions = write_csv, write_predictions
        self.csv_file = file_name("ReciprocalRankFusion_evaluation", name)
        self.predictions_file = file_name("ReciprocalRankFusion_evaluation", name, "predictions").replace(
            ".csv", ".jsonl"
        )
        rankings = ("Dense", "Sparse", "Fusion")
        kinds = ("MAP", f"MRR@{at_k}", f"NDCG@{at_k}")
        self.csv_headers = [
            "epoch",
            "steps",
            *(f"{one}_{kind}" for one in rankings for kind in kinds),
        ]
        self.primary_metric = f"ndcg@{at_k}"

    def _check(self) -> None:
        dense, sparse = self.dense_samples, self.sparse_samples
        if len(dense) != len(sparse):
            raise InputError(
                f"Dense samples ({len(dense)}) and sparse samples ({len(sparse)}) must have the same length."
            )
        if not dense:
            raise InputError("There are no samples to evaluate.")
        for i, pair in enumerate(zip(dense, sparse, strict=True)):
            for side, sample in zip(("dense", "sparse"), pair, strict=True):
                if missing := [key for key in SAMPLE if key not in sample]:
                    raise InputError(f"{side}_samples[{i}] has no {missing}; it has {sorted(sample)}.")
            if pair[0]["query_id"] != pair[1]["query_id"]:
                raise InputError(f"Query ID mismatch at index {i}: {pair[0]['query_id']} != {pair[1]['query_id']}.")

    def __call__(  # type: ignore[override]
        self, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        fused = self.fused_samples()
        metrics: dict[str, float] = {}
        for prefix, samples in (("dense_", self.dense_samples), ("sparse_", self.sparse_samples), ("", fused)):
            for key, value in self._measure(samples).items():
                metrics[f"{prefix}{key}"] = value
        if self.write_predictions and output_path is not None:
            lines = [json.dumps({key: sample[key] for key in SAMPLE}, ensure_ascii=False) for sample in fused]
            Path(output_path).mkdir(parents=True, exist_ok=True)
            with replacing(Path(output_path, self.predictions_file)) as fresh:
                fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self._report(None, (metrics, list(metrics.values())), output_path, epoch, steps)

    def fused_samples(self) -> list[dict[str, Any]]:
        """The samples with the documents of both rankings, fused."""
        rows = []
        for dense, sparse in zip(self.dense_samples, self.sparse_samples, strict=True):
            ranked = reciprocal_rank_fusion([dense["documents"], sparse["documents"]], self.rrf_k)
            relevant = list(dict.fromkeys([*dense["positive"], *sparse["positive"]]))
            rows.append({**dense, "positive": relevant, "documents": [document for document, _ in ranked]})
        return rows

    def _measure(self, samples: list[dict[str, Any]]) -> dict[str, float]:
        """The mean metrics of rankings."""
        found = []
        for sample in samples:
            relevant = dict.fromkeys(sample["positive"])
            labels = [document in relevant for document in sample["documents"]]
            behind = len(relevant) - sum(labels)
            scores = [1 / (rank + 1) for rank in range(len(labels))] + [0.0] * behind
            found.append(self.compute_metrics(labels + [True] * behind, scores))
        maps, mrrs, ndcgs = zip(*found, strict=True)
        means = (float(np.mean(values)) for values in (maps, mrrs, ndcgs))
        return dict(zip(("map", f"mrr@{self.at_k}", f"ndcg@{self.at_k}"), means, strict=True))

    def compute_metrics(self, y_true: Sequence[bool], y_pred: Sequence[float]) -> tuple[float, float, float]:
        """(AP, reciprocal rank, NDCG) of one query's documents.

        Args:
            y_true: whether each is relevant.
            y_pred: their scores.
        """
        labels, scores = np.asarray(y_true, bool), np.asarray(y_pred, np.float64)
        if not labels.any() or not np.any(scores[labels]):
            return 0.0, 0.0, 0.0
        return ranking(labels, scores, self.at_k)
