"""Learning from a teacher: its vectors, its margins, its ranking.

    embeddings   distance(student(text), teacher), mean over the columns                      Kim et al. 2023
    margin MSE   (sim(q, p) − sim(q, n) − (t_p − t_n))²                                 Hofstätter et al. 2020
    KL           KL(softmax(t / T_t) ‖ softmax(sim(q, ·) / T_s)) · T_s²                        Lin et al. 2020

t are the teacher's scores, given as labels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sentence_transformers.errors import InputError
from sentence_transformers.losses.base import Accepts, Loss, check_columns, check_labels, with_twin
from sentence_transformers.losses.citations import cites
from sentence_transformers.losses.merged_forward import unwrap
from sentence_transformers.similarity import pairwise_dot_score
from sentence_transformers.util.atomic import replacing
from sentence_transformers.util.misc import check_teacher_targets

if TYPE_CHECKING:
    pass

Similarity = Callable[[Tensor, Tensor], Tensor]
KL = partial(F.kl_div, reduction="batchmean")
DISTANCES = ("mse", "l2", "cosine")
PROJECTION_FILE = "projection.safetensors"


def embedding_distance(student: Tensor, teacher: Tensor, metric: str) -> Tensor:
    """(B, H), (B, H) -> scalar."""
    if metric == "mse":
        return F.mse_loss(student, teacher)
    if metric == "l2":
        return (student - teacher).norm(p=2, dim=-1).mean()
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()


class EmbedDistillLoss(Loss):
    """Each text's vector should be the teacher's.

    Args:
        model: the student.
        distance_metric: "cosine", "l2" or "mse".
        projection_dim: the teacher's dimension, if it is another: a linear layer is trained on top of the student.

    Labels: the teacher's vectors, (B, H) for all columns or (B, columns, H).
    """

    citation = cites("kim2023embeddistillgeometricknowledgedistillation")
    accepts: tuple[Accepts, ...] = (Accepts(("sentence",), "embedding", least=1, most=None),)
    config_keys: ClassVar[tuple[str, ...]] = ("distance_metric", "projection_dim")

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Literal["mse", "l2", "cosine"] = "cosine",
        projection_dim: int | None = None,
    ) -> None:
        super().__init__(model)
        if distance_metric not in DISTANCES:
            raise InputError(f"Unknown distance_metric {distance_metric!r}; known are {', '.join(DISTANCES)}.")
        self.distance_metric, self.projection_dim = distance_metric, projection_dim
        self.projection: nn.Module | None = None
        if projection_dim is not None:
            self._project_to(projection_dim)

    def _project_to(self, dimension: int) -> None:
        student = unwrap(self.model).get_embedding_dimension()
        self.projection_dim = dimension
        self.projection = nn.Linear(student, dimension, device=getattr(self.model, "device", None))

    def compute_loss_from_embeddings(
        self, embeddings: list[Tensor], labels: Tensor | list[Tensor] | tuple[Tensor, ...]
    ) -> Tensor:
        """Loss of the student's vectors (B, H) of each column.

        Args:
            labels: the teacher's, (B, H), (B, columns, H), or a list of (B, H).
        """
        name = type(self).__name__
        check_columns(embeddings, 1, None, name)
        if isinstance(labels, list | tuple):
            labels = torch.stack(list(labels), 1)
        labels = check_labels(labels, len(embeddings[0]), name, "the teacher's embeddings")
        if labels.dim() not in (2, 3):
            raise InputError(
                f"{name} expects the teacher's embeddings, (B, H) or (B, columns, H), as labels; got labels of shape "
                f"{tuple(labels.shape)}."
            )
        targets = [labels] * len(embeddings) if labels.dim() == 2 else list(labels.unbind(1))
        if len(targets) != len(embeddings):
            raise InputError(f"{name} got {len(targets)} teacher embeddings per row for {len(embeddings)} columns.")
        losses = []
        for student, teacher in zip(embeddings, targets, strict=True):
            student = student if self.projection is None else self.projection(student)
            if student.shape[-1] != teacher.shape[-1]:
                raise InputError(
                    f"The student has {student.shape[-1]} dimensions, the teacher {teacher.shape[-1]}. "
                    f"{name}(model, projection_dim={teacher.shape[-1]}) trains a projection between them."
                )
            losses.append(embedding_distance(student, teacher.to(student.dtype), self.distance_metric))
        return torch.stack(losses).mean()

    def save_projection(self, path: str | os.PathLike[str]) -> None:
        """Write the projection into the file `path`, or into a folder of that name, if there is one."""
        from safetensors.torch import save_file

        if self.projection is None:
            raise InputError("There is no projection to save: projection_dim is not set.")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.projection.state_dict().items()}
        file = projection_file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as fresh:
            save_file(tensors, str(fresh))

    def load_projection(self, path: str | os.PathLike[str]) -> None:
        """Read a projection that was saved; without `projection_dim` it is made as it was.

        Raises:
            InputError: if it does not fit the student, or `projection_dim`.
        """
        from safetensors.torch import load_file

        tensors = load_file(str(projection_file(path)))
        wide, narrow = tensors["weight"].shape[1], unwrap(self.model).get_embedding_dimension()
        if wide != narrow:
            raise InputError(f"The projection in {path} takes vectors of {wide} dimensions, the student has {narrow}.")
        dimension = tensors["weight"].shape[0]
        if self.projection is None:
            self._project_to(dimension)
        elif dimension != self.projection_dim:
            raise InputError(
                f"The projection in {path} has {dimension} dimensions, but projection_dim={self.projection_dim}."
            )
        self.projection.load_state_dict(tensors)  # type: ignore[union-attr]


@with_twin("sentence_transformers.losses.cross")
class MSELoss(EmbedDistillLoss):
    """Mean squared error against the teacher's vectors.

    Given a `CrossEncoder`, this is its loss of that name: mean squared error against scores.

    Args:
        model: the student.
        projection_dim: the teacher's dimension, if it is another.
    """

    citation = cites("reimers-2020-multilingual-sentence-bert")
    config_keys = ("projection_dim",)

    def __init__(self, model: nn.Module, projection_dim: int | None = None) -> None:
        super().__init__(model, "mse", projection_dim)


def projection_file(path: str | os.PathLike[str]) -> Path:
    """The file of a projection: `path`, or the one in a folder of that name."""
    return Path(path, PROJECTION_FILE) if Path(path).is_dir() else Path(path)


TEACHER_TUPLES = (Accepts(("query", "positive", "negative_1"), "scores", least=3, most=None),)
MARGIN_TUPLES = (Accepts(("query", "positive", "negative"), "score"), *TEACHER_TUPLES)


def candidate_scores(embeddings: list[Tensor], similarity: Similarity) -> Tensor:
    """(B, n): similarity of each query to its own n candidates, the further columns."""
    return torch.stack([similarity(embeddings[0], column) for column in embeddings[1:]], 1)


def teacher_margins(labels: Tensor, negatives: int, name: str) -> Tensor:
    """Margins (B, n) of labels that are margins already, or the scores (B, n + 1) of the positive and n negatives."""
    if labels.shape[1] == negatives + 1:
        return labels[:, :1] - labels[:, 1:]
    if labels.shape[1] != negatives:
        raise InputError(
            f"{name} got labels of shape {tuple(labels.shape)} for {negatives} columns of negatives; "
            f"expected {negatives} margins or {negatives + 1} scores per row."
        )
    return labels


@with_twin("sentence_transformers.losses.cross")
class MarginMSELoss(Loss):
    """The student's margins between positive and negatives should be the teacher's.

    Given a `CrossEncoder`, this is its loss of that name.

    Args:
        model: the student.
        similarity_fct: (B, H), (B, H) -> (B,).

    Labels: the margin (B,), the margins (B, n), or the teacher's scores (B, n + 1), of n columns of negatives.
    """

    citation = cites("hofstätter2021improving")
    accepts = MARGIN_TUPLES
    config_keys: ClassVar[tuple[str, ...]] = ("similarity_fct",)

    def __init__(self, model: nn.Module, similarity_fct: Similarity = pairwise_dot_score) -> None:
        super().__init__(model)
        self.similarity_fct, self.loss_fct = similarity_fct, nn.MSELoss()

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        name = type(self).__name__
        check_columns(embeddings, 3, None, name)
        labels = check_labels(labels, len(embeddings[0]), name)
        scores = self.candidate_scores(embeddings)
        margins = scores[:, :1] - scores[:, 1:]
        targets = teacher_margins(labels.view(len(labels), -1).to(margins.dtype), margins.shape[1], name)
        return self.loss_fct(margins, targets)

    def candidate_scores(self, embeddings: list[Tensor]) -> Tensor:
        """(B, n): similarity of each query to its own n candidates."""
        return candidate_scores(embeddings, self.similarity_fct)


class DistillKLDivLoss(Loss):
    """The student's distribution over a query's candidates should be the teacher's.

    Args:
        model: the student.
        similarity_fct: (B, H), (B, H) -> (B,).
        temperature: of both distributions.
        student_temperature, teacher_temperature: of one of them, instead.

    Labels: the teacher's scores (B, n) of the n candidates.
    """

    citation = cites("lin2020distillingdenserepresentationsranking")
    accepts = TEACHER_TUPLES
    config_keys: ClassVar[tuple[str, ...]] = (
        "similarity_fct",
        "temperature",
        "student_temperature",
        "teacher_temperature",
    )

    def __init__(
        self,
        model: nn.Module,
        similarity_fct: Similarity = pairwise_dot_score,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        super().__init__(model)
        self.similarity_fct, self.temperature = similarity_fct, temperature
        self.loss_fct = nn.KLDivLoss(reduction="batchmean")
        self.student_temperature = temperature if student_temperature is None else student_temperature
        self.teacher_temperature = temperature if teacher_temperature is None else teacher_temperature
        check_temperatures(self, "temperature", "student_temperature", "teacher_temperature")

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        name = type(self).__name__
        check_columns(embeddings, 3, None, name)
        labels = check_labels(labels, len(embeddings[0]), name, "the teacher's scores")
        scores = self.candidate_scores(embeddings)
        if labels.shape != scores.shape:
            raise InputError(
                f"{name} got labels of shape {tuple(labels.shape)}; expected {scores.shape[1]} scores per row."
            )
        temperatures = self.student_temperature, self.teacher_temperature
        return distill_kl(scores, labels, *temperatures, name, self.loss_fct)

    def candidate_scores(self, embeddings: list[Tensor]) -> Tensor:
        """(B, n): similarity of each query to its own n candidates."""
        return candidate_scores(embeddings, self.similarity_fct)


def check_temperatures(holder: object, *names: str) -> None:
    """Raise `InputError` for an attribute that is neither None nor a finite number above 0."""
    for name in names:
        value = getattr(holder, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a finite number above 0, got {value}.")


def distill_kl(
    student: Tensor,
    teacher: Tensor,
    student_temperature: float,
    teacher_temperature: float,
    name: str,
    divergence: Callable[[Tensor, Tensor], Tensor] = KL,
) -> Tensor:
    """KL(softmax(teacher / T_t) ‖ softmax(student / T_s)) · T_s², mean over the rows: (B, n), (B, n) -> scalar.

    Args:
        name: of the loss, for warnings.
        divergence: log of the student's distribution, the teacher's distribution -> scalar.
    """
    logits = teacher.to(student.dtype) / teacher_temperature
    targets = logits.softmax(-1)
    check_teacher_targets(targets, teacher, teacher_temperature, name)
    log_student = (student / student_temperature).log_softmax(-1)
    return divergence(log_student, targets) * student_temperature**2
