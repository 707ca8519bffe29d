"""A late interaction model for search: MaxSim with in-batch negatives, from all-MiniLM-L6-v2 with a new projection.

    python examples/train_late_interaction.py                    minutes on two cores

Local data: WordNet. The query is a definition, the document the words of the entry with an example sentence. Hub data:
sentence-transformers/natural-questions. What is measured is the search among all entries for held-out definitions,
before and after; before, the projection to 128 dimensions is random.
"""

from __future__ import annotations

from common import options, split, train
from datasets import Dataset
from sentence_transformers.multi_vector_encoder.evaluation import MultiVectorInformationRetrievalEvaluator
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from train_sparse import hub, local

from sentence_transformers import MultiVectorEncoder

HELD_OUT, OTHERS = 300, 1700


def evaluator_of(rows: list[tuple[str, str]], others: list[str]) -> MultiVectorInformationRetrievalEvaluator:
    """Each query has one right document, among those of the other queries and `others`."""
    documents = {f"d{i}": text for i, text in enumerate([*(document for _, document in rows), *others])}
    queries = {f"q{i}": query for i, (query, _) in enumerate(rows)}
    relevant = {f"q{i}": {f"d{i}"} for i in range(len(rows))}
    return MultiVectorInformationRetrievalEvaluator(queries, documents, relevant, name="test")


def main() -> None:
    chosen = options(
        __doc__, steps=80, batch_size=32, learning_rate=1e-4, model="sentence-transformers/all-MiniLM-L6-v2"
    )
    known, held_out = split(hub() if chosen.hub else local(), HELD_OUT, chosen.seed)
    evaluator = evaluator_of(held_out, [document for _, document in known[-OTHERS:]])
    rows = known[: chosen.steps * chosen.batch_size]
    data = Dataset.from_dict(dict(zip(("query", "document"), zip(*rows, strict=True), strict=True)))
    model = MultiVectorEncoder(chosen.model, device="cpu")
    loss = MultiVectorMultipleNegativesRankingLoss(model)
    train(model, data, loss, evaluator, chosen, batch_sampler="no_duplicates")


if __name__ == "__main__":
    main()
