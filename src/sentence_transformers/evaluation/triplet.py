"""Is the anchor nearer to its positive than to its negative?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from sentence_transformers._deprecation import legacy
from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import Measured, check_lengths, file_name
from sentence_transformers.evaluation.pairs import SimilaritiesEvaluator
from sentence_transformers.protocols import SearchEncoder, Texts
from sentence_transformers.similarity import SimilarityFunction


class TripletEvaluator(SimilaritiesEvaluator):
    """Share of triplets whose positive is more alike than the negative, by a margin.

    Args:
        anchors, positives, negatives: the texts; anchors are encoded as queries, the others as documents.
        main_similarity_function: the similarity of the primary metric; reported in any case.
        margin: how much more alike; one for all similarities, or by name.
        name: put before the names of the metrics.
        batch_size, show_progress_bar: for `encode`.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        truncate_dim: keep only the first dimensions.
        similarity_fn_names: "cosine", "dot", "euclidean", "manhattan"; default: the main one, else the model's own.

    Raises:
        InputError: for columns of different lengths, or a margin for an unknown similarity.
    """

    similarities: ClassVar[tuple[str, ...]] = ("cosine", "dot", "euclidean", "manhattan")
    primary_kind: ClassVar[str] = "{}_accuracy"

    @legacy(main_distance_function="main_similarity_function")
    def __init__(
        self,
        anchors: Sequence[Any],
        positives: Sequence[Any],
        negatives: Sequence[Any],
        main_similarity_function: str | SimilarityFunction | None = None,
        margin: float | dict[str, float] | None = None,
        name: str = "",
        batch_size: int = 16,
        show_progress_bar: bool = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        similarity_fn_names: list[Literal["cosine", "dot", "euclidean", "manhattan"]] | None = None,
    ) -> None:
        super().__init__()
        check_lengths(anchors=anchors, positives=positives, negatives=negatives)
        self.anchors, self.positives, self.negatives = anchors, positives, negatives
        self.name, self.batch_size, self.show_progress_bar = name, batch_size, show_progress_bar
        self.write_csv, self.truncate_dim = write_csv, truncate_dim
        main = main_similarity_function
        self.main_similarity_function = SimilarityFunction(main) if main else None
        self.similarity_fn_names = similarity_fn_names  # type: ignore[assignment]
        self.margin = margins(margin, self.similarities)
        self.csv_file = file_name("triplet_evaluation", name)
        self.names()

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> TripletEvaluator:
        """The evaluator of a list of `InputExample` of three texts."""
        anchors, positives, negatives = zip(*(example.texts[:3] for example in examples), strict=True)
        return cls(anchors, positives, negatives, **kwargs)

    def _evaluate(self, model: SearchEncoder) -> Measured:
        anchors = self.embed_inputs(model, self.anchors, encode_fn_name="query")
        positives, negatives = (
            self.embed_inputs(model, part, encode_fn_name="document") for part in (self.positives, self.negatives)
        )
        names = self.names(model)
        metrics: dict[str, float] = {}
        for name in names:
            near, far = (self.pair_scores(model, anchors, side, name) for side in (positives, negatives))
            metrics[f"{name}_accuracy"] = float((near > far + self.margin.get(name, 0)).mean())
        row = list(metrics.values())
        return metrics | ({"max_accuracy": max(row)} if len(names) > 1 else {}), row

    @property
    def main_name(self) -> str | None:
        return None if self.main_similarity_function is None else self.main_similarity_function.value

    def headers(self, names: Sequence[str]) -> list[str]:
        return ["epoch", "steps", *(f"accuracy_{name}" for name in names)]

    def embed_inputs(
        self, model: SearchEncoder, sentences: Texts, encode_fn_name: str | None = None, **kwargs: Any
    ) -> Any:
        """Texts of a side -> (B, H)."""
        return self._encode(model, sentences, encode_fn_name, **kwargs)

    def get_config_dict(self) -> dict[str, Any]:
        return super().get_config_dict() | ({"margin": self.margin} if any(self.margin.values()) else {})


def margins(margin: float | dict[str, float] | None, names: Sequence[str]) -> dict[str, float]:
    """A margin for each similarity."""
    if margin is None or isinstance(margin, int | float):
        return dict.fromkeys(names, float(margin or 0))
    if unknown := sorted(set(margin) - set(names)):
        raise InputError(f"margin has unknown similarities {unknown}; known are {', '.join(names)}.")
    return dict.fromkeys(names, 0.0) | dict(margin)
