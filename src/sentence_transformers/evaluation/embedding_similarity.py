"""Do similarities order pairs as people do? Spearman and Pearson correlation with gold scores."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import Measured, check_lengths, file_name
from sentence_transformers.evaluation.metrics import pearson, spearman
from sentence_transformers.evaluation.pairs import SimilaritiesEvaluator
from sentence_transformers.protocols import SearchEncoder, Texts
from sentence_transformers.similarity import SimilarityFunction

logger = logging.getLogger(__name__)

KINDS = ("pearson", "spearman")


class EmbeddingSimilarityEvaluator(SimilaritiesEvaluator):
    """Correlation of similarities with gold scores.

    Args:
        sentences1, sentences2: the texts of the pairs.
        scores: the gold scores, greater for more alike.
        batch_size, show_progress_bar: for `encode`.
        main_similarity: the similarity of the primary metric; reported in any case.
        similarity_fn_names: "cosine", "dot", "euclidean", "manhattan"; default: the main one, else the model's own.
        name: put before the names of the metrics.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        precision: of the embeddings, as in `encode`.
        truncate_dim: keep only the first dimensions.

    Raises:
        InputError: for columns of different lengths, or scores that are NaN.
    """

    config_keys = ("truncate_dim", "precision")
    primary_kind: ClassVar[str] = "spearman_{}"

    def __init__(
        self,
        sentences1: list[str],
        sentences2: list[str],
        scores: list[float],
        batch_size: int = 16,
        main_similarity: str | SimilarityFunction | None = None,
        similarity_fn_names: list[Literal["cosine", "euclidean", "manhattan", "dot"]] | None = None,
        name: str = "",
        show_progress_bar: bool = False,
        write_csv: bool = True,
        precision: Literal["float32", "int8", "uint8", "binary", "ubinary"] | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_lengths(sentences1=sentences1, sentences2=sentences2, scores=scores)
        if not np.isfinite(np.asarray(scores, np.float64)).all():
            bad = int(np.flatnonzero(~np.isfinite(np.asarray(scores, np.float64)))[0])
            raise InputError(f"scores[{bad}] is {scores[bad]}; every gold score must be a number.")
        self.sentences1, self.sentences2, self.scores = sentences1, sentences2, scores
        self.batch_size, self.show_progress_bar, self.write_csv = batch_size, show_progress_bar, write_csv
        self.main_similarity = SimilarityFunction(main_similarity) if main_similarity else None
        self.similarity_fn_names = similarity_fn_names  # type: ignore[assignment]
        self.name, self.precision, self.truncate_dim = name, precision, truncate_dim
        middle = "_" + precision if precision else ""
        self.csv_file = file_name("similarity_evaluation", f"{name}{middle}".lstrip("_") if not name else name + middle)
        self.names()

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> EmbeddingSimilarityEvaluator:
        """The evaluator of a list of `InputExample` of two texts and a score."""
        columns = zip(*((*example.texts[:2], example.label) for example in examples), strict=True)
        return cls(*map(list, columns), **kwargs)  # type: ignore[arg-type]

    def _evaluate(self, model: SearchEncoder) -> Measured:
        first, second = (comparable(rows, self.precision) for rows in self._embed(model))
        names = self.names(model)
        metrics: dict[str, float] = {}
        for name in names:
            scores = self.pair_scores(model, first, second, name)
            metrics[f"pearson_{name}"] = pearson(self.scores, scores)  # type: ignore[arg-type]
            metrics[f"spearman_{name}"] = spearman(self.scores, scores)  # type: ignore[arg-type]
        row = [metrics[f"{kind}_{name}"] for name in names for kind in KINDS]
        if len(names) > 1:
            metrics |= {f"{kind}_max": max(metrics[f"{kind}_{name}"] for name in names) for kind in KINDS}
        return metrics, row

    def _embed(self, model: SearchEncoder) -> tuple[np.ndarray, np.ndarray]:
        """(B, H) of both columns; those of one byte a dimension are quantised together, by the same ranges."""
        if self.precision not in ("int8", "uint8"):
            return self.embed_inputs(model, self.sentences1), self.embed_inputs(model, self.sentences2)
        rows = self.embed_inputs(model, [*self.sentences1, *self.sentences2])
        return rows[: len(self.sentences1)], rows[len(self.sentences1) :]

    @property
    def main_name(self) -> str | None:
        return None if self.main_similarity is None else self.main_similarity.value

    def headers(self, names: Sequence[str]) -> list[str]:
        return ["epoch", "steps", *(f"{name}_{kind}" for name in names for kind in KINDS)]

    def embed_inputs(self, model: SearchEncoder, sentences: Texts, **kwargs: Any) -> Any:
        """Texts -> (B, H)."""
        quantised: dict[str, Any] = (
            {"precision": self.precision, "normalize_embeddings": True} if self.precision else {}
        )
        return self._encode(model, sentences, **quantised, **kwargs)

    @property
    def description(self) -> str:
        return "Semantic Similarity"


def comparable(rows: np.ndarray, precision: str | None) -> np.ndarray:
    """Quantised embeddings as numbers that similarities can be computed of: bits as 0 and 1, bytes as floats."""
    if precision == "binary":  # bytes less 128, see `quantization`
        rows = (np.asarray(rows).astype(np.int16) + 128).astype(np.uint8)
    if precision in ("binary", "ubinary"):
        return np.unpackbits(rows, axis=1)
    return rows
