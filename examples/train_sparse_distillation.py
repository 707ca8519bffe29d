"""Distillation: a sparse encoder learns the margins that a dense model sees between documents (SparseMarginMSELoss).

The teacher is all-MiniLM-L6-v2. Data and measurement as in `train_sparse.py`; each query comes with its document and
with one that the teacher finds near.
"""

from __future__ import annotations

from typing import Any

from common import MODEL, options, split, train
from datasets import Dataset
from sentence_transformers.sparse_encoder.losses import SparseMarginMSELoss, SpladeLoss
from train_sparse import HELD_OUT, OTHERS, SPLADE, evaluator_of, hub, local

from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.util import mine_hard_negatives, pairwise_cos_sim

SPREAD = 20.0  # cosines lie within 0 to 1, dot products of sparse vectors do not


def with_margins(rows: list[Any], teacher: SentenceTransformer) -> Any:
    """(query, positive, negative) with the teacher's margin as label."""
    pairs = Dataset.from_dict(dict(zip(("query", "positive"), zip(*rows, strict=True), strict=True)))
    data = mine_hard_negatives(pairs, teacher, num_negatives=1, range_max=20, sampling_strategy="random", verbose=False)
    queries, positives, negatives = (
        teacher.encode(list(data[name]), convert_to_tensor=True) for name in data.column_names[:3]
    )
    margins = pairwise_cos_sim(queries, positives) - pairwise_cos_sim(queries, negatives)
    return data.add_column("label", (SPREAD * margins).tolist())


def main() -> None:
    chosen = options(__doc__, steps=80, batch_size=32, learning_rate=5e-5, model=SPLADE)
    known, held_out = split(hub() if chosen.hub else local(), HELD_OUT, chosen.seed)
    evaluator = evaluator_of(held_out, [document for _, document in known[-OTHERS:]])
    data = with_margins(known[: chosen.steps * chosen.batch_size], SentenceTransformer(MODEL, device="cpu"))
    model = SparseEncoder(chosen.model, device="cpu")
    loss = SpladeLoss(
        model, SparseMarginMSELoss(model), document_regularizer_weight=3e-2, query_regularizer_weight=3e-2
    )
    train(model, data, loss, evaluator, chosen)


if __name__ == "__main__":
    main()
