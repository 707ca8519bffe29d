"""How far is a student from its teacher? Mean squared error of its vectors, × −100, so that greater is better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import EmbeddingEvaluator, Measured, check_lengths, file_name
from sentence_transformers.protocols import Encoder
from sentence_transformers.util.tensor import is_sparse, to_coo

if TYPE_CHECKING:
    from sentence_transformers.encoders.sentence_transformer import SentenceTransformer


class MSEEvaluator(EmbeddingEvaluator):
    """−100 · mean (teacher(source) − student(target))².

    Args:
        source_sentences: texts for the teacher.
        target_sentences: their translations for the student.
        teacher_model: the teacher; its vectors are computed here, once.
        show_progress_bar, batch_size: for `encode`.
        name: put before the names of the metrics.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        truncate_dim: keep only the first dimensions.

    Raises:
        InputError: for columns that are empty or of different lengths, or vectors of different dimensions.
    """

    def __init__(
        self,
        source_sentences: list[str],
        target_sentences: list[str],
        teacher_model: Encoder | None = None,
        show_progress_bar: bool = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_lengths(source_sentences=source_sentences, target_sentences=target_sentences)
        self.truncate_dim, self.batch_size, self.show_progress_bar = truncate_dim, batch_size, show_progress_bar
        self.source_embeddings = None if teacher_model is None else self.embed_inputs(teacher_model, source_sentences)
        self.source_sentences, self.target_sentences = source_sentences, target_sentences
        self.name, self.write_csv = name, write_csv
        self.csv_file = f"mse_evaluation_{name}_results.csv"
        self.csv_headers = ["epoch", "steps", "MSE"]
        self.primary_metric = "negative_mse"

    def _evaluate(self, model: Encoder) -> Measured:
        if self.source_embeddings is None:
            raise InputError("MSEEvaluator needs a teacher_model to compare with.")
        error = squared_error(self.source_embeddings, self.embed_inputs(model, self.target_sentences))
        return {"negative_mse": -error}, [error]

    @property
    def description(self) -> str:
        return "Knowledge Distillation"


class MSEEvaluatorFromDataFrame(EmbeddingEvaluator):
    """`MSEEvaluator` for several pairs of languages at once.

    Args:
        dataframe: rows {language: text}; rows without one of the languages of a pair are left out of it.
        teacher_model: the teacher.
        combinations: pairs of languages: for the teacher, for the student.
        batch_size: for `encode`.
        name: put before the names of the metrics.
        write_csv: whether a call with an output folder adds a row to the CSV file.
        truncate_dim: keep only the first dimensions.
    """

    config_keys = ()

    def __init__(
        self,
        dataframe: list[dict[str, str]],
        teacher_model: Encoder,
        combinations: list[tuple[str, str]],
        batch_size: int = 8,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.combinations, self.batch_size, self.name = combinations, batch_size, name
        self.write_csv, self.truncate_dim = write_csv, truncate_dim
        self.csv_file = file_name("mse_evaluation", name)
        self.csv_headers = ["epoch", "steps", *(f"{source}-{target}" for source, target in combinations)]
        self.primary_metric = "negative_mse"
        self.data: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
        for source, target in combinations:
            rows = [row for row in dataframe if row.get(source, "").strip() and row.get(target, "").strip()]
            if not rows:
                raise InputError(f"No row has both {source!r} and {target!r}.")
            self.data[source, target] = [row[source] for row in rows], [row[target] for row in rows]
        texts = list(dict.fromkeys(text for sources, _ in self.data.values() for text in sources))
        self.teacher_embeddings = dict(zip(texts, self.embed_inputs(teacher_model, texts), strict=True))

    def _evaluate(self, model: SentenceTransformer) -> Measured:
        model.eval()
        errors = []
        for sources, targets in self.data.values():
            teacher = np.stack([self.teacher_embeddings[text] for text in sources])
            errors.append(squared_error(teacher, self.embed_inputs(model, targets)))
        return {"negative_mse": -float(np.mean(errors))}, errors

    @property
    def description(self) -> str:
        return "Knowledge Distillation"


def squared_error(teacher: np.ndarray | Tensor, student: np.ndarray | Tensor) -> float:
    """100 · mean (t − s)² over all entries; two sparse tensors are compared without making them dense."""
    if teacher.shape != student.shape:
        raise InputError(
            f"The teacher's vectors have the shape {tuple(teacher.shape)}, the student's {tuple(student.shape)}; "
            "truncate_dim can make the dimensions equal."
        )
    teacher, student = (rows.detach().cpu() if isinstance(rows, Tensor) else rows for rows in (teacher, student))
    if isinstance(teacher, Tensor) and isinstance(student, Tensor) and is_sparse(teacher) and is_sparse(student):
        difference = to_coo(to_coo(teacher) - to_coo(student))
        return 100 * float(difference.values().double().square().sum()) / difference.numel()
    dense = [rows.to_dense().numpy() if isinstance(rows, Tensor) else rows for rows in (teacher, student)]
    return float(((dense[0] - dense[1]) ** 2).mean() * 100)
