"""Evaluators of late interaction models: those of dense models, by MaxSim.

    evaluator = MultiVectorInformationRetrievalEvaluator(queries, corpus, relevant_docs)
    evaluator(model)     {"maxsim_ndcg@10": …, …}

Embeddings are lists of token vectors; whatever compares them is the model's own similarity unless another is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sentence_transformers.errors import InputError
from sentence_transformers.evaluation.base import EmbeddingEvaluator, Measured, MetricsEvaluator, file_name
from sentence_transformers.evaluation.information_retrieval import InformationRetrievalEvaluator, ScoreFunction
from sentence_transformers.evaluation.metrics import spearman
from sentence_transformers.evaluation.nano_beir import NanoBEIREvaluator
from sentence_transformers.evaluation.reranking import RerankingEvaluator
from sentence_transformers.evaluation.triplet import TripletEvaluator
from sentence_transformers.losses.distillation import check_temperatures, distill_kl
from sentence_transformers.protocols import Encoder, SearchEncoder, Texts
from sentence_transformers.similarity import named_function
from sentence_transformers.util.misc import similarity_fct_name
from sentence_transformers.util.tensor import ArrayLike, to_tensor

CHUNK = 5000  # documents encoded at a time: each has many vectors


class MultiVectorEvaluator(EmbeddingEvaluator):
    """What these evaluators add to their dense twins, which come second among their bases."""

    encode_options: ClassVar[dict[str, bool]] = {}
    limit_name = None

    def _encode(self, model: Encoder, texts: Texts, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Texts -> one tensor (tokens, H) each."""
        return super()._encode(model, list(texts), *args, **kwargs)


class MultiVectorInformationRetrievalEvaluator(MultiVectorEvaluator, InformationRetrievalEvaluator):
    """`InformationRetrievalEvaluator` by MaxSim.

    Args:
        corpus_chunk_size: documents encoded at a time.
        chunk_elements: most token similarities held at once; see `maxsim`.
        score_functions: name -> lists of q and d (tokens, H) -> (q, d); default: the model's own similarity.
        others: see `InformationRetrievalEvaluator`.
    """

    def __init__(
        self,
        queries: dict[str, Any],
        corpus: dict[str, Any],
        relevant_docs: dict[str, set[str]],
        *,
        corpus_chunk_size: int = CHUNK,
        chunk_elements: int | None = None,
        score_functions: dict[str, ScoreFunction] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(queries, corpus, relevant_docs, corpus_chunk_size, score_functions=score_functions, **kwargs)
        self.chunk_elements = chunk_elements

    def _own_similarity(self, model: SearchEncoder) -> ScoreFunction:
        if self.chunk_elements is None:
            return super()._own_similarity(model)
        return partial(model.similarity, chunk_elements=self.chunk_elements)


class MultiVectorNanoBEIREvaluator(NanoBEIREvaluator):
    """`NanoBEIREvaluator` by MaxSim.

    Args:
        corpus_chunk_size, chunk_elements: see `MultiVectorInformationRetrievalEvaluator`.
        others: see `NanoBEIREvaluator`.
    """

    information_retrieval_class: ClassVar[Any] = MultiVectorInformationRetrievalEvaluator

    def __init__(
        self, *args: Any, corpus_chunk_size: int = CHUNK, chunk_elements: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        for evaluator in self.evaluators:
            evaluator.corpus_chunk_size, evaluator.chunk_elements = corpus_chunk_size, chunk_elements


class MultiVectorRerankingEvaluator(MultiVectorEvaluator, RerankingEvaluator):
    """`RerankingEvaluator` by MaxSim.

    Args:
        similarity_fct: lists of q and d (tokens, H) -> (q, d); default: the model's own similarity.
        others: see `RerankingEvaluator`.
    """

    def __init__(
        self,
        samples: list[dict[str, Any]],
        *,
        at_k: int = 10,
        name: str = "",
        write_csv: bool = True,
        similarity_fct: Callable[[Any, Any], Tensor] | None = None,
        batch_size: int = 16,
        show_progress_bar: bool = False,
        use_batched_encoding: bool = True,
    ) -> None:
        RerankingEvaluator.__init__(
            self,
            samples,
            at_k,
            name,
            write_csv,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            use_batched_encoding=use_batched_encoding,
        )
        self.similarity_fct: Any = similarity_fct

    def _similarity(self, model: SearchEncoder) -> Callable[[Any, Any], Any]:
        return model.similarity if self.similarity_fct is None else self.similarity_fct


class MultiVectorTripletEvaluator(MultiVectorEvaluator, TripletEvaluator):
    """`TripletEvaluator` by MaxSim; `similarity_fn_names` are "maxsim" and "meanmaxsim"."""

    similarities: ClassVar[tuple[str, ...]] = ("maxsim", "meanmaxsim")


class MultiVectorDistillationEvaluator(MetricsEvaluator):
    """How near the model's scores are to a teacher's.

        kl_divergence   KL(softmax(teacher / T_t) ‖ softmax(scores / T_s)) · T_s², mean over the queries
        spearman        rank correlation of each query's scores, mean over the queries; 0 for equal scores

    Args:
        queries: the texts.
        documents: for each query its candidates, each the same number of them; or one document per query, which make
            one list together.
        scores: the teacher's, in the shape of `documents`.
        temperature: of both distributions.
        student_temperature, teacher_temperature: of one of them, instead.
        similarity_fct: lists of N queries and of N documents (tokens, H) -> (N,); default: the model's own
            `similarity_pairwise`.
        name: put before the names of the metrics.
        batch_size, show_progress_bar: for `encode`.
        write_csv: whether a call with an output folder adds a row to the CSV file.

    Raises:
        InputError: if the shapes do not fit together, or a temperature is not a finite number above 0.
    """

    def __init__(
        self,
        queries: Sequence[Any],
        documents: Sequence[Any],
        scores: ArrayLike,
        *,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
        similarity_fct: Callable[..., Tensor] | None = None,
        name: str = "",
        batch_size: int = 16,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        super().__init__()
        self.queries, self.documents = list(queries), list(documents)
        self.scores = torch.as_tensor(scores, dtype=torch.float32)
        self.paired = not self.documents or isinstance(self.documents[0], str)
        shape = (len(self.documents),) if self.paired else (len(self.documents), len(self.documents[0]))
        if len(self.queries) != len(self.documents) or self.scores.shape != shape:
            raise InputError(
                f"{len(self.queries)} queries and {len(self.documents)} entries of documents need scores of shape "
                f"{shape}, got {tuple(self.scores.shape)}."
            )
        if not self.paired and len({len(candidates) for candidates in self.documents}) > 1:
            raise InputError("All queries need the same number of candidates.")
        self.temperature = temperature
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        check_temperatures(self, "temperature", "student_temperature", "teacher_temperature")
        self.similarity_fct = similarity_fct
        self.name, self.batch_size, self.show_progress_bar = name, batch_size, show_progress_bar
        self.write_csv = write_csv
        self.csv_file = file_name("distillation_evaluation", name)
        self.csv_headers = ["epoch", "steps", "kl_divergence", "spearman"]
        self.primary_metric = "spearman"

    def _evaluate(self, model: SearchEncoder) -> Measured:
        student = self.student_scores(model)
        teacher = self.scores[None] if self.paired else self.scores
        cool, warm = (
            self.temperature if value is None else value
            for value in (self.student_temperature, self.teacher_temperature)
        )
        metrics = {
            "kl_divergence": float(distill_kl(student, teacher, cool, warm, type(self).__name__)),
            "spearman": mean_spearman(teacher.numpy(), student.numpy()),
        }
        return metrics, list(metrics.values())

    def student_scores(self, model: SearchEncoder) -> Tensor:
        """The model's scores (B, n) on the CPU; (1, N) of one document per query."""
        settings = {"batch_size": self.batch_size, "show_progress_bar": self.show_progress_bar}
        queries = model.encode_query(self.queries, **settings)
        lists = [[text] if self.paired else list(text) for text in self.documents]
        found = model.encode_document([text for candidates in lists for text in candidates], **settings)
        count = len(lists[0]) if lists else 0
        similarity = self.similarity_fct or named_function(model.similarity_pairwise)
        columns = [to_tensor(similarity(queries, found[k::count])).float().cpu() for k in range(count)]
        return columns[0][None] if self.paired else torch.stack(columns, 1)

    def get_config_dict(self) -> dict[str, Any]:
        settings = {
            "temperature": None if self.temperature == 1.0 else self.temperature,
            "student_temperature": self.student_temperature,
            "teacher_temperature": self.teacher_temperature,
            "similarity_fct": None if self.similarity_fct is None else similarity_fct_name(self.similarity_fct),
        }
        return {key: value for key, value in settings.items() if value is not None}


def mean_spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Mean rank correlation of the rows of two arrays (B, n); 0 for a row whose values are all equal."""
    return float(np.mean(np.nan_to_num([spearman(x, y) for x, y in zip(first, second, strict=True)])))
