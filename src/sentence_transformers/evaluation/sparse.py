"""Evaluators of sparse encoders: those of dense models, and how sparse the vectors are.

    evaluator = SparseInformationRetrievalEvaluator(queries, corpus, relevant_docs)
    evaluator(model)     {"dot_ndcg@10": …, "query_active_dims": 31.5, "corpus_sparsity_ratio": 0.997, "avg_flops": 1.2}

active_dims is the mean number of entries other than 0 of a vector, sparsity_ratio the share of the others, avg_flops
the mean number of products of one query and one document by an inverted index:

    avg_flops = Σ_j p_q(j) · p_d(j),      p(j) the share of vectors in which dimension j is active

The constructors are those of the dense twins with `max_active_dims`, the most active dimensions that `encode` keeps, in
the place of `truncate_dim`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from sentence_transformers.evaluation.base import EmbeddingEvaluator
from sentence_transformers.evaluation.binary_classification import BinaryClassificationEvaluator
from sentence_transformers.evaluation.embedding_similarity import EmbeddingSimilarityEvaluator
from sentence_transformers.evaluation.information_retrieval import InformationRetrievalEvaluator
from sentence_transformers.evaluation.mse import MSEEvaluator
from sentence_transformers.evaluation.nano_beir import NanoBEIREvaluator
from sentence_transformers.evaluation.reranking import RerankingEvaluator
from sentence_transformers.evaluation.translation import TranslationEvaluator
from sentence_transformers.evaluation.triplet import TripletEvaluator
from sentence_transformers.protocols import Encoder, SearchEncoder, Texts
from sentence_transformers.util.tensor import compute_count_vector

LIMIT, DENSE_LIMIT = "max_active_dims", "truncate_dim"
DENSE_ONLY = ("self", "precision")  # arguments of the dense twins that sparse vectors do not have


class Activity:
    """Which dimensions are active in the vectors seen so far."""

    def __init__(self, counts: np.ndarray, rows: int) -> None:
        self.counts, self.rows = counts, rows

    @classmethod
    def of(cls, embeddings: Tensor) -> Activity:
        """That of vectors (N, V)."""
        return cls(compute_count_vector(embeddings).cpu().numpy().astype(np.int64), len(embeddings))

    def __add__(self, other: Activity) -> Activity:
        return Activity(self.counts + other.counts, self.rows + other.rows)

    def measures(self) -> dict[str, float]:
        """active_dims and sparsity_ratio."""
        active = float(self.counts.sum()) / self.rows
        return {"active_dims": active, "sparsity_ratio": 1 - active / len(self.counts)}


def average_flops(queries: Activity, documents: Activity) -> float:
    """Σ_j p_q(j) · p_d(j)"""
    return float((queries.counts / queries.rows) @ (documents.counts / documents.rows))


def with_limit(dense: type) -> inspect.Signature:
    """The constructor of a dense evaluator, with `max_active_dims` in the place of `truncate_dim`."""
    own = inspect.signature(dense.__init__)  # type: ignore[misc]
    parameters = [
        one.replace(name=LIMIT if one.name == DENSE_LIMIT else one.name)
        for one in own.parameters.values()
        if one.name not in DENSE_ONLY
    ]
    return own.replace(parameters=parameters)


class SparseEvaluator(EmbeddingEvaluator):
    """What sparse evaluators add to their dense twins, which come second among their bases.

    Attributes:
        max_active_dims: most active dimensions that are kept.
    """

    encode_options: ClassVar[dict[str, bool]] = {"convert_to_sparse_tensor": True, "save_to_cpu": True}
    limit_name = LIMIT
    max_active_dims: int | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__signature__ = with_limit(cls.__bases__[1])  # type: ignore[attr-defined]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        older = {key: kwargs.pop(key) for key in ("mrr_at_k", "main_distance_function") if self._is_older(key, kwargs)}
        arguments = dict(type(self).__signature__.bind(*args, **kwargs).arguments)  # type: ignore[attr-defined]
        self.max_active_dims = arguments.pop(LIMIT, None)
        self._seen: dict[str, Activity] = {}
        self._calls = 0
        super().__init__(**arguments, **older)  # type: ignore[call-arg]

    def _is_older(self, key: str, kwargs: dict[str, Any]) -> bool:
        """Whether an argument is an older name, which the dense twin's constructor translates."""
        return key in kwargs and key not in type(self).__signature__.parameters  # type: ignore[attr-defined]

    def __call__(
        self, model: SearchEncoder, output_path: str | None = None, epoch: int = -1, steps: int = -1, **kwargs: Any
    ) -> dict[str, float]:
        self._seen, self._calls = {}, 0
        return super().__call__(model, output_path, epoch, steps, **kwargs)  # type: ignore[return-value]

    def _encode(self, model: Encoder, texts: Texts, side: str | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Texts -> sparse COO tensor (N, V) on the CPU; its activity is added to what has been seen of their side."""
        rows = super()._encode(model, texts, side, *args, **kwargs)
        name, found = self._side(side), Activity.of(rows)
        self._calls += 1
        self._seen[name] = self._seen[name] + found if name in self._seen else found
        return rows

    def _side(self, side: str | None) -> str:
        return {"query": "query_", "document": "corpus_"}.get(side or "", "")

    def sparsity_metrics(self) -> dict[str, float]:
        """The measures of the vectors of this call."""
        return {f"{side}{key}": value for side, one in self._seen.items() for key, value in one.measures().items()}

    @property
    def sparsity_stats(self) -> dict[str, float]:
        """The measures of sparsity of the last call."""
        return self.sparsity_metrics()

    def write_row(self, output_path: str | None, headers: Sequence[str], row: Sequence[Any]) -> None:
        found = self.sparsity_metrics()
        super().write_row(output_path, [*headers, *found], [*row, *found.values()])

    def prefix_name_to_metrics(self, metrics: dict[str, float], name: str) -> dict[str, float]:
        return super().prefix_name_to_metrics(metrics | self.sparsity_metrics(), name)

    def get_config_dict(self) -> dict[str, Any]:
        limit = {} if self.max_active_dims is None else {LIMIT: self.max_active_dims}
        return super().get_config_dict() | limit


class SparseBinaryClassificationEvaluator(SparseEvaluator, BinaryClassificationEvaluator):
    """`BinaryClassificationEvaluator` of sparse vectors."""


class SparseEmbeddingSimilarityEvaluator(SparseEvaluator, EmbeddingSimilarityEvaluator):
    """`EmbeddingSimilarityEvaluator` of sparse vectors."""


class SparseMSEEvaluator(SparseEvaluator, MSEEvaluator):
    """`MSEEvaluator` of sparse vectors: a sparse teacher and a sparse student."""


class SparseTranslationEvaluator(SparseEvaluator, TranslationEvaluator):
    """`TranslationEvaluator` of sparse vectors."""


class SparseRerankingEvaluator(SparseEvaluator, RerankingEvaluator):
    """`RerankingEvaluator` of sparse vectors; sparsity of queries and documents."""


class SparseTripletEvaluator(SparseEvaluator, TripletEvaluator):
    """`TripletEvaluator` of sparse vectors; sparsity of anchors, positives and negatives."""

    columns = ("anchor_", "positive_", "negative_")

    def _side(self, side: str | None) -> str:
        return self.columns[self._calls % len(self.columns)]


class SparseInformationRetrievalEvaluator(SparseEvaluator, InformationRetrievalEvaluator):
    """`InformationRetrievalEvaluator` of sparse vectors, by an inverted index; sparsity of both sides, and FLOPS."""

    def sparsity_metrics(self) -> dict[str, float]:
        found = super().sparsity_metrics()
        if {"query_", "corpus_"} <= self._seen.keys():
            found["avg_flops"] = average_flops(self._seen["query_"], self._seen["corpus_"])
        return found


class SparseNanoBEIREvaluator(NanoBEIREvaluator):
    """`NanoBEIREvaluator` of sparse vectors; measures of sparsity are averaged as the others are.

    Args:
        max_active_dims: most active dimensions that are kept.
        others: see `NanoBEIREvaluator`.
    """

    information_retrieval_class = SparseInformationRetrievalEvaluator
    limit_name = LIMIT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        arguments = dict(type(self).__signature__.bind(*args, **kwargs).arguments)
        self.max_active_dims = arguments.pop(LIMIT, None)
        super().__init__(**arguments, truncate_dim=self.max_active_dims)

    __signature__: ClassVar[Any] = with_limit(NanoBEIREvaluator)
