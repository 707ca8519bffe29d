"""Matryoshka: vectors that can be cut, with MatryoshkaLoss around in-batch negatives.

Data as in train_retrieval.py; measured at each dimension.
"""

from __future__ import annotations

from common import options, train
from train_retrieval import evaluator_of, hub, local

from sentence_transformers import SentenceTransformer, losses
from sentence_transformers.evaluation import SequentialEvaluator

DIMENSIONS = (384, 128, 64, 32, 16)


def main() -> None:
    chosen = options(__doc__)
    model = SentenceTransformer(chosen.model, device="cpu")
    data, held_out = (hub if chosen.hub else local)(chosen.seed, model, 2 * chosen.steps * chosen.batch_size)
    parts = []
    for dimension in DIMENSIONS:
        part = evaluator_of(held_out, f"dim{dimension}")
        part.truncate_dim = dimension
        parts.append(part)
    loss = losses.MatryoshkaLoss(model, losses.MultipleNegativesRankingLoss(model), DIMENSIONS)
    train(model, data, loss, SequentialEvaluator(parts), chosen, batch_sampler="no_duplicates")


if __name__ == "__main__":
    main()
