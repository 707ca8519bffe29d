"""Re-ranking with hard negatives: a cross-encoder made of a bi-encoder sorts what that bi-encoder found.

    python examples/train_reranker.py                  minutes on two cores

Local data: WordNet. The query is a sentence, the document the dictionary entry that the sentence is an example of; hard
negatives are entries that the bi-encoder takes for it. Hub data: sentence-transformers/gooaq. What is measured is the
ranking of the 20 entries that the bi-encoder puts first, for held-out sentences: `base_…` is the bi-encoder's own.
"""

from __future__ import annotations

from typing import Any

from common import cross_encoder, options, split, texts, train
from datasets import Dataset, load_dataset
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.cross_encoder.losses import MultipleNegativesRankingLoss
from torch import nn

from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives, semantic_search

HELD_OUT, FOUND, NEGATIVES = 200, 20, 3


def local(seed: int) -> tuple[list[Any], list[Any]]:
    """(query, document) rows to train on, and held-out ones."""
    rows = [(one.examples[0], f"{', '.join(one.words)}: {one.definition}") for one in texts.synsets() if one.examples]
    return split(rows, HELD_OUT, seed)


def hub(seed: int) -> tuple[list[Any], list[Any]]:
    data = load_dataset("sentence-transformers/gooaq", split="train").select(range(100_000))
    return split(list(zip(data["question"], data["answer"], strict=True)), HELD_OUT, seed)


def with_negatives(rows: list[Any], model: SentenceTransformer) -> Any:
    """(query, document, negative_1, …): documents that the bi-encoder puts near the query."""
    pairs = Dataset.from_dict(dict(zip(("query", "document"), zip(*rows, strict=True), strict=True)))
    return mine_hard_negatives(
        pairs, model, num_negatives=NEGATIVES, range_max=FOUND, sampling_strategy="random", output_format="n-tuple",
        verbose=False,
    )  # fmt: skip


def evaluator_of(rows: list[Any], others: list[str], model: SentenceTransformer) -> CrossEncoderRerankingEvaluator:
    """Each query with the documents that the bi-encoder finds for it among all."""
    documents = list(dict.fromkeys([document for _, document in rows] + others))
    queries = [query for query, _ in rows]
    found = semantic_search(
        model.encode_query(queries, convert_to_tensor=True),
        model.encode_document(documents, convert_to_tensor=True),
        top_k=FOUND,
    )
    samples = [
        {"query": query, "positive": [document], "documents": [documents[hit["corpus_id"]] for hit in hits]}
        for (query, document), hits in zip(rows, found, strict=True)
    ]
    return CrossEncoderRerankingEvaluator(samples, always_rerank_positives=False, name="test")


def main() -> None:
    chosen = options(__doc__, steps=80, learning_rate=2e-4)
    finder = SentenceTransformer(chosen.model, device="cpu")
    known, held_out = (hub if chosen.hub else local)(chosen.seed)
    data = with_negatives(known[: chosen.steps * chosen.batch_size], finder)
    evaluator = evaluator_of(held_out, [document for _, document in known[-3000:]], finder)
    model = cross_encoder(chosen.model, num_labels=1, max_length=128)
    loss = MultipleNegativesRankingLoss(model, num_negatives=1, scale=1, activation_fn=nn.Identity())
    train(model, data, loss, evaluator, chosen, batch_sampler="no_duplicates")


if __name__ == "__main__":
    main()
