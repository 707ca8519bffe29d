"""Retrieval: queries and their documents, as with MS MARCO, with in-batch negatives and mined hard negatives.

Local data: WordNet. The query is a definition, the document the words with an example sentence. Hub data:
sentence-transformers/msmarco-bm25, "triplet".
"""

from __future__ import annotations

from typing import Any

from common import options, split, texts, train
from datasets import Dataset, load_dataset

from sentence_transformers import SentenceTransformer, losses
from sentence_transformers.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import mine_hard_negatives


def local(seed: int, model: SentenceTransformer, pairs: int) -> tuple[Any, list[Any]]:
    rows = [(one.definition, f"{', '.join(one.words)}: {one.examples[0]}") for one in texts.synsets() if one.examples]
    known, new = split(rows, 500, seed)
    columns = dict(zip(("query", "document"), zip(*known[:pairs], strict=True), strict=True))
    mined = mine_hard_negatives(
        Dataset.from_dict(columns), model, num_negatives=1, range_max=20, relative_margin=0.05, verbose=False
    )
    return mined, new


def hub(seed: int, model: SentenceTransformer, pairs: int) -> tuple[Any, list[Any]]:
    data = load_dataset("sentence-transformers/msmarco-bm25", "triplet", split="train").select(range(pairs + 1000))
    parts = data.train_test_split(1000, seed=seed)
    return parts["train"], [(row["query"], row["positive"]) for row in parts["test"]]


def evaluator_of(rows: list[Any], name: str = "test") -> InformationRetrievalEvaluator:
    """Every held-out query over all held-out documents."""
    queries, corpus = {f"q{i}": q for i, (q, _) in enumerate(rows)}, {f"d{i}": d for i, (_, d) in enumerate(rows)}
    relevant = {f"q{i}": {f"d{i}"} for i in range(len(rows))}
    return InformationRetrievalEvaluator(queries, corpus, relevant, name=name, precision_recall_at_k=[10])


def main() -> None:
    chosen = options(__doc__)
    model = SentenceTransformer(chosen.model, device="cpu")
    data, held_out = (hub if chosen.hub else local)(chosen.seed, model, 2 * chosen.steps * chosen.batch_size)
    loss = losses.MultipleNegativesRankingLoss(model)
    train(model, data, loss, evaluator_of(held_out), chosen, batch_sampler="no_duplicates")


if __name__ == "__main__":
    main()
