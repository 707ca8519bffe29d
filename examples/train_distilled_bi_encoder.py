"""Distillation: a bi-encoder learns the margins that a cross-encoder sees between documents (MarginMSE).

    python examples/train_reranker.py --output teacher
    python examples/train_distilled_bi_encoder.py --teacher teacher/final

Data as in `train_reranker.py`. What is measured is the bi-encoder's search for held-out queries. Without --teacher a
cross-encoder with an untrained head shows that it runs.
"""

from __future__ import annotations

from typing import Any

from common import cross_encoder, options, train
from train_reranker import NEGATIVES, hub, local, with_negatives
from train_retrieval import evaluator_of

from sentence_transformers import SentenceTransformer, losses

QUERY_COLUMNS = ("query", "document", *(f"negative_{i + 1}" for i in range(NEGATIVES)))


def with_scores(data: Any, teacher: Any) -> Any:
    """The data set with the teacher's scores of each query's documents as labels."""
    columns = [data[name] for name in QUERY_COLUMNS[: len(data.column_names)]]
    scores = [teacher.predict(list(zip(columns[0], column, strict=True))).tolist() for column in columns[1:]]
    return data.add_column("label", [list(row) for row in zip(*scores, strict=True)])


def main() -> None:
    chosen = options(__doc__, steps=100, teacher="the trained cross-encoder's folder")
    model = SentenceTransformer(chosen.model, device="cpu")
    teacher = cross_encoder(chosen.teacher or chosen.model, **({} if chosen.teacher else {"num_labels": 1}))
    known, held_out = (hub if chosen.hub else local)(chosen.seed)
    data = with_scores(with_negatives(known[: chosen.steps * chosen.batch_size], model), teacher)
    train(model, data, losses.MarginMSELoss(model), evaluator_of(held_out), chosen)


if __name__ == "__main__":
    main()
