"""Does this paragraph answer the question? A cross-encoder with two classes, as trained on QNLI, and cross entropy.

Local data: the Debian handbook. The question is the first sentence of a paragraph, the rest of the paragraph answers
it, that of the next paragraph does not. Hub data: nyu-mll/glue, "qnli".
"""

from __future__ import annotations

from typing import Any

from common import cross_encoder, options, split, texts, train
from datasets import Dataset, load_dataset
from sentence_transformers.cross_encoder.evaluation import CrossEncoderClassificationEvaluator
from sentence_transformers.cross_encoder.losses import CrossEntropyLoss

HELD_OUT = 400


def local(seed: int) -> tuple[list[Any], list[Any]]:
    """(question, paragraph, 1 if it answers it) rows to train on, and held-out ones."""
    parts = [text.partition(". ") for text in dict.fromkeys(texts.paragraphs())]
    pairs = [(first + ".", rest) for first, _, rest in parts if len(rest) > 60]
    rows = [(question, answer, 1) for question, answer in pairs]
    rows += [(question, answer, 0) for (question, _), (_, answer) in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    return split(rows, HELD_OUT, seed)


def hub(seed: int) -> tuple[list[Any], list[Any]]:
    data = load_dataset("nyu-mll/glue", "qnli")
    train_rows, test_rows = (
        [(row["question"], row["sentence"], 1 - row["label"]) for row in data[name].select(range(count))]
        for name, count in (("train", 20_000), ("validation", 1000))
    )
    return train_rows, test_rows


def main() -> None:
    chosen = options(__doc__, steps=120, learning_rate=5e-5)
    known, held_out = (hub if chosen.hub else local)(chosen.seed)
    columns = zip(("question", "paragraph", "label"), zip(*known, strict=True), strict=True)
    evaluator = CrossEncoderClassificationEvaluator(
        [[question, text] for question, text, _ in held_out], [label for *_, label in held_out], name="test"
    )
    model = cross_encoder(chosen.model, num_labels=2, max_length=128)
    train(model, Dataset.from_dict(dict(columns)), CrossEntropyLoss(model), evaluator, chosen)


if __name__ == "__main__":
    main()
