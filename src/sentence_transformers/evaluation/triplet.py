"""Is the anchor nearer to its positive than to its negative?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from sentence_transformers._deprecation import renamed
from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import BaseEvaluator, check_lengths, file_name
from sentence_transformers.evaluation.embedding_similarity import truncation
from sentence_transformers.evaluation.pairs import check_names, names_of, pair_scores
from sentence_transformers.similarity import SimilarityFunction


class TripletEvaluator(BaseEvaluator):
    """Share of triplets whose positive is more alike than the negative, by a margin.

    Args:
        anchors, positives, negatives: the texts; anchors are encoded as queries, the others as documents.
        main_similarity_function: the similarity of the primary metric, if several are reported.
        margin: how much more alike; one for all similarities, or by name.
        name: put before the names of the metrics.
        batch_size, show_progress_bar: for `encode`.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        truncate_dim: keep only the first dimensions.
        similarity_fn_names: "cosine", "dot", "euclidean", "manhattan"; default: the model's own.

    Raises:
        InputError: for columns of different lengths, or a margin for an unknown similarity.
    """

    similarities: ClassVar[tuple[str, ...]] = ("cosine", "dot", "euclidean", "manhattan")

    @renamed(main_distance_function="main_similarity_function")
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
        self.similarity_fn_names = check_names(similarity_fn_names)
        self.margin = margins(margin, self.similarities)
        self.csv_file = file_name("triplet_evaluation", name)
        if self.similarity_fn_names:
            self._set_primary(self.similarity_fn_names)

    @classmethod
    def from_input_examples(cls, examples: Sequence[Any], **kwargs: Any) -> TripletEvaluator:
        """The evaluator of a list of `InputExample` of three texts."""
        anchors, positives, negatives = zip(*(example.texts[:3] for example in examples), strict=True)
        return cls(anchors, positives, negatives, **kwargs)

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        anchors = self.embed_inputs(model, self.anchors, "query")
        positives, negatives = (self.embed_inputs(model, part, "document") for part in (self.positives, self.negatives))
        names = self.similarity_fn_names = names_of(self.similarity_fn_names, model)
        self._set_primary(names)
        metrics: dict[str, float] = {}
        for name in names:
            near, far = pair_scores(anchors, positives, name), pair_scores(anchors, negatives, name)
            metrics[f"{name}_accuracy"] = float((near > far + self.margin.get(name, 0)).mean())
        if self.write_csv:
            headers = ["epoch", "steps", *(f"accuracy_{name}" for name in names)]
            self.write_row(output_path, headers, [epoch, steps, *metrics.values()])
        if len(names) > 1:
            metrics["max_accuracy"] = max(metrics.values())
        metrics = self.prefix_name_to_metrics(metrics, self.name)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    def _set_primary(self, names: Sequence[str]) -> None:
        if self.primary_metric is not None:
            return
        if self.main_similarity_function is not None:
            self.primary_metric = f"{self.main_similarity_function.value}_accuracy"
        else:
            self.primary_metric = f"{names[0]}_accuracy" if len(names) == 1 else "max_accuracy"

    def embed_inputs(self, model: Any, sentences: Any, encode_fn_name: str | None = None, **kwargs: Any) -> Any:
        """Texts of a side -> (B, H)."""
        return side_of(model, encode_fn_name)(
            sentences,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
            convert_to_numpy=True,
            **truncation(self.truncate_dim),
            **kwargs,
        )

    def get_config_dict(self) -> dict[str, Any]:
        return {} if self.truncate_dim is None else {"truncate_dim": self.truncate_dim}


def margins(margin: float | dict[str, float] | None, names: Sequence[str]) -> dict[str, float]:
    """A margin for each similarity."""
    if margin is None or isinstance(margin, int | float):
        return dict.fromkeys(names, float(margin or 0))
    if unknown := sorted(set(margin) - set(names)):
        raise InputError(f"margin has unknown similarities {unknown}; known are {', '.join(names)}.")
    return dict.fromkeys(names, 0.0) | dict(margin)


def side_of(model: Any, side: str | None) -> Any:
    """`encode_query` or `encode_document` of a model, or `encode`."""
    return getattr(model, f"encode_{side}") if side else model.encode
