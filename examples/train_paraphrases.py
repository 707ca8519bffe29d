"""Paraphrases and duplicates: pairs that mean the same or not, with OnlineContrastiveLoss.

Local data: WordNet. A definition and a sentence with the word belong together; a definition and another word's sentence
do not. Hub data: sentence-transformers/quora-duplicates, "pair-class".
"""

from __future__ import annotations

from typing import Any

from common import options, split, texts, train
from datasets import Dataset, load_dataset

from sentence_transformers import SentenceTransformer, losses
from sentence_transformers.evaluation import BinaryClassificationEvaluator


def local(seed: int) -> tuple[Any, list[Any]]:
    pairs = [(one.definition, one.examples[0]) for one in texts.synsets() if one.examples]
    pairs, _ = split(pairs, 0, seed)
    shifted = [pairs[(i + 1) % len(pairs)][1] for i in range(len(pairs))]
    rows = [(a, b, 1) for a, b in pairs] + [(a, b, 0) for (a, _), b in zip(pairs, shifted, strict=True)]
    known, new = split(rows, 400, seed)
    columns = dict(zip(("sentence1", "sentence2", "label"), zip(*known, strict=True), strict=True))
    return Dataset.from_dict(columns), new


def hub(seed: int) -> tuple[Any, list[Any]]:
    data = load_dataset("sentence-transformers/quora-duplicates", "pair-class", split="train")
    parts = data.train_test_split(2000, seed=seed)
    return parts["train"], [(row["sentence1"], row["sentence2"], row["label"]) for row in parts["test"]]


def main() -> None:
    chosen = options(__doc__)
    data, held_out = (hub if chosen.hub else local)(chosen.seed)
    first, second, labels = map(list, zip(*held_out, strict=True))
    evaluator = BinaryClassificationEvaluator(first, second, labels, name="test")
    model = SentenceTransformer(chosen.model, device="cpu")
    train(model, data, losses.OnlineContrastiveLoss(model), evaluator, chosen)


if __name__ == "__main__":
    main()
