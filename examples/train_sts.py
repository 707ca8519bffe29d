"""STS: similarities that follow people's judgements, with CoSENTLoss.

Local data: Lee et al. 2005, fifty news texts of which people judged how alike each two are; pairs of held-out texts are
measured. Hub data: sentence-transformers/stsb.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from common import options, split, texts, train
from datasets import Dataset, load_dataset

from sentence_transformers import SentenceTransformer, losses
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator


def local(seed: int) -> tuple[Any, Any]:
    documents, judged = texts.lee()
    known, new = split(range(len(documents)), 20, seed)

    def pairs(numbers: Any) -> Any:
        rows = [(documents[i], documents[j], judged[i][j]) for i, j in combinations(sorted(numbers), 2)]
        return Dataset.from_dict(dict(zip(("sentence1", "sentence2", "score"), zip(*rows, strict=True), strict=True)))

    return pairs(known), pairs(new)


def hub(seed: int) -> tuple[Any, Any]:
    data = load_dataset("sentence-transformers/stsb")
    return data["train"], data["test"]


def main() -> None:
    chosen = options(__doc__)
    data, held_out = (hub if chosen.hub else local)(chosen.seed)
    evaluator = EmbeddingSimilarityEvaluator(
        held_out["sentence1"][:], held_out["sentence2"][:], held_out["score"][:], name="test"
    )
    model = SentenceTransformer(chosen.model, device="cpu")
    train(model, data, losses.CoSENTLoss(model), evaluator, chosen)


if __name__ == "__main__":
    main()
